//! The buckets, in shards.

use std::sync::atomic::{AtomicU64 as Counter, Ordering};

use super::cap::Cap;
use super::key::{BucketKey, Keys};
use super::shard::{Buckets, Shard, Swept};
use super::sync::AtomicUsize;

/// The work to sweep an empty shard, in places of a table.
pub(super) const SHARD: usize = 64;

/// A hash table cut into shards, each behind a lock of its own.
pub(super) struct Table {
    shards: Box<[Shard]>,
    pub(super) keys: Keys,
    pub(super) cap: Cap,
    counters: Counters,
}

/// On a cache line of their own: they are written, while the fields beside them are read for every
/// request.
#[repr(align(64))]
struct Counters {
    /// The number of exceptions in all shards.
    exceptions: AtomicUsize,
    /// The shard that is swept next, modulo the number of shards.
    hand: AtomicUsize,
    /// How many times a shard was swept.
    sweeps: Counter,
    /// How many buckets the sweeps have dropped.
    dropped: Counter,
}

impl Table {
    /// `shards` is a power of two.
    pub(super) fn new(shards: usize, cap: Cap) -> Self {
        /// The versions of a store's shards begin with a number that no other store has, and have
        /// room for 2^40 changes.
        static STORES: Counter = Counter::new(1);
        let version = STORES.fetch_add(1, Ordering::Relaxed) << 40;
        Self {
            shards: (0..shards).map(|_| Shard::new(version)).collect(),
            keys: Keys::default(),
            cap,
            counters: Counters {
                exceptions: AtomicUsize::new(0),
                hand: AtomicUsize::new(0),
                sweeps: Counter::new(0),
                dropped: Counter::new(0),
            },
        }
    }

    #[inline]
    pub(super) fn shard(&self, key: BucketKey) -> &Shard {
        &self.shards[self.index(key)]
    }

    /// The index of a bucket's shard.
    #[inline]
    pub(super) fn index(&self, key: BucketKey) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the number of shards fits")]
        let index = key.shard() as usize & (self.shards.len() - 1);
        index
    }

    pub(super) fn shard_at(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The number of the principals' own buckets.
    pub(super) fn len(&self) -> usize {
        self.cap.count().saturating_sub(self.exceptions())
    }

    /// The number of exceptions.
    pub(super) fn exceptions(&self) -> usize {
        self.counters.exceptions.load(Ordering::Relaxed)
    }

    /// How many times a shard was swept, and how many buckets were dropped.
    pub(super) fn swept(&self) -> (u64, u64) {
        (
            self.counters.sweeps.load(Ordering::Relaxed),
            self.counters.dropped.load(Ordering::Relaxed),
        )
    }

    /// Takes the place of one more exception, if there is room.
    pub(super) fn reserve_exception(&self) -> bool {
        let reserved = self.cap.reserve();
        self.counters.exceptions.fetch_add(usize::from(reserved), Ordering::Relaxed);
        reserved
    }

    /// Takes the place of one more exception, whether there is room or not.
    pub(super) fn reserve_exception_beyond(&self) {
        self.cap.reserve_beyond();
        self.counters.exceptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the place of an exception back.
    pub(super) fn release_exceptions(&self, places: usize) {
        self.cap.release(places);
        self.counters.exceptions.fetch_sub(places, Ordering::Relaxed);
    }

    /// Makes room for `more` buckets in a shard, if there is none.
    pub(super) fn make_room(&self, shard: &Shard, buckets: &mut Buckets, more: usize, now: u64) {
        if !buckets.has_room(more) {
            self.sweep(shard, buckets, now);
            buckets.grow(more);
        }
    }

    /// Drops the full buckets of the next shard, and frees the memory that a spike has left in it.
    /// Returns how much work that was: the number of places in the shard's table, and a number for
    /// what a shard takes in itself.
    pub(super) fn sweep_next(&self, now: u64) -> usize {
        let hand = self.counters.hand.fetch_add(1, Ordering::Relaxed);
        // A shard that is in use is left for its next turn, so that no request waits.
        let shard = &self.shards[hand & (self.shards.len() - 1)];
        let Some(mut buckets) = shard.try_write() else { return SHARD };
        let places = buckets.places();
        self.sweep(shard, &mut buckets, now);
        buckets.shrink();
        SHARD + places
    }

    /// Drops all full buckets, and frees all memory that is not needed.
    pub(super) fn shrink(&self, now: u64) {
        for shard in &self.shards {
            let mut buckets = shard.write();
            self.sweep(shard, &mut buckets, now);
            buckets.shrink_to_fit();
        }
    }

    /// Drops all full buckets and all exceptions that are over, one shard at a time.
    pub(super) fn sweep_all(&self, now: u64) {
        for shard in &self.shards {
            self.sweep(shard, &mut shard.write(), now);
        }
    }

    fn sweep(&self, shard: &Shard, buckets: &mut Buckets, now: u64) {
        let Swept { buckets: dropped, exceptions } = buckets.sweep(now);
        if dropped > 0 {
            // If the clock goes back, a time that a thread remembers is another than that of the
            // full bucket that takes the place of the dropped one.
            shard.alter(buckets);
        }
        self.cap.release(dropped);
        self.release_exceptions(exceptions);
        self.counters.sweeps.fetch_add(1, Ordering::Relaxed);
        self.counters.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }
}
