//! The buckets, in shards.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::gcra::FullAt;
use crate::values::{Endpoint, Id, Kind, Principal, Rate};

/// A hash table cut into shards, each behind a lock of its own. A request locks one shard for the
/// time of a lookup, and a sweep locks one at a time.
pub(super) struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    counters: Counters,
}

/// On a cache line of their own: they are written, while the fields beside them are read for every
/// request.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    /// The number of the principals' own buckets in all shards.
    owned: AtomicUsize,
    /// The shard that is swept next, modulo the number of shards.
    hand: AtomicUsize,
    /// How many times a shard was swept.
    sweeps: AtomicU64,
    /// How many of the principals' own buckets the sweeps have dropped.
    dropped: AtomicU64,
}

/// On a cache line of its own, so that threads in two shards do not wait for the same line.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Slot>>);

/// A bucket: 48 bytes, and one more in the hash table.
struct Slot {
    full_at: FullAt,
    name: Name,
}

/// An owned [`Key`]. It is an enum of its own because it then has room for the class where an
/// [`Id`] would have padding.
pub(super) enum Name {
    Short {
        class: u16,
        length: u8,
        text: [u8; Id::INLINE],
    },
    /// Of a long id, or of a principal whose kind is neither an organization nor a user.
    Long {
        class: u32,
        text: Arc<[u8]>,
    },
}

/// The key by which a bucket is found.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    /// The endpoint's number, with the bit [`ORGANIZATION`] or [`SHARED`] for the kind of bucket.
    /// Above them, the number of the principal's kind if both bits are set.
    class: u32,
    id: &'a Id,
}

/// The bit of an organization's bucket.
const ORGANIZATION: u16 = 1 << 14;
/// The bit of a bucket that is shared by the callers for whose own buckets there is no room.
const SHARED: u16 = 1 << 15;
/// Both bits: of neither an organization nor a user. Above them is the number of the kind.
const OTHER: u16 = ORGANIZATION | SHARED;
const _: () = assert!(Endpoint::MAX <= ORGANIZATION as usize);

impl<'a> Key<'a> {
    #[inline]
    pub(super) fn of(endpoint: Endpoint, principal: &'a Principal) -> Self {
        let (number, kind, id) = (endpoint.number(), principal.kind(), principal.id());
        if kind == Kind::ORGANIZATION {
            Self { class: (number | ORGANIZATION).into(), id }
        } else if kind == Kind::USER {
            Self { class: number.into(), id }
        } else {
            Self { class: u32::from(number | OTHER) | u32::from(kind.number()) << 16, id }
        }
    }

    pub(super) fn class(self) -> u32 {
        self.class
    }

    pub(super) fn id(self) -> &'a [u8] {
        self.id.as_bytes()
    }

    /// The key of the bucket that callers with the same quota share; `id` stands for the quota.
    /// Two quotas can't share a bucket, since a time that is drained for one may be full for the
    /// other.
    fn shared(self, id: &'a Id) -> Self {
        Self { class: self.class & u32::from(ORGANIZATION - 1) | u32::from(SHARED), id }
    }
}

/// The place of a key in the table.
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

