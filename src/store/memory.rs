//! Counting in this process: governor's GCRA over a dashmap of atomic cells.

use std::cell::Cell;
use std::fmt;
use std::hash::BuildHasher;
use std::mem;
use std::ops::Add;
use std::time::Duration;

use dashmap::{DashMap, SharedValue};
use foldhash::quality::RandomState;
use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, RateLimiter, StateStore};

use super::{Answer, Bucket, Immediate, Store, StoreError};
use crate::clock::{Clock, MonotonicClock};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::quota::Quota;

/// Many, so that a shard is scanned in microseconds and threads seldom meet; 128 bytes each.
const SHARDS: usize = 1024;

/// A bucket that owes more than a full refill by this much was filled by another clock or another quota.
const SLACK: u64 = 1_000_000_000;

/// 146 years. With a quota's longest refill, which is shorter, it sums to less than 64 bits of nanoseconds.
const LATEST: u64 = 1 << 62;

/// Counts in this process. The store of a limiter that is not told otherwise.
///
/// A bucket is one atomic time, so concurrent requests are admitted exactly as often as the quota allows, whatever the
/// number of threads. No bucket that owes is ever dropped. Those that have become full again are, whenever their shard of
/// the table would otherwise have to grow, so the table grows with the callers who owe at one time and not with those who
/// have ever called. Nothing runs in the background: what a spike has left stays until others need the room, or until
/// [`shrink`](Self::shrink) gives it back.
pub struct MemoryStore<C = MonotonicClock> {
    buckets: DashMap<Key, InMemoryState, RandomState>,
    clock: C,
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
        Self { buckets: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS), clock }
    }

    /// The number of buckets that are tracked: those that are not full, and those that have become full and were not
    /// dropped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no bucket is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Drops every bucket that is full again and gives the memory back, one shard at a time.
    ///
    /// Nobody has to call it to bound the memory, which a multiple of the largest number of buckets that owed at one time
    /// does. It is for giving memory back after a spike.
    pub fn shrink(&self) {
        let now = self.now();
        self.buckets.retain(|_, cell| owes(cell, now));
        self.buckets.shrink_to_fit();
    }

    /// Charges one unit of a bucket that exists, or of a new one.
    pub(crate) fn charge(&self, bucket: Bucket<'_>) -> Decision {
        let hash = self.hash(bucket.endpoint, bucket.principal);
        #[expect(clippy::cast_possible_truncation, reason = "a hash: dashmap takes the bits that a usize has")]
        let shard = &self.buckets.shards()[self.buckets.determine_shard(hash as usize)];
        let now = self.now();
        if let Some((_, cell)) = shard.read().get(hash, |(key, _)| key.is_of(bucket)) {
            return self.decide(cell.get(), bucket, now);
        }
        let mut table = shard.write();
        // Read again under the lock: a bucket that another thread has dropped as full at a later time than this one's
        // reading would otherwise come back with a debt that is too small.
        let now = self.now();
        if let Some((_, cell)) = table.get(hash, |(key, _)| key.is_of(bucket)) {
            return self.decide(cell.get(), bucket, now);
        }
        let hash_of = |(key, _): &Entry| self.hash(key.endpoint, &key.principal);
        if table.len() == table.capacity() {
            let owing: Vec<_> = mem::take(&mut *table).into_iter().filter(|(_, cell)| owes(cell.get(), now)).collect();
            // Room for as many again, so that the next scan is as many insertions away.
            table.reserve(owing.len() * 2, hash_of);
            for entry in owing {
                table.insert(hash_of(&entry), entry, hash_of);
            }
        }
        let entry = (Key::of(bucket), SharedValue::new(InMemoryState::default()));
        let (_, cell) = table.insert_entry(hash, entry, hash_of);
        self.decide(cell.get(), bucket, now)
    }

    #[inline]
    fn decide(&self, cell: &InMemoryState, bucket: Bucket<'_>, now: u64) -> Decision {
        let decision = decide(cell, bucket, now);
        if decision.reset().as_nanos() > u128::from(bucket.quota.refill_nanos() + SLACK) {
            self.heal(cell, bucket)
        } else {
            decision
        }
    }

    /// Drains a bucket that owes more than it can, and decides again.
    ///
    /// No bucket owes more than a full refill, unless the clock went back or a smaller quota came into force. Left alone, a
    /// change from 10 an hour to 500 a minute would lock a caller out for hours.
    #[cold]
    fn heal(&self, cell: &InMemoryState, bucket: Bucket<'_>) -> Decision {
        // Read afresh: to a thread that was held up since its reading, everything that was spent meanwhile seems to lie in
        // the future, and must not be forgiven.
        let now = self.now();
        // An error stores nothing: there was nothing to heal, or another thread was faster.
        let _ = cell.measure_and_replace(&NotKeyed::NonKey, |full_at| {
            let debt = full_at.map_or(0, Nanos::as_u64).saturating_sub(now);
            let counted = forgive(debt, bucket.quota.refill_nanos());
            if counted < debt { Ok(((), Nanos::new(now + counted))) } else { Err(()) }
        });
        decide(cell, bucket, now)
    }

    /// The same as the map's own hash of a [`Key`] of the two, which is not made for it.
    fn hash(&self, endpoint: Endpoint, principal: &Principal) -> u64 {
        self.buckets.hasher().hash_one((endpoint, principal))
    }

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
        let now = self.now();
        let full_at = self.buckets.get(&Key::of(bucket)).map_or(0, |cell| full_at(&cell));
        let (refill, interval) = (bucket.quota.refill_nanos(), bucket.quota.interval_nanos());
        let debt = forgive(full_at.saturating_sub(now), refill);
        let decide = if debt + interval <= refill { Decision::allowed } else { Decision::limited };
        Ok(decide(bucket.endpoint, bucket.quota, Duration::from_nanos(debt)))
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.buckets.remove(&Key { endpoint, principal: principal.clone() });
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

