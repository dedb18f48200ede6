//! The buckets, in shards.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::gcra::FullAt;
use crate::endpoint::Endpoint;
use crate::principal::{Id, Principal};
use crate::quota::Quota;

/// A hash table cut into shards, each behind a lock of its own: a request locks one for the time of
/// a lookup, and housekeeping does one at a time.
pub(super) struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    counters: Counters,
}

/// On a cache line of their own, since they are written, and what is beside them is read for every
/// request.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    /// The principals' own buckets in all shards.
    owned: AtomicUsize,
    /// The shard whose turn it is to be swept.
    hand: AtomicUsize,
    /// How often a shard was swept.
    sweeps: AtomicU64,
    /// The principals' own buckets that were dropped thereby.
    dropped: AtomicU64,
}

/// On a cache line of its own, so that two shards are never in each other's way.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Slot>>);

/// 48 bytes, and one more in the table.
struct Slot {
    full_at: FullAt,
    name: Name,
}

/// A [`Key`] to keep. As an enum of its own it has room for the class in what an [`Id`] has to
/// leave empty.
pub(super) enum Name {
    Short { class: u16, length: u8, text: [u8; Id::INLINE] },
    Long { class: u16, text: Arc<[u8]> },
}

/// What a bucket is found by.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    /// The endpoint's number, and what kind of bucket it is.
    class: u16,
    id: &'a Id,
}

const ORGANIZATION: u16 = 1 << 14;
/// The bucket of all those for whose own there is no room.
const SHARED: u16 = 1 << 15;
const _: () = assert!(Endpoint::MOST <= ORGANIZATION as usize);

impl<'a> Key<'a> {
    #[inline]
    pub(super) fn of(endpoint: Endpoint, principal: &'a Principal) -> Self {
        match principal {
            Principal::Organization(id) => Self { class: endpoint.number() | ORGANIZATION, id },
            Principal::User(id) => Self { class: endpoint.number(), id },
        }
    }

    pub(super) fn class(self) -> u16 {
        self.class
    }

    pub(super) fn id(self) -> &'a [u8] {
        self.id.as_bytes()
    }

    /// The bucket that callers share who are measured by that quota. One that two quotas shared
    /// would be drained and filled by the one as the other goes.
    fn shared(self, id: &'a Id) -> Self {
        Self { class: self.class & !ORGANIZATION | SHARED, id }
    }
}

/// Where in the table a key belongs.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    hash: u64,
    shard: &'a Shard,
}

impl Place<'_> {
    pub(super) fn hash(self) -> u64 {
        self.hash
    }
}

/// Whose bucket a new caller has been given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Own,
    Shared,
}

