//! A store that counts in this process.

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
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{Decision, Endpoint, Principal, Rate};

use blocks::Blocks;
use cap::Cap;
use denials::Source;
use gcra::{CellOutcome, FullAt};
use table::{Given, Key, Place, Table};

pub use cap::CapEvent;

/// The number of shards, of 64 bytes each. More shards would be further apart in the caches. With
/// fewer, a shard of a table of a million buckets would take over 50 µs to grow.
const SHARDS: usize = 2048;

/// The time, in nanoseconds, in which every shard is swept once.
const ROUND: u64 = 60_000_000_000;

/// The most shards that one request sweeps.
const TURNS: u64 = 2;

/// The time, in nanoseconds, for which a thread may be held up after it has read the clock. A
/// reading that is older than another thread's by more than this means that the clock has gone
/// back.
const HELD_UP: u64 = 10_000_000_000;

/// The latest time, in nanoseconds: 146 years. A quota's longest refill is shorter, so their sum
/// fits in 64 bits.
const LATEST: u64 = 1 << 62;

/// A store that counts in this process. It is the default store of a limiter.
///
/// A bucket is one atomic time. So exactly as many concurrent requests are admitted as the quota
/// allows, whatever the number of threads.
///
/// # Memory
/// An empty store takes 128 KiB. A bucket takes 49 bytes; with the free room that a hash table
/// needs it is at most about 126 bytes, once there are tens of thousands of buckets. An id of more
/// than [`Id::INLINE`](crate::values::Id::INLINE) bytes has an allocation of its own, and so has
/// the id of a principal that is neither an organization nor a user.
///
/// A bucket is dropped only after it has become full again. Memory that a spike has left is freed
/// too. There is no background task, and no method has to be called for this: now and then a
/// request sweeps one of the 2048 shards after its decision, or two if more than one are due. From
/// about twenty requests a second on, all shards are swept within a minute. With fewer requests it
/// takes longer. Without requests, only [`shrink`](Self::shrink) frees memory.
///
/// A [block](Store::block) takes about 80 bytes. After its end they are freed when another block is
/// made, or when a request finds the block.
///
/// So memory grows with the number of buckets that are not full at one time. By Bolna's limits
/// these are the callers of the last minute. If a client can invent more callers than you want to
/// spend memory on, set [`max_buckets`](Self::max_buckets).
pub struct MemoryStore<C = MonotonicClock> {
    table: Table,
    clock: C,
    cap: Cap,
    /// The number by which the refusals that threads remember refer to this store.
    number: u64,
    /// How many times a bucket was filled up other than by time, or drained other than by requests.
    altered: AtomicU64,
    blocks: Blocks,
    /// When a shard was last swept because its turn had come, in nanoseconds.
    swept: AtomicU64,
    /// The time from one turn to the next, in nanoseconds.
    turn: u64,
}

impl MemoryStore {
    /// An empty store with the operating system's monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(MonotonicClock::default())
    }
}

impl<C: Clock> MemoryStore<C> {
    /// An empty store with `clock`.
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

    /// Sets the cap: the store tracks at most `max_buckets` buckets. 0 is treated as 1. By default
    /// there is no cap. Call this before the store is used, since it drops all buckets and blocks.
    ///
    /// When as many buckets are in use, none of them is dropped, and new callers are still limited.
    /// A new caller shares a bucket with other new callers of the same endpoint and quota, until
    /// another bucket is full again and makes room. The same happens to a caller whose own bucket
    /// was dropped because it was full or had been reset.
    ///
    /// There are 16 to 2048 shared buckets for each endpoint and quota, one for about 256 to 512
    /// buckets of the cap, so that one caller does not get all new callers refused. They come on
    /// top of the cap, as does the free room that a hash table needs.
    /// [`on_cap`](Self::on_cap) reports when the cap is reached.
    ///
    /// A [refund](Store::refund) or a [reset](Store::reset) for a caller who shares a bucket has no
    /// effect on it, since all who share it would profit. A [block](Store::block) affects only the
    /// caller who is blocked.
    ///
    /// ```
    /// use bolna_rate_limit::store::{CapEvent, MemoryStore};
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
    ///
    /// let store = MemoryStore::new().max_buckets(100_000).on_cap(|event| match event {
    ///     CapEvent::Reached { max_buckets } => {
    ///         eprintln!("{max_buckets} buckets are in use: new callers share");
    ///     }
    ///     event => eprintln!("{event:?}"),
    /// });
    /// let limiter = Limiter::with_store(Policy::default(), store);
    /// let layer = BolnaRateLimitLayer::with_limiter(limiter);
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

    /// Calls `listener` when the [cap](Self::max_buckets) is reached, and when a tenth of it is
    /// free again. It runs in the request that notices the change, so it should only log or count.
    /// There can be several listeners; all of them are called.
    #[must_use]
    pub fn on_cap(self, listener: impl Fn(CapEvent) + Send + Sync + 'static) -> Self {
        self.cap.tell(move |event| listener(*event));
        self
    }