type Entry = (Key, SharedValue<InMemoryState>);

#[derive(PartialEq, Eq, Hash)]
struct Key {
    endpoint: Endpoint,
    principal: Principal,
}

impl Key {
    fn of(bucket: Bucket<'_>) -> Self {
        Self { endpoint: bucket.endpoint, principal: bucket.principal.clone() }
    }

    fn is_of(&self, bucket: Bucket<'_>) -> bool {
        self.endpoint == bucket.endpoint && self.principal == *bucket.principal
    }
}

/// Charges one unit of the cell, if it has it.
///
/// A governor limiter has one quota and one table. Its parts are open, though, and making it is a few multiplications:
/// so one is made for the occasion, around the cell, the quota and the time of this very request.
fn decide(cell: &InMemoryState, bucket: Bucket<'_>, now: u64) -> Decision {
    let Bucket { endpoint, quota, .. } = bucket;
    let full_at = Cell::new(0);
    let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Reading>>::new(
        governor_quota(quota),
        Watched { cell, full_at: &full_at },
        Reading(now),
    );
    let allowed = limiter.check().is_ok();
    let debt = full_at.get().saturating_sub(now);
    if allowed {
        Decision::allowed(endpoint, quota, Duration::from_nanos(debt + quota.interval_nanos()))
    } else {
        Decision::limited(endpoint, quota, Duration::from_nanos(debt))
    }
}

fn governor_quota(quota: Quota) -> governor::Quota {
    let burst = quota.burst().try_into().expect("a quota's burst is at least 1");
    governor::Quota::with_period(quota.emission_interval())
        .expect("a quota's interval is at least 1 ns")
        .allow_burst(burst)
}

/// The debt that counts. More than a full refill counts as that, but for what two readings of a clock may differ by.
fn forgive(debt: u64, refill: u64) -> u64 {
    if debt > refill + SLACK { refill } else { debt }
}

fn owes(cell: &InMemoryState, now: u64) -> bool {
    full_at(cell) > now
}

/// When the bucket is full again: GCRA's theoretical arrival time.
fn full_at(cell: &InMemoryState) -> u64 {
    let read: Result<(), u64> = cell.measure_and_replace(&NotKeyed::NonKey, |at| Err(at.map_or(0, Nanos::as_u64)));
    read.err().unwrap_or_default()
}

/// A cell that tells what it held when the decision was taken, since governor's verdicts say less than a response must.
struct Watched<'a> {
    cell: &'a InMemoryState,
    full_at: &'a Cell<u64>,
}

impl StateStore for Watched<'_> {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.cell.measure_and_replace(key, |full_at| {
            self.full_at.set(full_at.map_or(0, Nanos::as_u64));
            f(full_at)
        })
    }
}

/// An instant of the store's clock, and a clock that always shows it.
///
/// A governor limiter measures from its own start. Every reading of one store has to measure from the store's origin,
/// so `duration_since` disregards what it is asked to measure from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reading(u64);

impl Reference for Reading {
    fn duration_since(&self, _start: Self) -> Nanos {
        Nanos::new(self.0)
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.as_u64()))
    }
}

impl Add<Nanos> for Reading {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Self(self.0.saturating_add(duration.as_u64()))
    }
}

impl GovernorClock for Reading {
    type Instant = Self;

    fn now(&self) -> Self {
        *self
    }
}
