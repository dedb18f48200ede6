//! The cap: the most buckets and blocks that are kept, and the buckets that are shared beyond it.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard};
use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};
use crate::values::{Entry, Rate, Scope};

pub(super) struct Cap {
    most: usize,
    /// How many buckets and exceptions are kept.
    kept: AtomicUsize,
    /// How many checks a shared bucket has decided.
    decided: AtomicU64,
    shared: Mutex<SharedBuckets>,
    /// Whether `CapReached` is the last event. Changes together with the lasting events.
    reached: AtomicBool,
    listeners: Listeners<StoreEvent>,
}

/// The buckets that new callers share when there is no room for their own: one for each limit
/// and quota. Callers of two quotas do not share, since what one of them may spend in a second may
/// take the other a day to get back.
#[derive(Default)]
pub(super) struct SharedBuckets(HashMap<Name, SharedBucket>);

/// The [hash](crate::values::LimitName::hash) of the limit's name, its scope, and the quota unless
/// there are too many.
type Name = (u64, Scope, Option<Rate>);

/// Unlike other buckets, it is never corrected to the quota of a request: if callers of several
/// quotas share it, one whose quota refills fast could fill it up for all.
#[derive(Default)]
struct SharedBucket {
    tat: u64,
    /// The longest refill of the quotas that it was measured by. If the bucket owes more, the clock
    /// has gone back.
    longest: u64,
}

/// A shared bucket, for snapshots. Times are in nanoseconds.
pub(super) struct Shared {
    pub(super) name: u64,
    pub(super) scope: Scope,
    pub(super) rate: Option<Rate>,
    pub(super) debt: u64,
    pub(super) longest: u64,
}

/// The number of the cap among lasting events: a store has only one.
const THIS: u64 = 0;

/// The most pairs of a limit and a quota that have a shared bucket of their own, in 64 KiB that
/// are allocated ahead. The callers of further quotas share one bucket for each limit.
const PAIRS: usize = 1024;

impl Cap {
    /// A cap of `most`, at least 1, for an empty table.
    pub(super) fn of(most: usize) -> Self {
        Self::for_pairs(most, if most < usize::MAX { most.min(PAIRS) } else { 0 })
    }

    /// A cap for a table of buckets of few limits.
    pub(super) fn for_few(most: usize) -> Self {
        Self::for_pairs(most, 1)
    }

    fn for_pairs(most: usize, pairs: usize) -> Self {
        let shared = HashMap::with_capacity(pairs);
        Self {
            most: most.max(1),
            kept: AtomicUsize::new(0),
            decided: AtomicU64::new(0),
            shared: Mutex::new(SharedBuckets(shared)),
            reached: AtomicBool::new(false),
            listeners: Listeners::default(),
        }
    }

    pub(super) fn subscribe(&self, listener: StoreListener) {
        self.listeners.add(move |event| listener.notify(event));
    }

    /// The cap, if there is one.
    pub(super) fn most(&self) -> Option<usize> {
        (self.most < usize::MAX).then_some(self.most)
    }

    /// The number of buckets and exceptions that are kept.
    pub(super) fn count(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// How many checks a shared bucket has decided.
    pub(super) fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// Reserves the place of one more bucket or exception, if there is room.
    pub(super) fn reserve(&self) -> bool {
        let room = |kept| (kept < self.most).then_some(kept + 1);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// Reserves the place of one more bucket, whether there is room or not.
    pub(super) fn reserve_beyond(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives places back.
    pub(super) fn release(&self, places: usize) {
        self.kept.fetch_sub(places, Ordering::Relaxed);
    }

    /// Whether there is room for more than `more` further buckets.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.count().saturating_add(more) < self.most
    }

    pub(super) fn shared(&self) -> MutexGuard<'_, SharedBuckets> {
        // A panic leaves the buckets valid: no change of them takes two steps.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a check that a shared bucket has decided.
    pub(super) fn count_shared(&self) {
        self.decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports that the cap is reached, unless that was the last event. Called when a bucket is
    /// shared and no lock is held.
    #[cold]
    pub(super) fn was_reached(&self) {
        if !self.reached.load(Ordering::Relaxed) {
            self.change(true, StoreEvent::CapReached { max_buckets: self.most });
        }
    }

    /// Reports that a tenth of the cap is free again, if it is and `CapReached` was the last event.
    /// Called after a sweep.
    pub(super) fn was_swept(&self) {
        let relieved = self.count() <= self.most - self.most.div_ceil(10);
        if relieved && self.reached.load(Ordering::Relaxed) {
            self.change(false, StoreEvent::CapRelieved { max_buckets: self.most });
        }
    }

    #[cold]
    fn change(&self, reached: bool, event: StoreEvent) {
        self.listeners.note(|standing| {
            if self.reached.swap(reached, Ordering::Relaxed) == reached {
                return None;
            }
            if reached {
                standing.insert(THIS, event.clone())
            } else {
                standing.remove(&THIS)
            };
            Some(event)
        });
        self.listeners.deliver();
    }
}

impl SharedBuckets {
    /// What the bucket that this entry shares owes.
    pub(super) fn until_full(&self, entry: &Entry, now: u64) -> u64 {
        let shared = self.0.get(&self.name(entry));
        shared.map_or(0, |bucket| bucket.tat.saturating_sub(now).min(bucket.longest))
    }

    /// Corrects the bucket that this entry shares if the clock has gone back, so that it refills.
    pub(super) fn correct(&mut self, entry: &Entry, now: u64) {
        if let Some(bucket) = self.0.get_mut(&self.name(entry)) {
            bucket.tat = bucket.tat.min(now + bucket.longest);
        }
    }

    /// Sets what the bucket owes, after a charge by this entry.
    pub(super) fn owe(&mut self, entry: &Entry, debt: u64, now: u64) {
        // Before others are dropped, or the debt of one bucket would be written to another.
        let name = self.name(entry);
        if self.0.len() >= PAIRS {
            self.0.retain(|other, bucket| bucket.tat > now || *other == name);
        }
        let bucket = self.0.entry(name).or_default();
        bucket.tat = now + debt;
        bucket.longest = bucket.longest.max(entry.rate().refill());
    }

    /// All that owe something.
    pub(super) fn all(&self, now: u64) -> impl Iterator<Item = Shared> + '_ {
        let shared = move |(&(name, scope, rate), bucket): (&Name, &SharedBucket)| {
            let (debt, longest) =
                (bucket.tat.saturating_sub(now).min(bucket.longest), bucket.longest);
            Shared { name, scope, rate, debt, longest }
        };
        self.0.iter().map(shared).filter(|bucket| bucket.debt > 0)
    }

    /// Adds a bucket of a snapshot.
    pub(super) fn add(&mut self, shared: &Shared, now: u64) {
        let bucket = self.0.entry((shared.name, shared.scope, shared.rate)).or_default();
        bucket.tat = bucket.tat.max(now + shared.debt);
        bucket.longest = bucket.longest.max(shared.longest);
    }

    fn name(&self, entry: &Entry) -> Name {
        let own = (entry.name().hash(), entry.scope(), Some(entry.rate()));
        let has_own = self.0.len() < PAIRS || self.0.contains_key(&own);
        if has_own { own } else { (entry.name().hash(), entry.scope(), None) }
    }
}
