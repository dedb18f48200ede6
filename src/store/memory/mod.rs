//! A store that counts in this process.

mod cap;
mod cell;
mod charging;
mod exceptions;
mod key;
mod locked;
#[cfg(all(test, bolna_loom))]
mod loom_tests;
mod refusals;
mod shard;
mod snapshot;
mod sync;
mod table;
mod transaction;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Answer, Capabilities, Charge, Command, Immediate, Reply, Store, StoreError, StoreListener,
    StoreReport, nanos,
};
use crate::values::clock::{Clock, MonotonicClock};

use cap::Cap;
use table::{SHARD, Table};
use transaction::Full;

pub use snapshot::{Snapshot, SnapshotError};

/// The number of shards, of 192 bytes each. More shards would be further apart in the caches. With
/// half as many, a shard of a table of a million buckets takes 47 µs to grow.
const SHARDS: usize = if cfg!(bolna_loom) { 1 } else { 1024 };

/// The number of shards of a store with a small cap. The tests by loom need but one.
const FEWEST: usize = if cfg!(bolna_loom) { 1 } else { 16 };

/// The most buckets of addresses, unless another number is set.
const MOST_ADDRESSES: usize = 65_536;

/// The number of shards of the buckets of addresses.
const ADDRESS_SHARDS: usize = if cfg!(bolna_loom) { 1 } else { 64 };

/// The time, in nanoseconds, in which every shard is swept once.
const ROUND: u64 = 60_000_000_000;

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// How many shards a request sweeps if so many are due, however large they are.
const SWEEPS: u32 = 2;

/// The work after which a request sweeps no further shard: see [`Table::sweep_next`]. It takes some
/// 25 µs, if all buckets are dropped.
const WORK: usize = 4096;

/// The time, in nanoseconds, for which a thread may be held up after it has read the clock. A
/// reading that is older than another thread's by more than this means that the clock has gone
/// back.
const HELD_UP: u64 = 10_000_000_000;

