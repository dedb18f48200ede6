//! How a snapshot is restored.

use std::time::SystemTime;

use super::format::{TableContents, rate_of, scope_of};
use super::{Snapshot, SnapshotError, since_epoch};
use crate::store::memory::MemoryStore;
use crate::store::memory::cap::Shared;
use crate::store::memory::key::{BucketKey, Keys};
use crate::store::memory::table::Table;
use crate::values::FingerprintKey;
use crate::values::clock::Clock;

impl<C: Clock> MemoryStore<C> {
    /// Restores a [snapshot](Self::snapshot): each bucket owes what it owed then, less the time
    /// that has passed since, to the nanosecond and never less. Blocks end when they would have
    /// ended.
    ///
    /// Call this at the start, before the store counts requests. It is best called before anything
    /// else makes an [`Id`](crate::values::Id), such as an account. Then ids are made with the
    /// snapshot's key in the whole process, and requests take no longer than before. Otherwise the
    /// store computes fingerprints of its own, which takes each request some 40 ns.
    ///
    /// * **Time** is measured by the wall clock, since the clocks of two processes have nothing in
    ///   common. If the wall clock is behind the time of the snapshot, no time has passed. If it
    ///   was set forward by mistake, callers get back the units of that time, as if it had passed.
    /// * **The cap** is not applied: if there are more buckets than
    ///   [`max_buckets`](Self::max_buckets) or [`max_addresses`](Self::max_addresses), all are
    ///   restored, and new callers share a bucket until enough of them are full again. Set both
    ///   before you restore, since they drop what the store keeps. Callers that shared a bucket
    ///   under the cap have full ones of their own under a larger cap.
    /// * **An old snapshot** does no harm to callers, since it owes less and less. But a block that
    ///   was lifted since is there again, and so is what a refund or a reset has given back since.
    /// * **Limits** are found by their names. So the policy may have changed, as it may while a
    ///   process runs.
    ///
    /// # Errors
    /// If the store keeps buckets already. Then nothing is changed.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.restore_at(snapshot, SystemTime::now())
    }

    /// [Restores](Self::restore) a snapshot at that wall-clock time. For tests, and for programs
    /// that have a better clock than the system's.
    ///
    /// # Errors
    /// As those of [`restore`](Self::restore).
    pub fn restore_at(
        &mut self,
        snapshot: &Snapshot,
        now: SystemTime,
    ) -> Result<(), SnapshotError> {
        let buckets = self.table.cap.count() + self.addresses.cap.count();
        if buckets > 0 {
            return Err(SnapshotError::InUse { buckets });
        }
        let contents = snapshot.contents();
        let passed = since_epoch(now).saturating_sub(contents.taken);
        let keys = Keys::adopt(FingerprintKey::new(contents.key));
        // After the wall clock. If this thread is held up in between, more is owed.
        let now = self.now();
        for (table, contents) in
            [&mut self.table, &mut self.addresses].into_iter().zip(&contents.tables)
        {
            table.keys = keys.clone();
            table.fill(contents, passed, now);
        }
        Ok(())
    }
}

impl Table {
    fn fill(&self, contents: &TableContents<'_>, passed: u64, now: u64) {
        for [first, second, debt] in contents.slots() {
            let (key, debt) = (BucketKey::new([first, second]), debt.saturating_sub(passed));
            let mut buckets = self.shard(key).write();
            // The same bucket twice makes no sense, but must not count as one that owes less.
            match buckets.find(key) {
                Some(tat) => tat.set(tat.get().max(now + debt)),
                None if debt > 0 => {
                    self.cap.reserve_beyond();
                    if !buckets.has_room(1) {
                        buckets.grow(1);
                    }
                    buckets.insert(key, now + debt);
                }
                None => {}
            }
        }
        for [first, second, blocked, overdraft] in contents.exceptions() {
            let key = BucketKey::new([first, second]);
            let [blocked, overdraft] = [blocked, overdraft].map(|left| left.saturating_sub(passed));
            if blocked.max(overdraft) > 0 {
                let room = || {
                    self.reserve_exception_beyond();
                    true
                };
                self.shard(key).write().except(key, room, |exception| {
                    exception.block(now, blocked.max(exception.blocked(now)));
                    exception.overdraw(now, overdraft.max(exception.overdraft(now)));
                });
            }
        }
        let mut shared = self.cap.shared();
        for [name, scope, interval, burst, debt, longest] in contents.shared() {
            let debt = debt.saturating_sub(passed);
            if let (Some(scope), Some(rate)) = (scope_of(scope), rate_of(interval, burst)) {
                shared.add(&Shared { name, scope, rate, debt, longest }, now);
            }
        }
        drop(shared);
        // A thread may remember refusals by a store that was in use and became empty.
        for shard in self.shards() {
            shard.alter(&shard.read());
        }
    }
}