impl Table {
    /// `shards` is a power of two.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher: RandomState::default(),
            counters: Counters::default(),
        }
    }

    #[inline]
    pub(super) fn place(&self, key: Key<'_>) -> Place<'_> {
        let hash = self.hash(key.class, key.id());
        // Not the lowest bits nor the highest, by which a shard sorts its slots.
        let shard = (hash >> 32) as usize & (self.shards.len() - 1);
        Place { hash, shard: &self.shards[shard] }
    }

    /// Asks the bucket of `key`, if there is one.
    #[inline]
    pub(super) fn ask<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> Option<R> {
        place.shard.read().find(place.hash, |slot| slot.name.is(key)).map(|slot| ask(&slot.full_at))
    }

    /// Asks the bucket of `key`, which is made if there is none, or when there are `most` already
    /// the one that callers of that quota share.
    pub(super) fn ask_new<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        quota: &Quota,
        most: usize,
        clock: impl FnOnce() -> u64,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> (R, Given) {
        let mut slots = place.shard.write();
        if let Some(slot) = slots.find(place.hash, |slot| slot.name.is(key)) {
            return (ask(&slot.full_at), Given::Own);
        }
        // Before the bucket is counted: the clock may be one that panics.
        self.make_room(&mut slots, clock);
        let room = |owned| (owned < most).then_some(owned + 1);
        if self.counters.owned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok() {
            return (ask(self.insert(&mut slots, place.hash, key)), Given::Own);
        }
        let everybody = everybody(quota);
        let key = key.shared(&everybody);
        let hash = self.hash(key.class, key.id());
        let answer = match slots.find(hash, |slot| slot.name.is(key)) {
            Some(slot) => ask(&slot.full_at),
            None => ask(self.insert(&mut slots, hash, key)),
        };
        (answer, Given::Shared)
    }

    /// Asks the bucket that `key` would share if it had to.
    pub(super) fn ask_shared<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        quota: &Quota,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> Option<R> {
        let everybody = everybody(quota);
        let key = key.shared(&everybody);
        self.ask(Place { hash: self.hash(key.class, key.id()), ..place }, key, ask)
    }

    pub(super) fn remove(&self, key: Key<'_>) {
        let place = self.place(key);
        if let Ok(slot) = place.shard.write().find_entry(place.hash, |slot| slot.name.is(key)) {
            slot.remove();
            self.counters.owned.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The buckets that principals have of their own.
    pub(super) fn owned(&self) -> usize {
        self.counters.owned.load(Ordering::Relaxed)
    }

    /// How often a shard was swept, and how many of the principals' own buckets were dropped
    /// thereby.
    pub(super) fn swept(&self) -> (u64, u64) {
        (
            self.counters.sweeps.load(Ordering::Relaxed),
            self.counters.dropped.load(Ordering::Relaxed),
        )
    }

    /// Drops the full buckets of the next shard, and gives back the memory that a spike has left in
    /// it.
    pub(super) fn sweep_next(&self, now: u64) {
        let shard = &self.shards
            [self.counters.hand.fetch_add(1, Ordering::Relaxed) & (self.shards.len() - 1)];
        // One that is in use is left for its next turn: nobody is made to wait.
        let Some(mut slots) = shard.try_write() else { return };
        self.sweep(&mut slots, now);
        let room = with_room(slots.len());
        slots.shrink_to(room, |slot| self.hash_of(slot));
    }

    /// Drops all full buckets, and gives back all memory that is not needed.
    pub(super) fn shrink(&self, now: u64) {
        for shard in &self.shards {
            let mut slots = shard.write();
            self.sweep(&mut slots, now);
            slots.shrink_to_fit(|slot| self.hash_of(slot));
        }
    }

    fn sweep(&self, slots: &mut HashTable<Slot>, now: u64) {
        let mut dropped = 0;
        slots.retain(|slot| {
            let owes = slot.full_at.owes(now);
            dropped += usize::from(!owes && slot.name.class() & SHARED == 0);
            owes
        });
        self.counters.owned.fetch_sub(dropped, Ordering::Relaxed);
        self.counters.sweeps.fetch_add(1, Ordering::Relaxed);
        self.counters.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }

    /// Sees to it that there is room for one more.
    fn make_room(&self, slots: &mut HashTable<Slot>, clock: impl FnOnce() -> u64) {
        if slots.len() < slots.capacity() {
            return;
        }
        self.sweep(slots, clock());
        let room = with_room(slots.len() + 1);
        if slots.num_buckets() < room * 8 / 7 {
            slots.reserve(room - slots.len(), |slot| self.hash_of(slot));
        } else {
            // It is full of what has been dropped, now or before, and `reserve` would double it all
            // the same.
            let mut rebuilt = HashTable::with_capacity(room);
            for slot in slots.drain() {
                rebuilt.insert_unique(self.hash_of(&slot), slot, |slot| self.hash_of(slot));
            }
            *slots = rebuilt;
        }
    }

    fn insert<'a>(&self, slots: &'a mut HashTable<Slot>, hash: u64, key: Key<'_>) -> &'a FullAt {
        let slot = Slot { full_at: FullAt::default(), name: Name::of(key) };
        &slots.insert_unique(hash, slot, |slot| self.hash_of(slot)).into_mut().full_at
    }

    fn hash_of(&self, slot: &Slot) -> u64 {
        self.hash(slot.name.class(), slot.name.text())
    }

    #[inline]
    fn hash(&self, class: u16, id: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(id);
        hasher.write_u16(class);
        hasher.finish()
    }
}

/// For how many slots a table of that many buckets is made: rounded up to what hashbrown makes, it
/// has 2.6 slots for each of them at most, and they take 126 bytes.
fn with_room(buckets: usize) -> usize {
    buckets + buckets.div_ceil(8)
}

/// The id of the bucket that callers of that quota share.
fn everybody(quota: &Quota) -> Id {
    Id::new(format!("{}:{}", quota.interval_nanos(), quota.burst())).expect("it is not empty")
}

impl Name {
    pub(super) fn of(Key { class, id }: Key<'_>) -> Self {
        if let Some(text) = id.shared() {
            return Self::Long { class, text: Arc::clone(text) };
        }
        let id = id.as_bytes();
        let mut text = [0; Id::INLINE];
        text[..id.len()].copy_from_slice(id);
        Self::Short {
            class,
            length: id.len().try_into().expect("an id that is not shared is short"),
            text,
        }
    }

    #[inline]
    fn class(&self) -> u16 {
        match self {
            Self::Short { class, .. } | Self::Long { class, .. } => *class,
        }
    }

    #[inline]
    fn text(&self) -> &[u8] {
        match self {
            Self::Short { length, text, .. } => &text[..usize::from(*length)],
            Self::Long { text, .. } => text,
        }
    }

    #[inline]
    pub(super) fn is(&self, key: Key<'_>) -> bool {
        self.class() == key.class && self.text() == key.id()
    }
}

/// A table is as good after a panic as before: nothing is done to it in two steps that belong
/// together.
impl Shard {
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, HashTable<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Slot>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_write(&self) -> Option<RwLockWriteGuard<'_, HashTable<Slot>>> {
        match self.0.try_write() {
            Ok(slots) => Some(slots),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Slot;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_bucket_takes_48_bytes() {
        assert_eq!(size_of::<Slot>(), 48);
    }
}