/// The kind of bucket that a new caller was given.
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
        // Not the lowest or highest bits: a shard's hash table uses them to place its slots.
        let shard = (hash >> 32) as usize & (self.shards.len() - 1);
        Place { hash, shard: &self.shards[shard] }
    }

    /// Calls `ask` with the bucket of `key`, if there is one.
    #[inline]
    pub(super) fn ask<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> Option<R> {
        place.shard.read().find(place.hash, |slot| slot.name.is(key)).map(|slot| ask(&slot.full_at))
    }

    /// Calls `ask` with the bucket of `key`, which is made if there is none. If there are `most`
    /// buckets already, calls it with the bucket that callers of that quota share.
    pub(super) fn ask_new<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        rate: Rate,
        most: usize,
        clock: impl FnOnce() -> u64,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> (R, Given) {
        let mut slots = place.shard.write();
        if let Some(slot) = slots.find(place.hash, |slot| slot.name.is(key)) {
            return (ask(&slot.full_at), Given::Own);
        }
        // Done before the bucket is counted, since the clock may panic.
        self.make_room(&mut slots, clock);
        let room = |owned| (owned < most).then_some(owned + 1);
        if self.counters.owned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok() {
            return (ask(self.insert(&mut slots, place.hash, key)), Given::Own);
        }
        let everybody = everybody(rate);
        let key = key.shared(&everybody);
        let hash = self.hash(key.class, key.id());
        let answer = match slots.find(hash, |slot| slot.name.is(key)) {
            Some(slot) => ask(&slot.full_at),
            None => ask(self.insert(&mut slots, hash, key)),
        };
        (answer, Given::Shared)
    }

    /// Calls `ask` with the bucket that `key` would share, if there is one.
    pub(super) fn ask_shared<R>(
        &self,
        place: Place<'_>,
        key: Key<'_>,
        rate: Rate,
        ask: impl FnOnce(&FullAt) -> R,
    ) -> Option<R> {
        let everybody = everybody(rate);
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

    /// The number of the principals' own buckets.
    pub(super) fn owned(&self) -> usize {
        self.counters.owned.load(Ordering::Relaxed)
    }

    /// How many times a shard was swept, and how many of the principals' own buckets were dropped.
    pub(super) fn swept(&self) -> (u64, u64) {
        (
            self.counters.sweeps.load(Ordering::Relaxed),
            self.counters.dropped.load(Ordering::Relaxed),
        )
    }

    /// Drops the full buckets of the next shard, and frees the memory that a spike has left in it.
    pub(super) fn sweep_next(&self, now: u64) {
        let shard = &self.shards
            [self.counters.hand.fetch_add(1, Ordering::Relaxed) & (self.shards.len() - 1)];
        // A shard that is in use is left for its next turn, so that no request waits.
        let Some(mut slots) = shard.try_write() else { return };
        self.sweep(&mut slots, now);
        let room = with_room(slots.len());
        slots.shrink_to(room, |slot| self.hash_of(slot));
    }

    /// Drops all full buckets, and frees all memory that is not needed.
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
            dropped += usize::from(!owes && !slot.name.is_shared());
            owes
        });
        self.counters.owned.fetch_sub(dropped, Ordering::Relaxed);
        self.counters.sweeps.fetch_add(1, Ordering::Relaxed);
        self.counters.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }

    /// Makes room for one more bucket, if there is none.
    fn make_room(&self, slots: &mut HashTable<Slot>, clock: impl FnOnce() -> u64) {
        if slots.len() < slots.capacity() {
            return;
        }
        self.sweep(slots, clock());
        let room = with_room(slots.len() + 1);
        if slots.num_buckets() < room * 8 / 7 {
            slots.reserve(room - slots.len(), |slot| self.hash_of(slot));
        } else {
            // The table is full of slots whose buckets were dropped, and `reserve` would double it
            // all the same.
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
    fn hash(&self, class: u32, id: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(id);
        hasher.write_u32(class);
        hasher.finish()
    }
}

/// The capacity of a table for that many buckets. Hashbrown rounds it up, so the table has at most
/// 2.6 slots for each bucket, which take 126 bytes.
fn with_room(buckets: usize) -> usize {
    buckets + buckets.div_ceil(8)
}

/// The id of the bucket that callers of that quota share.
fn everybody(rate: Rate) -> Id {
    Id::new(format_args!("{}:{}", rate.interval(), rate.burst())).expect("it is not empty")
}

impl Name {
    pub(super) fn of(Key { class, id }: Key<'_>) -> Self {
        if let Some(text) = id.shared() {
            return Self::Long { class, text: Arc::clone(text) };
        }
        let id = id.as_bytes();
        let Ok(class) = u16::try_from(class) else {
            return Self::Long { class, text: id.into() };
        };
        let mut text = [0; Id::INLINE];
        text[..id.len()].copy_from_slice(id);
        Self::Short {
            class,
            length: id.len().try_into().expect("an inline id is shorter than 256 bytes"),
            text,
        }
    }

    fn class(&self) -> u32 {
        match self {
            Self::Short { class, .. } => u32::from(*class),
            Self::Long { class, .. } => *class,
        }
    }

    fn text(&self) -> &[u8] {
        match self {
            Self::Short { length, text, .. } => &text[..usize::from(*length)],
            Self::Long { text, .. } => text,
        }
    }

    fn is_shared(&self) -> bool {
        self.class() & u32::from(OTHER) == u32::from(SHARED)
    }

    #[inline]
    pub(super) fn is(&self, key: Key<'_>) -> bool {
        match self {
            Self::Short { class, length, text } => {
                u32::from(*class) == key.class && text[..usize::from(*length)] == *key.id()
            }
            Self::Long { class, text } => *class == key.class && **text == *key.id(),
        }
    }
}

/// Ignores poisoning. A panic leaves the table valid: no change of it takes two steps that belong
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
