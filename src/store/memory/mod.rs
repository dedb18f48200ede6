//! Counting in this process.

mod gcra;
mod table;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Answer, Bucket, Immediate, Store, StoreError};
use crate::clock::{Clock, MonotonicClock};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::quota::Quota;

use gcra::{FullAt, Outcome};
use table::{Key, Place, Table};

/// Many, so that a shard is swept in microseconds when a million buckets are tracked, and threads seldom meet; 64 bytes
/// each.
const SHARDS: usize = 2048;

/// The time, in nanoseconds, in which every shard has its turn to be swept.
const ROUND: u64 = 60_000_000_000;

/// 146 years. With a quota's longest refill, which is shorter, it sums to less than 64 bits of nanoseconds.
const LATEST: u64 = 1 << 62;

/// Counts in this process. The store of a limiter that is not told otherwise.
///
/// A bucket is one atomic time, so concurrent requests are admitted exactly as often as the quota allows, whatever the
/// number of threads. No bucket that owes is ever dropped. One that has become full again is, within about a minute of
/// traffic, and so is the memory that a spike has left: now and then a request that has got its answer sweeps one of
/// 2048 shards. Nothing runs in the background and nobody has to call anything; with no traffic at all, nothing is freed
/// but by [`shrink`](Self::shrink).
pub struct MemoryStore<C = MonotonicClock> {
    table: Table,
    clock: C,
    /// When a shard was last swept because its time had come.
    swept: AtomicU64,
}

impl MemoryStore {
    /// An empty store on the operating system's monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(MonotonicClock::default())
    }
}

impl<C: Clock> MemoryStore<C> {
    /// An empty store on that clock.
    #[must_use]
    pub fn with_clock(clock: C) -> Self {
        Self { table: Table::new(SHARDS), clock, swept: AtomicU64::new(0) }
    }

    /// The number of buckets that are tracked: those that are not full, and those that have become full and were not
    /// dropped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.owned()
    }

    /// Whether no bucket is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops every bucket that is full again and gives the memory back, one shard at a time.
    ///
    /// Nobody has to call it: requests do the same, little by little. It is for giving memory back at once, or when there
    /// are no requests.
    pub fn shrink(&self) {
        self.table.shrink(self.now());
    }

    /// Charges one unit of a bucket that exists, or of a new one.
    #[inline]
    pub(crate) fn charge(&self, bucket: Bucket<'_>) -> Decision {
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        let now = self.now();
        let outcome = self
            .table
            .ask(place, key, |full_at| full_at.charge(&bucket.quota, now, || self.now()))
            .unwrap_or_else(|| self.charge_new(&bucket.quota, place, key));
        // Wraps when the clock has gone back, and the turn is taken then too.
        let swept = self.swept.load(Ordering::Relaxed);
        if now.wrapping_sub(swept) >= ROUND / SHARDS as u64 {
            self.take_turn(swept, now);
        }
        Decision::from_nanos(bucket.endpoint, bucket.quota, outcome.allowed, outcome.debt)
    }

    #[cold]
    #[inline(never)]
    fn charge_new(&self, quota: &Quota, place: Place<'_>, key: Key<'_>) -> Outcome {
        let charge = |full_at: &FullAt, now| full_at.charge(quota, now, || self.now());
        self.table.ask_new(place, key, usize::MAX, || self.now(), charge).0
    }

    #[cold]
    #[inline(never)]
    fn take_turn(&self, swept: u64, now: u64) {
        if self.swept.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.table.sweep_next(now);
        }
    }

    #[inline]
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos()).map_or(LATEST, |now| now.min(LATEST))
    }
}

impl<C: Clock> Store for MemoryStore<C> {
    type Check = Immediate;

    #[inline]
    fn check(&self, bucket: Bucket<'_>) -> Answer<Immediate> {
        Answer::Now(Ok(self.charge(bucket)))
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        let key = Key::of(bucket.endpoint, bucket.principal);
        let now = self.now();
        let peek = |full_at: &FullAt| full_at.peek(&bucket.quota, now);
        let Outcome { allowed, debt } =
            self.table.ask(self.table.place(key), key, peek).unwrap_or_else(|| peek(&FullAt::default()));
        Ok(Decision::from_nanos(bucket.endpoint, bucket.quota, allowed, debt))
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.table.remove(Key::of(endpoint, principal));
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for MemoryStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the buckets: they are many, and ids do not belong in a log.
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
