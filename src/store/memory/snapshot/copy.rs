//! How a snapshot is taken.

use std::time::SystemTime;

use super::format::{LONGEST, Writer, scope_number};
use super::{Snapshot, since_epoch};
use crate::store::memory::MemoryStore;
use crate::store::memory::table::Table;
use crate::values::clock::Clock;

impl<C: Clock> MemoryStore<C> {
    /// What all buckets owe now, with their blocks and overdrafts, for the process that takes the
    /// place of this one. Without it, a restart fills every bucket and lifts every block.
    ///
    /// Take it when no more requests are served, such as after a graceful shutdown. It can also be
    /// taken now and then while requests go on, so that a process that is killed leaves one too.
    /// Then each bucket is in it as it was at some moment during the call. Of the buckets of one
    /// account and its users, a charge is in all or in none. Requests that charge one bucket do not
    /// wait. One that adds a bucket or charges several may wait while its shard, one of 1024, is
    /// copied: some 50 µs with a million buckets, mostly for its thread to wake up again.
    ///
    /// With a store that a limiter owns, it is `limiter.store().snapshot()`. With an
    /// [`AnyStore`](crate::store::AnyStore), make that of an `Arc` of this store and use a clone of
    /// the `Arc`.
    ///
    /// ```no_run
    /// use std::fs;
    /// use bolna_rate_limit::store::{MemoryStore, Snapshot};
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
    ///
    /// // At the start, before anything else: if ids are made before, they have other fingerprints,
    /// // and each request takes some 40 ns more.
    /// let mut store = MemoryStore::new();
    /// if let Ok(bytes) = fs::read("limits.snapshot") {
    ///     store.restore(&Snapshot::from_bytes(bytes)?)?;
    /// }
    /// let limiter = Limiter::with_store(Policy::default(), store)?;
    /// let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    ///
    /// // On SIGTERM, when the last request was answered. The file is a secret: see `Snapshot`.
    /// fs::write("limits.snapshot.new", limiter.store().snapshot().as_bytes())?;
    /// fs::rename("limits.snapshot.new", "limits.snapshot")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The example `restart` does so, with the right permissions.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // The wall clock comes last. If this thread is held up in between, the snapshot seems to
        // be taken later than it was, so that less time seems to pass and more is owed.
        let start = self.now();
        self.copy(start, SystemTime::now())
    }

    /// The [snapshot](Self::snapshot), taken at that wall-clock time. For tests, and for programs
    /// that have a better clock than the system's.
    #[must_use]
    pub fn snapshot_at(&self, now: SystemTime) -> Snapshot {
        self.copy(self.now(), now)
    }

    /// `start` is the time of the store's clock, and `wall` that of the wall clock.
    fn copy(&self, start: u64, wall: SystemTime) -> Snapshot {
        let buckets = self.table.cap.count() + self.addresses.cap.count();
        let key = self.table.keys.fingerprints().numbers();
        let mut writer = Writer::new(since_epoch(wall), key, buckets);
        for table in [&self.table, &self.addresses] {
            table.copy(start, || self.now(), &mut writer);
        }
        Snapshot(writer.finish())
    }
}

impl Table {
    fn copy(&self, start: u64, clock: impl Fn() -> u64, writer: &mut Writer) {
        let (mut slots, mut excepted) = (Vec::new(), Vec::new());
        let (mut count, mut exceptions) = (0, Vec::new());
        for shard in self.shards() {
            let buckets = shard.read();
            // Under the lock, so that no block or overdraft was made at a later time.
            let now = clock();
            // Nothing else is done while the lock is held, since requests may wait for it.
            slots.extend(buckets.slots());
            excepted.extend(
                buckets.exceptions().map(|it| (it.key, it.blocked(now), it.overdraft(now))),
            );
            drop(buckets);
            for (key, tat) in slots.drain(..) {
                let debt = since(start, now, tat.saturating_sub(now));
                if debt > 0 {
                    let [first, second] = key.numbers();
                    writer.words([first, second, debt]);
                    count += 1;
                }
            }
            for (key, blocked, overdraft) in excepted.drain(..) {
                let [first, second] = key.numbers();
                let [blocked, overdraft] = [blocked, overdraft].map(|left| since(start, now, left));
                if blocked.max(overdraft) > 0 {
                    exceptions.push([first, second, blocked, overdraft]);
                }
            }
        }
        writer.count(count);
        exceptions.iter().for_each(|record| writer.words(*record));
        writer.count(exceptions.len());

        let shared = self.cap.shared();
        let now = clock();
        let mut count = 0;
        for bucket in shared.all(now) {
            let (interval, burst) =
                bucket.rate.map_or((0, 0), |rate| (rate.interval(), rate.burst().get()));
            let (scope, debt) = (scope_number(bucket.scope), since(start, now, bucket.debt));
            let longest = bucket.longest.max(debt);
            writer.words([bucket.name, scope, interval, u64::from(burst), debt, longest]);
            count += 1;
        }
        writer.count(count);
    }
}

/// The time left, seen from the start: a snapshot has one time, and this was seen a little later.
fn since(start: u64, now: u64, left: u64) -> u64 {
    if left > 0 { (left + now.saturating_sub(start)).min(LONGEST) } else { 0 }
}
