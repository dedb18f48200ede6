//! Changes of the buckets of one charge, while no other request can change them.

use smallvec::SmallVec;

use super::cap::SharedBuckets;
use super::cell::Tat;
use super::exceptions::Exception;
use super::key::BucketKey;
use super::locked::Writable;
use super::shard::{Buckets, Shard};
use super::sync::MutexGuard;
use super::table::Table;
use crate::values::{BucketState, Charge, ChargeOutcome, Decisions, Entry, Scope};

/// The states of a charge's buckets. Four fit without an allocation.
type States = SmallVec<[BucketState; 4]>;

/// The keys of a charge's buckets.
type ChargeKeys = SmallVec<[BucketKey; 4]>;

/// What a change has returned, and what has to be done when no lock is held any more.
pub(super) struct Changed<R> {
    pub(super) result: R,
    pub(super) now: u64,
    /// Whether a bucket was one that callers share, for want of room.
    pub(super) shared: bool,
    /// Whether there was no room for an overdraft.
    pub(super) is_full: bool,
}

/// Where a bucket is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the table.
    Own,
    /// Not in the table, since it is full. A place is reserved for it.
    Reserved,
    /// There is no room for it: it is the one that callers share.
    Shared,
}

impl Table {
    /// Decides a charge of buckets that are all in the table, without an exception, and need no
    /// correction: the common case of several limits. `None` if that is not so. Returns the present
    /// time, too.
    pub(super) fn charge_known(
        &self,
        charge: &Charge<'_>,
        clock: impl FnOnce() -> u64,
    ) -> Option<(Decisions, u64)> {
        let keys: ChargeKeys = self.keys_of(charge);
        let locked = self.write(charge, &keys);
        let now = clock();
        let mut known: SmallVec<[(&Tat, u64); 4]> = SmallVec::new();
        let (mut binding_hold, mut shadow_hold, mut has_shadow) = (true, true, false);
        for (entry, key) in charge.entries().iter().zip(&keys) {
            let buckets = locked.buckets(self.index(*key));
            if buckets.exception(*key).is_some() {
                return None;
            }
            let tat = buckets.find(*key)?;
            let debt = tat.get().saturating_sub(now);
            if debt > entry.rate().refill() {
                return None;
            }
            let holds = debt <= entry.tolerance();
            if entry.is_binding() {
                binding_hold &= holds;
            } else {
                (has_shadow, shadow_hold) = (true, shadow_hold & holds);
            }
            known.push((tat, debt));
        }
        let outcome = ChargeOutcome::of(binding_hold, shadow_hold, has_shadow);
        let decisions = charge.entries().iter().zip(&known).map(|(entry, (tat, debt))| {
            let holds = *debt <= entry.tolerance();
            let debt = if outcome.charges(entry.is_binding()) {
                tat.set(now + debt + entry.time());
                debt + entry.time()
            } else {
                *debt
            };
            entry.decide(holds, debt)
        });
        let decisions = Decisions::new(outcome, decisions);
        if outcome.is_admitted() {
            locked.alter();
        }
        Some((decisions, now))
    }

    /// Calls `change` with the states of the charge's buckets, and keeps what it makes of them. The
    /// clock is read under the locks, so no earlier change has seen a later time.
    pub(super) fn change<R>(
        &self,
        charge: &Charge<'_>,
        clock: impl FnOnce() -> u64,
        change: impl FnOnce(&mut [BucketState]) -> R,
    ) -> Changed<R> {
        let keys: ChargeKeys = self.keys_of(charge);
        let mut locked = self.write(charge, &keys);
        let now = clock();
        let mut shared = None;
        let (mut places, mut states) = self.open(&mut locked, charge, &keys, now, &mut shared);
        if self.make_room_for(&mut locked, &keys, &places, now, shared.is_some()) {
            // A sweep may have dropped buckets of the charge, since they are full. So they are
            // looked up again.
            let reserved = places.iter().filter(|place| **place == Place::Reserved).count();
            self.cap.release(reserved);
            (places, states) = self.open(&mut locked, charge, &keys, now, &mut shared);
        }
        let before = states.clone();
        let result = change(&mut states);

        let mut is_full = false;
        for (index, (entry, key)) in charge.entries().iter().zip(&keys).enumerate() {
            let (key, old, mut new) = (*key, before[index], states[index]);
            let buckets = locked.buckets_mut(self.index(key));
            let overdrawn = new.overdraft != old.overdraft;
            if overdrawn && !self.overdraw(buckets, key, new.overdraft, now) {
                is_full = true;
                new.debt = new.debt.min(entry.rate().refill());
            }
            match places[index] {
                Place::Own if new.debt != old.debt => {
                    if let Some(tat) = buckets.find(key) {
                        tat.set(now + new.debt);
                    }
                }
                Place::Own => {}
                Place::Reserved if new.debt > 0 => buckets.insert(key, now + new.debt),
                Place::Reserved => self.cap.release(1),
                Place::Shared => {
                    if let Some(shared) = shared.as_mut().filter(|_| new.debt > old.debt) {
                        shared.owe(entry, new.debt, now);
                    }
                }
            }
        }
        if states != before {
            locked.alter();
        }
        Changed { result, now, shared: shared.is_some(), is_full }
    }

