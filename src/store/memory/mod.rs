//! Counting in this process.

mod blocks;
mod cap;
mod denials;
mod gcra;
mod table;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{
    Answer, Bucket, Immediate, Store, StoreError, StoreListener, StoreReport, block_nanos,
};
use crate::clock::{Clock, MonotonicClock};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::quota::Quota;

use blocks::Blocks;
use cap::Cap;
use denials::Source;
use gcra::{FullAt, Outcome};
use table::{Given, Key, Place, Table};

pub use cap::CapEvent;

/// 64 bytes each. More would be further apart in the caches; with fewer, a shard of a table of a
/// million buckets would take over 50 us to grow.
const SHARDS: usize = 2048;

/// The time, in nanoseconds, in which every shard has its turn to be swept.
const ROUND: u64 = 60_000_000_000;

/// The most turns that one request takes.
const TURNS: u64 = 2;

/// The time, in nanoseconds, for which a thread may be held up between two steps without being
/// taken for one whose clock has gone back.
const HELD_UP: u64 = 10_000_000_000;

/// 146 years. With a quota's longest refill, which is shorter, it sums to less than 64 bits of
/// nanoseconds.
const LATEST: u64 = 1 << 62;

/// Counts in this process. The store of a limiter that is not told otherwise.
///
/// A bucket is one atomic time, so concurrent requests are admitted exactly as often as the quota
/// allows, whatever the number of threads.
///
/// # Memory
/// The empty store takes 128 KiB. A bucket takes 49 bytes, and with the room that a hash table
/// needs at most about 126 when there are tens of thousands; an id of more than
/// [`Id::INLINE`](crate::Id::INLINE) bytes has an allocation of its own.
///
/// No bucket that owes is ever dropped. One that has become full again is, and so is the memory
/// that a spike has left: now and then a request that has got its answer sweeps one of 2048 shards,
/// or two when they are due. From some twenty requests a second on, all have had their turn within
/// a minute; with fewer it takes longer, and without any nothing is freed but by
/// [`shrink`](Self::shrink). Nothing runs in the background, and nobody has to call anything.
///
/// A [block](Store::block) takes some 80 bytes until it has ended and another one is made, or a
/// request finds it.
///
/// So memory grows with the callers who owe at one time: those of the last minute, by Bolna's
/// limits. When more callers can be made up than memory should be spent on, set
/// [`max_buckets`](Self::max_buckets).
pub struct MemoryStore<C = MonotonicClock> {
    table: Table,
    clock: C,
    cap: Cap,
    /// What threads know it by.
    number: u64,
    /// How often buckets have been filled up by other means than time, or drained by other means
    /// than requests.
    altered: AtomicU64,
    blocks: Blocks,
    /// When a shard was last swept because its time had come.
    swept: AtomicU64,
    /// The time from one turn to the next, in nanoseconds.
    turn: u64,
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
        static STORES: AtomicU64 = AtomicU64::new(1);
        Self {
            table: Table::new(SHARDS),
            clock,
            cap: Cap::none(),
            number: STORES.fetch_add(1, Ordering::Relaxed),
            altered: AtomicU64::new(0),
            blocks: Blocks::default(),
            swept: AtomicU64::new(0),
            turn: ROUND / SHARDS as u64,
        }
    }

    /// Tracks at most that many buckets, at least 1. By default there is no cap. To be called
    /// before the store is used: it starts again with an empty one.
    ///
    /// When as many callers owe, nobody who owes is forgotten, and a new caller is still limited:
    /// he shares one bucket, of his own endpoint and quota, with other new callers, until a
    /// bucket is full again that he can have instead. So does a caller whose own bucket was
    /// full, or has been reset, and has gone to another. There are 16 to 2048 such buckets for
    /// each endpoint and quota, one for some 500 of the cap, so that not all new callers are
    /// refused because of one; they come on top of the cap, as does the room that a hash table
    /// needs. [`on_cap`](Self::on_cap) tells when it comes to that.
    ///
    /// A [grant](Store::grant) to a caller who shares a bucket gives nothing back, as a reset does:
    /// it would be to all who share it. A [block](Store::block) is his alone.
    ///
    /// ```
    /// use bolna_rate_limit::store::{CapEvent, MemoryStore};
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
    ///
    /// let store = MemoryStore::new().max_buckets(100_000).on_cap(|event| match event {
    ///     CapEvent::Reached { max_buckets } => eprintln!("{max_buckets} callers owe at once: new ones share"),
    ///     event => eprintln!("{event:?}"),
    /// });
    /// let layer = BolnaRateLimitLayer::with_limiter(Limiter::with_store(Policy::default(), store));
    /// ```
    #[must_use]
    pub fn max_buckets(self, max_buckets: usize) -> Self {
        let shards = (max_buckets / 512).clamp(16, SHARDS).next_power_of_two();
        Self {
            table: Table::new(shards),
            cap: self.cap.of(max_buckets),
            turn: ROUND / shards as u64,
            blocks: Blocks::default(),
            ..self
        }
    }

    /// Calls `listener` when [`max_buckets`](Self::max_buckets) is reached and when there is room
    /// again. It runs within the request that finds out, so it should do no more than to log or
    /// to count. Several listeners are all told.
    #[must_use]
    pub fn on_cap(self, listener: impl Fn(CapEvent) + Send + Sync + 'static) -> Self {
        self.cap.tell(move |event| listener(*event));
        self
    }

    /// The number of buckets that are tracked: those that are not full, and those that have become
    /// full and were not dropped yet. Buckets that are shared because of a cap are not among
    /// them.
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
    /// Nobody has to call it: requests do the same, little by little. It is for giving memory back
    /// at once, or when there are no requests.
    pub fn shrink(&self) {
        self.table.shrink(self.now());
        self.cap.holds(self.table.owned());
    }

    /// Charges one unit of a bucket that exists, or of a new one.
    #[inline]
    pub(crate) fn charge(&self, bucket: Bucket<'_>) -> Decision {
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        if self.blocks.may_have(place.hash()) {
            if let Some(decision) = self.blocked(bucket, place, key) {
                return decision;
            }
        }
        // Read before the bucket: what the thread remembers of it must not outlive a reset.
        let source = Source { store: self.number, altered: self.altered.load(Ordering::Acquire) };
        let read = Cell::new(0);
        let clock = || {
            read.set(self.now());
            read.get()
        };
        let denied = |full_at| gcra::denied(full_at, &bucket.quota, clock());
        let charge = |full_at: &FullAt| full_at.charge(&bucket.quota, clock);
        let outcome = match denials::recall(source, place.hash(), key).and_then(denied) {
            Some(outcome) => outcome,
            None => match self.table.ask(place, key, charge) {
                Some(outcome) => {
                    if !outcome.allowed {
                        denials::remember(source, place.hash(), key, read.get() + outcome.debt);
                    }
                    outcome
                }
                None => self.ask_new(place, key, &bucket.quota, charge),
            },
        };
        if outcome.healed {
            self.altered.fetch_add(1, Ordering::Release);
        }
        self.keep_house(read.get());
        Decision::from_nanos(bucket.endpoint, bucket.quota, outcome.allowed, outcome.debt)
    }

    /// Sees to it that a bucket owes `debt` nanoseconds at the least, or a full refill if that is
    /// less.
    pub(crate) fn owe(&self, bucket: Bucket<'_>, debt: u64) {
        let (refill, interval) = (bucket.quota.refill_nanos(), bucket.quota.interval_nanos());
        let debt = debt.min(refill);
        if debt == 0 {
            return;
        }
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        let now = self.now();
        let raise = |full_at: &FullAt| full_at.raise(now + debt);
        let raised = self.table.ask(place, key, raise);
        let raised = raised.unwrap_or_else(|| self.ask_new(place, key, &bucket.quota, raise));
        // Threads that have refused the caller remember that he need not wait so long.
        if raised.is_some_and(|full_at| full_at.saturating_sub(now) > refill - interval) {
            self.altered.fetch_add(1, Ordering::Release);
        }
        self.keep_house(now);
    }

    /// Lets the bucket be full by that many nanoseconds earlier, if it owes as much.
    pub(crate) fn advance(&self, bucket: Bucket<'_>, by: u64) {
        if by == 0 {
            return;
        }
        let key = Key::of(bucket.endpoint, bucket.principal);
        self.table.ask(self.table.place(key), key, |full_at| {
            full_at.advance(&bucket.quota, by, || self.now())
        });
        self.altered.fetch_add(1, Ordering::Release);
    }

    /// Blocks the bucket for as long as another store says that it is, or lifts the block if it
    /// says that there is none. But only if that is `current` once nothing else is changed
    /// meanwhile. Says whether the bucket was not blocked before and is now.
    pub(crate) fn follow(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        blocked_for: Option<u64>,
        current: impl FnOnce() -> bool,
    ) -> bool {
        if blocked_for.is_none() && self.blocks.is_empty() {
            return false;
        }
        let key = Key::of(endpoint, principal);
        let hash = self.table.place(key).hash();
        match blocked_for {
            Some(period) => self.blocks.set(hash, key, self.now(), period, current),
            None => {
                if self.blocks.may_have(hash) {
                    self.blocks.lift(hash, key, current);
                }
                false
            }
        }
    }

    /// The refusal of a request for a bucket that is blocked.
    #[cold]
    #[inline(never)]
    fn blocked(&self, bucket: Bucket<'_>, place: Place<'_>, key: Key<'_>) -> Option<Decision> {
        let now = self.now();
        let left = self.blocks.left(place.hash(), key, now)?;
        let (refill, interval) = (bucket.quota.refill_nanos(), bucket.quota.interval_nanos());
        let own = self.look(&bucket.quota, place, key).debt.saturating_sub(refill - interval);
        self.keep_house(now);
        Some(Decision::blocked(bucket.endpoint, bucket.quota, Duration::from_nanos(left.max(own))))
    }

    /// What a request would be told by its bucket, or by the one that it would share.
    fn look(&self, quota: &Quota, place: Place<'_>, key: Key<'_>) -> Outcome {
        let peek = |full_at: &FullAt| full_at.peek(quota, || self.now());
        let shared = || {
            let full = self.table.owned() >= self.cap.most();
            if full { self.table.ask_shared(place, key, quota, peek) } else { None }
        };
        let peeked = self.table.ask(place, key, peek).or_else(shared);
        peeked.unwrap_or_else(|| peek(&FullAt::default()))
    }

    #[cold]
    #[inline(never)]
    fn ask_new<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        quota: &Quota,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> R {
        if self.table.owned() >= self.cap.most() {
            self.sweep(self.now());
        }
        let (answer, given) =
            self.table.ask_new(place, key, quota, self.cap.most(), || self.now(), ask);
        if given == Given::Shared {
            self.cap.reached();
        }
        answer
    }

    #[inline]
    fn keep_house(&self, now: u64) {
        // Wraps when the clock has gone back, and the turn is taken then too.
        let swept = self.swept.load(Ordering::Relaxed);
        if now.wrapping_sub(swept) >= self.turn {
            self.take_turn(swept, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn take_turn(&self, swept: u64, now: u64) {
        // Not a clock that has gone back, but a reading that is older than another thread's.
        if now < swept && swept - now < HELD_UP {
            return;
        }
        // With few requests several turns are due; but no request waits for more than these.
        let due = now.wrapping_sub(swept) / self.turn;
        let next = if due <= TURNS { swept + due * self.turn } else { now };
        if self.swept.compare_exchange(swept, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            (0..due.min(TURNS)).for_each(|_| self.sweep(now));
        }
    }

    fn sweep(&self, now: u64) {
        self.table.sweep_next(now);
        self.cap.holds(self.table.owned());
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

    fn report(&self) -> StoreReport {
        let mut report = StoreReport::default();
        let most = self.cap.most();
        report.buckets = self.len();
        report.max_buckets = (most < usize::MAX).then_some(most);
        (report.sweeps, report.dropped) = self.table.swept();
        report
    }

    /// Tells of the [cap](Self::max_buckets), if there is one.
    fn subscribe(&self, listener: StoreListener) {
        self.cap.subscribe(listener);
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        let blocked = self.blocks.may_have(place.hash()).then(|| self.blocked(bucket, place, key));
        Ok(blocked.flatten().unwrap_or_else(|| {
            let Outcome { allowed, debt, .. } = self.look(&bucket.quota, place, key);
            Decision::from_nanos(bucket.endpoint, bucket.quota, allowed, debt)
        }))
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        let key = Key::of(endpoint, principal);
        self.table.remove(key);
        self.altered.fetch_add(1, Ordering::Release);
        self.blocks.lift(self.table.place(key).hash(), key, || true);
        Ok(())
    }

    async fn grant(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        self.advance(bucket, bucket.quota.interval_nanos().saturating_mul(units.into()));
        Ok(())
    }

    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let key = Key::of(endpoint, principal);
        let hash = self.table.place(key).hash();
        match block_nanos(period) {
            0 => self.blocks.lift(hash, key, || true),
            period => {
                self.blocks.set(hash, key, self.now(), period, || true);
            }
        }
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