    /// The number of buckets that are tracked: those that are not full, and those that have become
    /// full again but are not dropped yet. Buckets that are shared because of a cap do not count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.owned()
    }

    /// Whether no bucket is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops every bucket that is full again and frees the memory, one shard at a time.
    ///
    /// It is not necessary to call this, since requests do the same, one shard at a time. Call it
    /// to free memory at once, or when there are no requests.
    pub fn shrink(&self) {
        self.table.shrink(self.now());
        self.cap.holds(self.table.owned());
    }

    /// Charges one unit to the bucket, which is made if there is none.
    #[inline]
    pub(crate) fn charge(&self, bucket: Bucket<'_>) -> Decision {
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        if self.blocks.may_have(place.hash()) {
            if let Some(decision) = self.blocked(bucket, place, key) {
                return decision;
            }
        }
        // Read before the bucket, so that a refusal that the thread remembers of it does not
        // outlive a reset.
        let source = Source { store: self.number, altered: self.altered.load(Ordering::Acquire) };
        let read = Cell::new(0);
        let clock = || {
            read.set(self.now());
            read.get()
        };
        let denied = |full_at| gcra::denied(full_at, bucket.rate(), clock());
        let charge = |full_at: &FullAt| full_at.charge(bucket.rate(), clock);
        let outcome = match denials::recall(source, place.hash(), key).and_then(denied) {
            Some(outcome) => outcome,
            None => match self.table.ask(place, key, charge) {
                Some(outcome) => {
                    if !outcome.allowed {
                        denials::remember(source, place.hash(), key, read.get() + outcome.debt);
                    }
                    outcome
                }
                None => self.ask_new(place, key, bucket.rate(), charge),
            },
        };
        if outcome.healed {
            self.altered.fetch_add(1, Ordering::Release);
        }
        self.keep_house(read.get());
        bucket.decide(outcome.allowed, outcome.debt)
    }

    /// Raises the debt of a bucket, which is the time until it is full, to at least `debt`
    /// nanoseconds, or a full refill if that is less.
    pub(crate) fn owe(&self, bucket: Bucket<'_>, debt: u64) {
        let debt = debt.min(bucket.rate().refill());
        if debt == 0 {
            return;
        }
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        let now = self.now();
        let raise = |full_at: &FullAt| full_at.raise(now + debt);
        let raised = self.table.ask(place, key, raise);
        let raised = raised.unwrap_or_else(|| self.ask_new(place, key, bucket.rate(), raise));
        // Threads that have refused the caller remember a shorter wait: they must read the bucket
        // again.
        if raised.is_some_and(|full_at| !bucket.rate().has(full_at.saturating_sub(now))) {
            self.altered.fetch_add(1, Ordering::Release);
        }
        self.keep_house(now);
    }

    /// Makes the bucket full `by` nanoseconds earlier, but not before now.
    pub(crate) fn advance(&self, bucket: Bucket<'_>, by: u64) {
        if by == 0 {
            return;
        }
        let key = Key::of(bucket.endpoint, bucket.principal);
        self.table.ask(self.table.place(key), key, |full_at| {
            full_at.advance(bucket.rate(), by, || self.now());
        });
        self.altered.fetch_add(1, Ordering::Release);
    }

    /// Copies a block from another store: blocks the bucket for `blocked_for` nanoseconds, or lifts
    /// its block if that is `None`. Does nothing if `current` returns false; it is called while no
    /// other block can change. Returns whether the bucket is newly blocked.
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
        let own = bucket.rate().until(self.look(bucket.rate(), place, key).debt, 1);
        self.keep_house(now);
        Some(bucket.blocked(left.max(own)))
    }

    /// What the bucket of a request, or the one that the request would share, decides now. Nothing
    /// is charged.
    fn look(&self, rate: Rate, place: Place<'_>, key: Key<'_>) -> CellOutcome {
        let peek = |full_at: &FullAt| full_at.peek(rate, || self.now());
        let shared = || {
            let full = self.table.owned() >= self.cap.most();
            if full { self.table.ask_shared(place, key, rate, peek) } else { None }
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
        rate: Rate,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> R {
        if self.table.owned() >= self.cap.most() {
            self.sweep(self.now());
        }
        let (answer, given) =
            self.table.ask_new(place, key, rate, self.cap.most(), || self.now(), ask);
        if given == Given::Shared {
            self.cap.reached();
        }
        answer
    }

    #[inline]
    fn keep_house(&self, now: u64) {
        // If the clock has gone back, the difference wraps, and the turn is taken too.
        let swept = self.swept.load(Ordering::Relaxed);
        if now.wrapping_sub(swept) >= self.turn {
            self.take_turn(swept, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn take_turn(&self, swept: u64, now: u64) {
        // The clock has not gone back: the reading is only older than that of another thread.
        if now < swept && swept - now < HELD_UP {
            return;
        }
        // If there are few requests, several turns are due, but one request takes at most `TURNS`.
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

    /// Subscribes to the changes of the [cap](Self::max_buckets), if there is one.
    fn subscribe(&self, listener: StoreListener) {
        self.cap.subscribe(listener);
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        let key = Key::of(bucket.endpoint, bucket.principal);
        let place = self.table.place(key);
        let blocked = self.blocks.may_have(place.hash()).then(|| self.blocked(bucket, place, key));
        Ok(blocked.flatten().unwrap_or_else(|| {
            let CellOutcome { allowed, debt, .. } = self.look(bucket.rate(), place, key);
            bucket.decide(allowed, debt)
        }))
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        let key = Key::of(endpoint, principal);
        self.table.remove(key);
        self.altered.fetch_add(1, Ordering::Release);
        self.blocks.lift(self.table.place(key).hash(), key, || true);
        Ok(())
    }

    async fn refund(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        self.advance(bucket, bucket.rate().time_of(units));
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
        // The buckets are left out: they are many, and ids do not belong in a log.
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
