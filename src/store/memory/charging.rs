//! How a charge is decided: the common case under a lock that requests share, all others under one
//! that they do not.

use std::cell::Cell as Noted;

use super::key::BucketKey;
use super::table::Table;
use super::transaction::{Blocking, Changed};
use super::{MemoryStore, refusals};
use crate::store::{Bucket, Charge, Decisions, Entry};
use crate::values::clock::Clock;
use crate::values::{BucketState, Decision, Scope};

impl<C> MemoryStore<C> {
    /// The table of the buckets of limits with that scope.
    #[inline]
    pub(super) fn table(&self, scope: Scope) -> &Table {
        if scope == Scope::Address { &self.addresses } else { &self.table }
    }

    /// The table of the buckets of a charge.
    pub(super) fn table_of(&self, charge: &Charge<'_>) -> &Table {
        self.table(charge.entries()[0].scope())
    }
}

impl<C: Clock> MemoryStore<C> {
    /// Decides a charge, and charges its buckets accordingly.
    #[inline]
    pub(crate) fn charge(&self, charge: Charge<'_>) -> Decisions {
        if let [entry] = charge.entries() {
            let (table, key) = if entry.scope() == Scope::Account {
                (&self.table, BucketKey::of_account(charge.principal(), entry.name()))
            } else {
                self.place_of(&charge.bucket(entry))
            };
            if let Some(decision) = self.charge_one(table, key, entry) {
                return if entry.is_binding() {
                    Decisions::of_one(decision)
                } else {
                    Decisions::of_one_shadow(decision)
                };
            }
        }
        self.charge_other(&charge)
    }

    /// The table and the key of any bucket, whether it is an account's or not.
    #[inline(never)]
    pub(super) fn place_of(&self, bucket: &Bucket<'_>) -> (&Table, BucketKey) {
        let table = self.table(bucket.scope());
        (table, table.keys.of(bucket))
    }

    /// Charges one bucket under the lock that requests share. `None` if that does not suffice: the
    /// bucket is not in the table, has an exception, or has to be corrected.
    #[inline]
    fn charge_one(&self, table: &Table, key: BucketKey, entry: &Entry) -> Option<Decision> {
        let shard = table.shard(key);
        let read = Noted::new(0);
        let clock = || {
            read.set(self.now());
            read.get()
        };
        let refill = entry.rate().refill();
        if let Some(tat) = refusals::recall(key, shard) {
            let debt = tat.saturating_sub(clock());
            if (entry.tolerance() + 1..=refill).contains(&debt) {
                self.keep_house(read.get());
                return Some(entry.decide(false, debt));
            }
        }
        let buckets = shard.read();
        if buckets.exception(key).is_some() {
            return None;
        }
        let outcome = buckets.find(key)?.charge(entry, clock);
        if outcome.charged {
            shard.alter(&buckets);
            drop(buckets);
            self.keep_house(read.get());
            return Some(entry.decide(true, outcome.debt + entry.time()));
        }
        drop(buckets);
        if outcome.debt > refill {
            return None;
        }
        if refusals::seen(key) {
            if let Some((tat, version)) = shard.to_remember(key) {
                refusals::remember(key, version, tat);
            }
        }
        self.keep_house(read.get());
        Some(entry.decide(false, outcome.debt))
    }

    /// Decides a charge for which the shared lock does not suffice.
    #[inline(never)]
    fn charge_other(&self, charge: &Charge<'_>) -> Decisions {
        match charge.entries() {
            [entry] if self.table.keys.are_own() => self.charge_own(&charge.bucket(entry), entry),
            [entry] if entry.is_binding() => self.charge_new(&charge.bucket(entry), entry),
            [_] => None,
            _ => self.charge_known(charge),
        }
        .unwrap_or_else(|| self.charge_all(charge))
    }

    /// Charges a bucket as [`charge_one`](Self::charge_one) does, by the key that it has in a table
    /// whose keys are its own. `None` if that does not suffice.
    #[cold]
    fn charge_own(&self, bucket: &Bucket<'_>, entry: &Entry) -> Option<Decisions> {
        let (table, key) = self.place_of(bucket);
        match self.charge_one(table, key, entry) {
            Some(decision) if entry.is_binding() => Some(Decisions::of_one(decision)),
            Some(decision) => Some(Decisions::of_one_shadow(decision)),
            None if entry.is_binding() => self.charge_new(bucket, entry),
            None => None,
        }
    }

