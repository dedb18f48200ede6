//! A shard: some of the buckets, behind a lock of their own.

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};

use hashbrown::HashTable;

use super::cell::Tat;
use super::exceptions::Exception;
use super::key::BucketKey;
use super::sync::{AtomicBool, AtomicU64, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::values::BucketState;

/// Some of the buckets. A request locks one shard for the time of a look-up, and a sweep locks one
/// at a time. All buckets of a principal are in the same shard.
pub(super) struct Shard {
    /// On a cache line of its own: the threads that refuse a caller from memory read it, while the
    /// lock beside it is written for every other request.
    version: Version,
    buckets: RwLock<Buckets>,
}

#[repr(align(64))]
struct Version(AtomicU64);

/// The buckets of a shard.
pub(super) struct Buckets {
    slots: HashTable<Slot>,
    /// Blocks and overdrafts.
    exceptions: HashTable<Exception>,
    /// Whether a thread may remember a refusal of this shard's buckets.
    remembered: AtomicBool,
}

/// A bucket: 24 bytes, and one more in the hash table.
struct Slot {
    key: BucketKey,
    tat: Tat,
}

impl Shard {
    /// An empty shard. `version` is not 0, and differs from that of any shard of another store.
    pub(super) fn new(version: u64) -> Self {
        Self {
            version: Version(AtomicU64::new(version)),
            buckets: RwLock::new(Buckets {
                slots: HashTable::new(),
                exceptions: HashTable::new(),
                remembered: AtomicBool::new(false),
            }),
        }
    }

    /// Changes when the refusals that threads remember of this shard's buckets become void.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.0.load(Ordering::Acquire)
    }

    /// Makes the refusals that threads remember of this shard's buckets void, if there are any.
    ///
    /// Called with the shard locked, after a bucket was changed. Refusals are added only under the
    /// write lock, so none is missed.
    #[inline]
    pub(super) fn alter(&self, buckets: &Buckets) {
        if buckets.remembered.load(Ordering::Relaxed) {
            self.make_void(buckets);
        }
    }

    #[cold]
    fn make_void(&self, buckets: &Buckets) {
        self.version.0.fetch_add(1, Ordering::Release);
        buckets.remembered.store(false, Ordering::Relaxed);
    }

    // Poisoning is ignored: a panic leaves the tables valid, since no change of them takes two
    // steps that belong together.

    #[inline]
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Buckets> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Buckets> {
        self.buckets.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_write(&self) -> Option<RwLockWriteGuard<'_, Buckets>> {
        match self.buckets.try_write() {
            Ok(buckets) => Some(buckets),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Buckets {
    #[inline]
    pub(super) fn find(&self, key: BucketKey) -> Option<&Tat> {
        self.slots.find(key.hash(), |slot| slot.key == key).map(|slot| &slot.tat)
    }

    /// All buckets, each with the time at which it is full.
    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = (BucketKey, u64)> + '_ {
        self.slots.iter().map(|slot| (slot.key, slot.tat.get()))
    }

    pub(super) fn exceptions(&self) -> impl ExactSizeIterator<Item = &Exception> {
        self.exceptions.iter()
    }

    /// The exception of a bucket, if it has one.
    #[inline]
    pub(super) fn exception(&self, key: BucketKey) -> Option<&Exception> {
        if self.exceptions.is_empty() { None } else { self.find_exception(key) }
    }

    #[cold]
    fn find_exception(&self, key: BucketKey) -> Option<&Exception> {
        self.exceptions.find(key.hash(), |exception| exception.key == key)
    }

    /// What the bucket owes. A bucket that is not in the table is full.
    pub(super) fn state(&self, key: BucketKey, now: u64) -> BucketState {
        let debt = self.find(key).map_or(0, |tat| tat.get().saturating_sub(now));
        let (blocked, overdraft) = self
            .exception(key)
            .map_or((0, 0), |exception| (exception.blocked(now), exception.overdraft(now)));
        BucketState { debt, overdraft, blocked, ..BucketState::default() }
    }

    /// Adds a bucket that is full at `tat`.
    pub(super) fn insert(&mut self, key: BucketKey, tat: u64) {
        let slot = Slot { key, tat: Tat::at(tat) };
        self.slots.insert_unique(key.hash(), slot, |slot| slot.key.hash());
    }

    /// Removes a bucket. Returns whether it was there.
    pub(super) fn remove(&mut self, key: BucketKey) -> bool {
        self.slots
            .find_entry(key.hash(), |slot| slot.key == key)
            .map(hashbrown::hash_table::OccupiedEntry::remove)
            .is_ok()
    }

    /// Changes the exception of a bucket, which is made if there is none and `room` returns true.
    /// `None` if there is none and no room for one.
    pub(super) fn except<R>(
        &mut self,
        key: BucketKey,
        room: impl FnOnce() -> bool,
        change: impl FnOnce(&mut Exception) -> R,
    ) -> Option<R> {
        let found = self.exceptions.find_mut(key.hash(), |exception| exception.key == key);
        match found {
            Some(exception) => Some(change(exception)),
            None => room().then(|| {
                let new = Exception::new(key);
                let hash = |exception: &Exception| exception.key.hash();
                let mut new = self.exceptions.insert_unique(key.hash(), new, hash);
                change(new.get_mut())
            }),
        }
    }

    /// Removes the exception of a bucket if `remove` says so. Returns whether it was removed.
    pub(super) fn forget(
        &mut self,
        key: BucketKey,
        remove: impl FnOnce(&mut Exception) -> bool,
    ) -> bool {
        let found = self.exceptions.find_entry(key.hash(), |exception| exception.key == key);
        let Ok(mut found) = found else { return false };
        let removes = remove(found.get_mut());
        if removes {
            found.remove();
        }
        removes
    }

    /// Notes that a thread remembers a refusal. Only under the write lock.
    pub(super) fn set_remembered(&mut self) {
        self.remembered.store(true, Ordering::Relaxed);
    }

    /// Whether `more` buckets can be added without growing.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.slots.len() + more <= self.slots.capacity()
    }

    /// How many buckets and exceptions the tables have memory for.
    pub(super) fn places(&self) -> usize {
        self.slots.num_buckets() + self.exceptions.num_buckets()
    }

    /// Drops all full buckets and all exceptions that are over. Returns how many.
    pub(super) fn sweep(&mut self, now: u64) -> Swept {
        let before = (self.slots.len(), self.exceptions.len());
        self.slots.retain(|slot| slot.tat.get() > now);
        if before.1 > 0 {
            self.exceptions.retain(|exception| !exception.is_over(now));
            let room = with_room(self.exceptions.len());
            self.exceptions.shrink_to(room, |exception| exception.key.hash());
        }
        Swept { buckets: before.0 - self.slots.len(), exceptions: before.1 - self.exceptions.len() }
    }

    /// Makes room for `more` buckets.
    pub(super) fn grow(&mut self, more: usize) {
        let room = with_room(self.slots.len() + more);
        if self.slots.num_buckets() < room * 8 / 7 {
            self.slots.reserve(room - self.slots.len(), |slot| slot.key.hash());
            return;
        }
        // The table is full of slots whose buckets were dropped, and `reserve` would double it all
        // the same.
        let mut rebuilt = HashTable::with_capacity(room);
        for slot in self.slots.drain() {
            rebuilt.insert_unique(slot.key.hash(), slot, |slot| slot.key.hash());
        }
        self.slots = rebuilt;
    }

    /// Frees the memory that a spike has left.
    pub(super) fn shrink(&mut self) {
        self.slots.shrink_to(with_room(self.slots.len()), |slot| slot.key.hash());
    }

    /// Frees all memory that is not needed.
    pub(super) fn shrink_to_fit(&mut self) {
        self.slots.shrink_to_fit(|slot| slot.key.hash());
        self.exceptions.shrink_to_fit(|exception| exception.key.hash());
    }
}

/// What a sweep has dropped.
#[derive(Clone, Copy)]
pub(super) struct Swept {
    pub(super) buckets: usize,
    pub(super) exceptions: usize,
}

/// The capacity of a table for that many buckets. Hashbrown rounds it up, so the table has at most
/// 2.6 slots for each bucket, which take 64 bytes.
fn with_room(buckets: usize) -> usize {
    buckets + buckets.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::Slot;

    #[test]
    fn a_bucket_takes_24_bytes() {
        assert_eq!(size_of::<Slot>(), 24);
    }
}