    /// Makes room in the shards for the buckets that have a reserved place. Returns whether buckets
    /// may have been dropped for that. With `only_grow` none is dropped: a sweep could give a
    /// bucket of its own to a caller that shares one, which a peek before it did not predict.
    fn make_room_for(
        &self,
        locked: &mut Writable<'_>,
        keys: &ChargeKeys,
        places: &[Place],
        now: u64,
        only_grow: bool,
    ) -> bool {
        let mut is_swept = false;
        for part in locked.parts() {
            let is_new = |(key, place): &(&BucketKey, &Place)| {
                **place == Place::Reserved && self.index(**key) == part.index()
            };
            let new = keys.iter().zip(places).filter(is_new).count();
            if part.buckets.has_room(new) {
                continue;
            }
            if only_grow {
                part.buckets.grow(new);
            } else {
                self.make_room(part.shard, &mut part.buckets, new, now);
                is_swept = true;
            }
        }
        is_swept
    }

    /// Adds a bucket that is full in `debt` nanoseconds from now on. Returns the present time.
    /// `None` if the bucket is in the table or blocked, or if there is no room for it.
    pub(super) fn insert(
        &self,
        key: BucketKey,
        debt: u64,
        clock: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let shard = self.shard(key);
        let mut buckets = shard.write();
        let now = clock();
        if buckets.find(key).is_some() || buckets.exception(key).is_some() || !self.cap.reserve() {
            return None;
        }
        self.make_room(shard, &mut buckets, 1, now);
        buckets.insert(key, now + debt);
        shard.alter(&buckets);
        Some(now)
    }

    /// Calls `look` with the states of the charge's buckets, or of those that would be shared.
    pub(super) fn look<R>(
        &self,
        charge: &Charge<'_>,
        clock: impl FnOnce() -> u64,
        look: impl FnOnce(&mut [BucketState]) -> R,
    ) -> R {
        let keys: ChargeKeys = self.keys_of(charge);
        let locked = self.read(charge, &keys);
        let now = clock();
        let mut new = 0;
        let state = |(entry, key): (&Entry, &BucketKey)| {
            let (key, buckets) = (*key, locked.buckets(self.index(*key)));
            let mut state = buckets.state(key, now);
            if buckets.find(key).is_none() {
                if self.cap.has_room(new) || entry.scope() == Scope::Everyone {
                    new += 1;
                } else {
                    state.debt = self.cap.shared().until_full(entry, now);
                    state.shared = true;
                }
            }
            state
        };
        let mut states: States = charge.entries().iter().zip(&keys).map(state).collect();
        look(&mut states)
    }

    fn keys_of(&self, charge: &Charge<'_>) -> ChargeKeys {
        charge.buckets().map(|bucket| self.keys.of(&bucket)).collect()
    }

    /// Fills a bucket up, and ends its block and its overdraft.
    pub(super) fn reset(&self, key: BucketKey) {
        let shard = self.shard(key);
        let mut buckets = shard.write();
        self.cap.release(usize::from(buckets.remove(key)));
        self.release_exceptions(usize::from(buckets.forget(key, |_| true)));
        shard.alter(&buckets);
    }