/// A store that counts in this process. It is the default store of a limiter.
///
/// A bucket is one atomic time. So exactly as many concurrent requests are admitted as the quota
/// allows, whatever the number of threads. A charge of several buckets is decided under the lock
/// of the principal's buckets and, if a limit counts everyone, under that of such limits' buckets
/// too.
///
/// # Memory
/// An empty store takes 204 KiB. A bucket takes 25 bytes; with the free room that a hash table
/// needs it is at most 64 bytes, once there are tens of thousands of buckets. The store holds a
/// fingerprint of 128 bits of each id instead of the id, so long ids take no more.
///
/// A bucket is dropped only after it has become full again. Memory that a spike has left is freed
/// too. There is no background task, and no method has to be called for this. The buckets are in at
/// most 1024 shards, and each shard is due to be swept once a minute:
///
/// * A request sweeps shards that are due, after its decision. With up to a million buckets this is
///   at most some 25 µs of work, and with more it grows with their number. One request may wait a
///   millisecond or two longer, when the allocator then returns memory to the system. It leaves the
///   rest to the next requests. So full buckets are dropped within a minute or, with few
///   requests, by the next 512 of them, however far apart these are. After a spike of 200,000
///   callers, a hundred requests suffice.
/// * A [report](crate::Limiter::report) sweeps all shards that are due. So where metrics are read
///   every 15 s, full buckets are dropped within 75 s, also without a request. After a minute
///   without requests and reports, it takes 12 ms to drop a million buckets.
///
/// Without requests and reports, only [`shrink`](Self::shrink) frees memory.
///
/// A [block](Command::Block) takes some 100 bytes, until a sweep after its end. So does an
/// overdraft, which only [`Command::Settle`] can leave.
///
/// So memory grows with the number of buckets that are not full at one time. By Bolna's limits
/// these are the callers of the last minute. If a client can invent more callers than you want to
/// spend memory on, set [`max_buckets`](Self::max_buckets). Network addresses have a
/// [cap of their own](Self::max_addresses).
///
/// # Restarts
/// Buckets end with the process. To keep them, take a [`snapshot`](Self::snapshot) at the end and
/// [`restore`](Self::restore) it in the next process. With a million buckets this takes some 20 and
/// 60 ms, and 24 MB. The snapshot does not contain requests in flight.
pub struct MemoryStore<C = MonotonicClock> {
    table: Table,
    /// The buckets of network addresses, with a cap of their own: a client can have very many.
    addresses: Table,
    clock: C,
    /// The time up to which sweeps have been made, in nanoseconds.
    swept: AtomicU64,
    /// The time from one sweep to the next, in nanoseconds.
    interval: u64,
    /// When all shards were last swept to make room for a block, in nanoseconds; 0 for never.
    swept_all: AtomicU64,
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
        Self::with_cap(clock, usize::MAX)
    }

    /// Sets the cap: the store keeps at most `max_buckets` buckets, blocks and overdrafts. 0 is
    /// treated as 1. By default there is no cap. Call this before the store is used, since it drops
    /// all that the store keeps.
    ///
    /// When the cap is reached, none of them is dropped, and new callers are still limited: those
    /// of one limit and quota share one bucket, until another bucket is full again and makes
    /// room. The same happens to a caller whose own bucket was dropped because it was full or had
    /// been reset. At most 1,024 pairs of a limit and a quota have a shared bucket, in memory that
    /// is allocated ahead; the callers of further quotas share one for each limit. The free
    /// room that a hash table needs comes on top of the cap.
    ///
    /// A limiter reports when the cap is reached and when a tenth of it is free again, as
    /// [`StoreEvent::CapReached`](super::StoreEvent::CapReached) and
    /// [`CapRelieved`](super::StoreEvent::CapRelieved). The requests that a shared bucket has
    /// decided are counted in [`StoreReport::shared`].
    ///
    /// The buckets of limits for everyone are few, and are kept beyond the cap.
    ///
    /// A wait that was named before a caller came to share a bucket may not suffice afterwards.
    ///
    /// A [refund](Command::Refund) or a [reset](Command::Reset) for a caller who shares a bucket
    /// does not change that bucket, since it would benefit all callers who share it. A
    /// [block](Command::Block) affects only the caller who is blocked. At the cap, a block makes
    /// the store sweep all shards, at most once a second, and fails if there is still no room.
    ///
    /// ```
    /// use bolna_rate_limit::store::{MemoryStore, StoreEvent};
    /// use bolna_rate_limit::observe::Event;
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
    ///
    /// let store = MemoryStore::new().max_buckets(100_000);
    /// let limiter = Limiter::with_store(Policy::default(), store)?;
    /// limiter.on_event(|event| {
    ///     if let Event::Store(StoreEvent::CapReached { max_buckets }) = event {
    ///         eprintln!("{max_buckets} buckets are in use: new callers share");
    ///     }
    /// });
    /// let layer = BolnaRateLimitLayer::with_limiter(limiter);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    #[must_use]
    pub fn max_buckets(self, max_buckets: usize) -> Self {
        Self::with_cap(self.clock, max_buckets)
    }

    /// Sets how many buckets of network addresses the store keeps: 65,536 unless set, in 4 MiB. 0
    /// is treated as 1. They do not count towards [`max_buckets`](Self::max_buckets). Call this
    /// before the store is used, since it drops the buckets of addresses.
    ///
    /// Such buckets are those of limits that count each [address](crate::values::Scope::Address).
    /// A client that has very many addresses, such as a large network or one that can choose what a
    /// proxy reports, fills this number at most. Further addresses share one bucket, until another
    /// is full again and makes room. What that bucket decides is counted in
    /// [`StoreReport::shared`].
    #[must_use]
    pub fn max_addresses(self, max_addresses: usize) -> Self {
        let shards = if cfg!(bolna_loom) { 1 } else { (max_addresses / 1024).clamp(64, SHARDS) };
        let mut addresses = Table::new(shards.next_power_of_two(), Cap::for_few(max_addresses));
        addresses.keys = self.addresses.keys.clone();
        let interval = interval(&self.table, &addresses);
        Self { addresses, interval, ..self }
    }

    fn with_cap(clock: C, most: usize) -> Self {
        let shards = (most / 128).clamp(FEWEST, SHARDS).next_power_of_two();
        let table = Table::new(shards, Cap::of(most));
        let addresses = Table::new(ADDRESS_SHARDS, Cap::for_few(MOST_ADDRESSES));
        Self {
            interval: interval(&table, &addresses),
            table,
            addresses,
            swept: AtomicU64::new(nanos(clock.now())),
            clock,
            swept_all: AtomicU64::new(0),
        }
    }

    /// The number of buckets that are tracked: those that are not full, and those that have become
    /// full again but are not dropped yet. Buckets that are shared because of a cap do not count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len() + self.addresses.len()
    }

    /// Whether no bucket is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops every bucket that is full again and frees the memory, one shard at a time.
    ///
    /// It is not necessary to call this, since requests and reports do the same with shards that
    /// are due. Call it to free memory at once, or if there are neither requests nor reports.
    pub fn shrink(&self) {
        self.table.shrink(self.now());
        self.addresses.shrink(self.now());
        self.table.cap.was_swept();
    }

    fn carry_out(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match command {
            Command::Peek(charge) => {
                let peek = |states: &mut [_]| charge.peek(states);
                let table = self.table_of(&charge);
                return Ok(Reply::Decisions(table.look(&charge, || self.now(), peek)));
            }
            Command::Refund(charge) => {
                self.change(&charge, |states| charge.refund(states));
            }
            Command::Settle(charge) => {
                if !self.table_of(&charge).cap.has_room(charge.entries().len()) {
                    self.make_room();
                }
                if self.change(&charge, |states| charge.settle(states)).is_full {
                    return Err(self.full(self.table_of(&charge), "an overdraft"));
                }
            }
            Command::Reset(bucket) => {
                let (table, key) = self.place_of(&bucket);
                table.reset(key);
            }
            Command::Block { bucket, period } => {
                let (table, key) = self.place_of(&bucket);
                let block = || table.block(key, nanos(period), || self.now(), || true);
                block()
                    .or_else(|Full| if self.make_room() { block() } else { Err(Full) })
                    .map_err(|Full| self.full(table, "a block"))?;
            }
        }
        Ok(Reply::Done)
    }

    /// Sweeps all shards, unless that was done within the last second: a program may block many
    /// callers. Returns whether it was done.
    #[cold]
    fn make_room(&self) -> bool {
        let (now, last) = (self.now(), self.swept_all.load(Ordering::Relaxed));
        let due = now.wrapping_sub(last) >= SECOND || last == 0;
        let due = due
            && self
                .swept_all
                .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if due {
            self.table.sweep_all(now);
            self.addresses.sweep_all(now);
            self.table.cap.was_swept();
        }
        due
    }

    #[cold]
    fn full(&self, table: &Table, what: &str) -> StoreError {
        let most = table.cap.most().unwrap_or(usize::MAX);
        let setting = if std::ptr::eq(table, &self.addresses) {
            "max_addresses"
        } else {
            table.cap.was_reached();
            "max_buckets"
        };
        StoreError::of_request(format!(
            "no room for {what}: the store's cap of {most} buckets and blocks is reached; raise \
             `{setting}`"
        ))
        .of_kind("full")
    }

    #[inline]
    fn keep_house(&self, now: u64) {
        // If the clock has gone back, the difference wraps, and a sweep is made too.
        let swept = self.swept.load(Ordering::Relaxed);
        if now.wrapping_sub(swept) >= self.interval {
            self.sweep_shards(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn sweep_shards(&self, now: u64) {
        self.sweep_due(now, SWEEPS, WORK);
    }

    /// Sweeps shards that are due: up to `least` of them whatever they cost, and further ones until
    /// the work reaches `most`.
    fn sweep_due(&self, now: u64, least: u32, most: usize) {
        let (mut sweeps, mut work) = (0, 0);
        while sweeps < least || work < most {
            let Some(number) = self.claim_sweep(now) else { return };
            sweeps += 1;
            work += self.sweep(number, now);
        }
    }

    /// Claims the next sweep, and returns its number. `None` if none is due, or if another thread
    /// claims it.
    fn claim_sweep(&self, now: u64) -> Option<u64> {
        let swept = self.swept.load(Ordering::Relaxed);
        if now.wrapping_sub(swept) < self.interval {
            return None;
        }
        let next = if now > swept {
            // Turns that were missed come later, but no shard gets a second one for that.
            (swept + self.interval).max((now + self.interval).saturating_sub(ROUND))
        } else if swept - now < HELD_UP {
            // The clock has not gone back: the reading is only older than that of another thread.
            return None;
        } else {
            now
        };
        let claimed =
            self.swept.compare_exchange(swept, next, Ordering::Relaxed, Ordering::Relaxed);
        claimed.ok().map(|_| next / self.interval)
    }

    /// Makes the sweep of that number: of the next shard of each table for which it is time.
    /// Returns how much work that was.
    fn sweep(&self, number: u64, now: u64) -> usize {
        let sweeps = sweeps_a_round(&self.table, &self.addresses);
        let is_due = |table: &Table| number % (sweeps / table.shards().len()) as u64 == 0;
        let mut work = 0;
        if is_due(&self.table) {
            work += self.sweep_next(&self.table, now);
        }
        if is_due(&self.addresses) && self.addresses.cap.count() > 0 {
            work += self.sweep_next(&self.addresses, now);
        }
        work.max(SHARD)
    }

    /// Sweeps the next shard of a table. Returns how much work that was.
    fn sweep_next(&self, table: &Table, now: u64) -> usize {
        let work = table.sweep_next(now);
        table.cap.was_swept();
        work
    }

    /// The time of the store's clock, in nanoseconds.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        nanos(self.clock.now())
    }
}

impl<C: Clock> Store for MemoryStore<C> {
    type Check = Immediate;

    #[inline]
    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        Answer::Now(Ok(self.charge(charge)))
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.carry_out(command)
    }

    /// All of them.
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    /// Sweeps the shards that are due, so that memory is freed without requests too.
    fn report(&self) -> StoreReport {
        self.sweep_due(self.now(), 0, usize::MAX);
        let (sweeps, dropped) = self.table.swept();
        StoreReport {
            buckets: self.table.len(),
            addresses: self.addresses.len(),
            blocks: self.table.exceptions() + self.addresses.exceptions(),
            max_buckets: self.table.cap.most(),
            shared: self.table.cap.decided() + self.addresses.cap.decided(),
            sweeps,
            dropped,
            ..StoreReport::default()
        }
    }

    /// Subscribes to the changes of the [cap](Self::max_buckets), if there is one.
    fn subscribe(&self, listener: StoreListener) {
        self.table.cap.subscribe(listener);
    }
}

/// The number of sweeps in a round: enough for the shards of either table.
fn sweeps_a_round(table: &Table, addresses: &Table) -> usize {
    table.shards().len().max(addresses.shards().len())
}

/// The time from one sweep to the next, in nanoseconds.
fn interval(table: &Table, addresses: &Table) -> u64 {
    ROUND / sweeps_a_round(table, addresses) as u64
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for MemoryStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buckets are left out: they are many, and tell nothing without ids.
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