    /// Charges a bucket that is not in the table, and so is full. `None` if it is in the table, or
    /// if there is no room for it.
    fn charge_new(&self, bucket: &Bucket<'_>, entry: &Entry) -> Option<Decisions> {
        let table = self.table(entry.scope());
        let now = table.insert(table.keys.of(bucket), entry.time(), || self.now())?;
        self.keep_house(now);
        Some(Decisions::of_one(entry.decide(true, entry.time())))
    }

    /// Charges several buckets that are in the table and need no correction. `None` if that is not
    /// so.
    fn charge_known(&self, charge: &Charge<'_>) -> Option<Decisions> {
        let (decisions, now) = self.table_of(charge).charge_known(charge, || self.now())?;
        self.keep_house(now);
        Some(decisions)
    }

    #[cold]
    #[inline(never)]
    fn charge_all(&self, charge: &Charge<'_>) -> Decisions {
        let changed = self.change(charge, |states| charge.apply(states));
        if changed.shared {
            let cap = &self.table_of(charge).cap;
            cap.count_shared();
            cap.was_reached();
        }
        changed.result
    }

    /// Changes the buckets of a charge while no other request can.
    pub(super) fn change<R>(
        &self,
        charge: &Charge<'_>,
        change: impl FnOnce(&mut [BucketState]) -> R,
    ) -> Changed<R> {
        let changed = self.table_of(charge).change(charge, || self.now(), change);
        if changed.shared {
            // After the decision, so that a peek before it can foretell it.
            self.sweep_next(self.table_of(charge), changed.now);
        } else {
            self.keep_house(changed.now);
        }
        changed
    }

    /// Raises the debt of a charge's only bucket, which is the time until it is full, to at least
    /// `debt` nanoseconds, or two full refills if that is less. What exceeds one refill is its
    /// overdraft.
    pub(crate) fn owe(&self, charge: &Charge<'_>, debt: u64) {
        let entry = &charge.entries()[0];
        let refill = entry.rate().refill();
        let debt = debt.min(refill.saturating_mul(2));
        if debt > 0 {
            let raise = |states: &mut [BucketState]| {
                for state in states {
                    if state.shared {
                        state.debt = state.debt.max(debt.min(refill));
                    } else {
                        state.debt = state.debt.max(debt);
                        state.overdraft = state.overdraft.max(debt.saturating_sub(refill));
                    }
                }
            };
            if self.change(charge, raise).shared {
                self.table_of(charge).cap.was_reached();
            }
        }
    }

    /// Makes a charge's only bucket full `time` nanoseconds earlier, but not before now.
    pub(crate) fn give_back(&self, charge: &Charge<'_>, time: u64) {
        let rate = charge.entries()[0].rate();
        let give_back = |states: &mut [BucketState]| {
            for state in states {
                state.correct(rate);
                state.give_back(time);
            }
        };
        self.change(charge, give_back);
    }

    /// Charges a charge's only bucket `time` nanoseconds, even if it does not hold them.
    pub(crate) fn settle(&self, charge: &Charge<'_>, time: u64) {
        let rate = charge.entries()[0].rate();
        // More than what a bucket can owe has no effect, and could overflow.
        let time = time.min(rate.refill().saturating_mul(2));
        self.change(charge, |states: &mut [BucketState]| {
            states.iter_mut().for_each(|state| state.settle(rate, time));
        });
    }

    /// Copies a block from another store: blocks the bucket for `blocked_for` nanoseconds, or lifts
    /// its block if that is `None`. Does nothing if `current` returns false; it is called while the
    /// bucket can't change. Returns whether the bucket is newly blocked.
    pub(crate) fn follow(
        &self,
        bucket: &Bucket<'_>,
        blocked_for: Option<u64>,
        current: impl FnOnce() -> bool,
    ) -> bool {
        let (table, key) = self.place_of(bucket);
        if blocked_for.is_none() && table.has_no_block(key) {
            return false;
        }
        let period = blocked_for.unwrap_or(0);
        let blocking = table.block(key, period, || self.now(), current);
        matches!(blocking, Ok(Blocking::New))
    }
}