    /// Blocks a bucket for `period` nanoseconds, or lifts its block if that is 0, unless `current`
    /// returns false. `current` is called while the bucket can't change.
    ///
    /// # Errors
    /// If there is no room for the block.
    pub(super) fn block(
        &self,
        key: BucketKey,
        period: u64,
        clock: impl FnOnce() -> u64,
        current: impl FnOnce() -> bool,
    ) -> Result<Blocking, Full> {
        let shard = self.shard(key);
        let mut buckets = shard.write();
        let now = clock();
        if !current() {
            return Ok(Blocking::Unchanged);
        }
        let was_blocked = buckets.exception(key).is_some_and(|it| it.blocked(now) > 0);
        if period == 0 {
            let lifted = buckets.forget(key, |exception| {
                exception.block(now, 0);
                exception.is_over(now)
            });
            self.release_exceptions(usize::from(lifted));
        } else {
            let room = || self.reserve_exception();
            buckets.except(key, room, |exception| exception.block(now, period)).ok_or(Full)?;
        }
        shard.alter(&buckets);
        Ok(if period > 0 && !was_blocked { Blocking::New } else { Blocking::Unchanged })
    }

    /// Whether the bucket certainly has no block.
    pub(super) fn has_no_block(&self, key: BucketKey) -> bool {
        self.exceptions() == 0 || self.shard(key).read().exception(key).is_none()
    }

    /// The places and the states of the charge's buckets. Reserves a place for each that is not in
    /// the table, as long as there is room.
    fn open<'a>(
        &'a self,
        locked: &mut Writable<'_>,
        charge: &Charge<'_>,
        keys: &ChargeKeys,
        now: u64,
        shared: &mut Option<MutexGuard<'a, SharedBuckets>>,
    ) -> (SmallVec<[Place; 4]>, States) {
        let open = |(entry, key): (&Entry, &BucketKey)| {
            let (key, buckets) = (*key, locked.buckets_mut(self.index(*key)));
            if buckets.exception(key).is_some_and(|exception| exception.is_prolonged(now)) {
                let again = |exception: &mut Exception| {
                    exception.block(now, exception.blocked(now));
                };
                let _ = buckets.except(key, || false, again);
            }
            let mut state = buckets.state(key, now);
            let place = if buckets.find(key).is_some() {
                Place::Own
            } else if self.cap.reserve() {
                Place::Reserved
            } else if entry.scope() == Scope::Everyone {
                // There are few such buckets. If one was shared for a while, what was spent would
                // be forgotten when it gets a place.
                self.cap.reserve_beyond();
                Place::Reserved
            } else {
                let shared = shared.get_or_insert_with(|| self.cap.shared());
                shared.correct(entry, now);
                state.debt = shared.until_full(entry, now);
                state.shared = true;
                Place::Shared
            };
            (place, state)
        };
        charge.entries().iter().zip(keys).map(open).unzip()
    }

    /// Sets what is left of a bucket's overdraft. Returns whether there was room for it.
    fn overdraw(&self, buckets: &mut Buckets, key: BucketKey, overdraft: u64, now: u64) -> bool {
        let kept = buckets.except(
            key,
            || overdraft > 0 && self.reserve_exception(),
            |exception| exception.overdraw(now, overdraft),
        );
        let is_over = buckets.forget(key, |exception| exception.is_over(now));
        self.release_exceptions(usize::from(is_over));
        kept.is_some() || overdraft == 0
    }
}

/// There is no room.
pub(super) struct Full;

/// What has come of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocking {
    /// The bucket is newly blocked.
    New,
    /// The bucket is blocked as before, or is not blocked.
    Unchanged,
}

impl Shard {
    /// The time at which the bucket is full and the shard's version, to be remembered by the thread
    /// that has refused a request. `None` if requests are not decided by that time alone.
    pub(super) fn to_remember(&self, key: BucketKey) -> Option<(u64, u64)> {
        let mut buckets = self.write();
        if buckets.exception(key).is_some() {
            return None;
        }
        let tat = buckets.find(key)?.get();
        buckets.set_remembered();
        Some((tat, self.version()))
    }
}
