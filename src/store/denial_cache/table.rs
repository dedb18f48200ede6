//! The refusals that are remembered, in shards.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::denial::{Asked, Denial};
use super::recent::{self, Source};
use crate::store::{Bucket, Entry};
use crate::values::{Decision, LimitName, Principal, Scope};

const SHARDS: usize = 128;

/// The most refusals in one shard: as many as fit in a hash table of 512 slots.
const MOST: usize = 448;

/// The time, in nanoseconds, between the sweeps of two shards. All shards are swept within a
/// second, after which every refusal is out of date.
const SWEEP_EVERY: u64 = 1_000_000_000 / SHARDS as u64;

/// The longest time, in nanoseconds, by which the calls of two answers that arrive in the wrong
/// order can differ.
const HELD_UP: u64 = 10_000_000_000;

pub(super) struct Denials {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// The number by which the copies in threads refer to this cache.
    number: u64,
    /// The number of refusals in all shards.
    remembered: AtomicUsize,
    /// How many changes by hand have ended.
    changes: AtomicU64,
    /// How many times a refusal was dropped or replaced although it would still have been used.
    /// Threads that have copies must read the table again.
    corrections: AtomicU64,
    /// When a shard was last swept because its turn had come, in nanoseconds.
    swept: AtomicU64,
    /// The shard that is swept next, modulo the number of shards.
    hand: AtomicUsize,
}

/// On a cache line of its own, so that threads in two shards do not wait for the same line.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<Slots>);

#[derive(Default)]
struct Slots {
    table: HashTable<Denial>,
    /// When the shard was last swept because it was full, in nanoseconds.
    swept: u64,
}

impl Denials {
    pub(super) fn len(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The refusal of a request now, if it is certain that the store would refuse.
    #[inline]
    pub(super) fn recall(
        &self,
        principal: &Principal,
        entry: &Entry,
        now: u64,
    ) -> Option<Decision> {
        if self.len() == 0 {
            return None;
        }
        // Read before the table: if a refusal is corrected after it was found there, the copy with
        // this older number is not used.
        let source =
            Source { cache: self.number, corrections: self.corrections.load(Ordering::Acquire) };
        let hash = self.hash(principal, entry.name());
        recent::recall(source, hash, principal, entry, now)
            .or_else(|| self.look_up(source, hash, principal, entry, now))
    }

    #[inline(never)]
    fn look_up(
        &self,
        source: Source,
        hash: u64,
        principal: &Principal,
        entry: &Entry,
        now: u64,
    ) -> Option<Decision> {
        let slots = self.shard(hash).read();
        let denial = slots.table.find(hash, |denial| denial.is_of(principal, entry.name()))?;
        let decision = denial.refuses(entry.limit(), now)?;
        let denial = denial.clone();
        drop(slots);
        recent::remember(source, hash, denial);
        Some(decision)
    }

    /// Remembers the refusal in an answer, or drops the one that the answer shows to be wrong.
    pub(super) fn learn(&self, asked: &Asked, decision: &Decision) {
        if asked.is_answered_by(decision) {
            let denial = Denial::of(asked, decision);
            if denial.is_some() || self.len() > 0 {
                self.put(asked, denial);
            }
        }
        self.sweep_if_due(asked.at);
    }

    fn put(&self, asked: &Asked, denial: Option<Denial>) {
        let hash = self.hash(&asked.principal, asked.name);
        let mut slots = self.shard(hash).write();
        // Compared under the lock that `forget` takes after it has counted its change: a refusal
        // that is put before that is dropped there.
        if self.changes() != asked.changes {
            return;
        }
        let same = |known: &Denial| known.is_of(&asked.principal, asked.name);
        match (slots.table.find_entry(hash, same), denial) {
            // Answers may arrive in any order. If the known one is from much later, the clock has
            // gone back.
            (Ok(known), _)
                if (1..HELD_UP).contains(&known.get().asked_at.wrapping_sub(asked.at)) => {}
            (Ok(mut known), Some(denial)) => {
                if known.get().quota != denial.quota {
                    self.correct();
                }
                *known.get_mut() = denial;
            }
            (Ok(known), None) => {
                if known.get().refuses(known.get().limit(), asked.at).is_some() {
                    self.correct();
                }
                known.remove();
                self.remembered.fetch_sub(1, Ordering::Relaxed);
            }
            (Err(_), Some(denial)) => self.insert(&mut slots, hash, denial),
            (Err(_), None) => {}
        }
    }

    fn insert(&self, slots: &mut Slots, hash: u64, denial: Denial) {
        let now = denial.asked_at;
        if slots.table.len() >= MOST && now.wrapping_sub(slots.swept) >= SWEEP_EVERY {
            slots.swept = now;
            self.sweep(slots, now);
        }
        if slots.table.len() < MOST {
            slots.table.insert_unique(hash, denial, |denial| self.hash_of(denial));
            self.remembered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets a bucket, if it is one that can be remembered.
    pub(super) fn forget_bucket(&self, bucket: &Bucket<'_>) {
        if matches!(bucket.scope(), Scope::Account | Scope::Address) {
            self.forget(bucket.principal(), bucket.name());
        }
    }

    /// Forgets a bucket that has been changed by hand, and ignores the answers to calls that were
    /// made before the change.
    fn forget(&self, principal: &Principal, name: LimitName) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let hash = self.hash(principal, name);
        let mut slots = self.shard(hash).write();
        if let Ok(known) = slots.table.find_entry(hash, |denial| denial.is_of(principal, name)) {
            known.remove();
            self.remembered.fetch_sub(1, Ordering::Relaxed);
        }
        // Even if nothing was found: a thread may have a copy of a refusal that was dropped before.
        self.correct();
    }

    /// Makes threads read the table again instead of their copies. Must be called with the shard
    /// locked, so that no thread reads the new number and then finds the old refusal.
    fn correct(&self) {
        self.corrections.fetch_add(1, Ordering::Release);
    }

    /// Sweeps the next shard, if its turn has come.
    fn sweep_if_due(&self, now: u64) {
        let swept = self.swept.load(Ordering::Relaxed);
        // If the clock has gone back, the difference wraps, and the turn is taken too.
        if self.len() == 0 || now.wrapping_sub(swept) < SWEEP_EVERY {
            return;
        }
        if self.swept.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            // A shard that is in use is left for its next turn, so that no request waits.
            if let Ok(mut slots) = self.shards[hand % SHARDS].0.try_write() {
                self.sweep(&mut slots, now);
            }
        }
    }

    fn sweep(&self, slots: &mut Slots, now: u64) {
        let before = slots.table.len();
        slots.table.retain(|denial| denial.is_alive(now));
        self.remembered.fetch_sub(before - slots.table.len(), Ordering::Relaxed);
        if slots.table.is_empty() {
            slots.table = HashTable::new();
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        // Not the lowest or highest bits: a shard's hash table uses them to place its slots.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn hash_of(&self, denial: &Denial) -> u64 {
        self.hash(&denial.principal, denial.name)
    }

    #[inline]
    fn hash(&self, principal: &Principal, name: LimitName) -> u64 {
        self.hasher.hash_one((principal, name.number()))
    }
}

impl Default for Denials {
    fn default() -> Self {
        static CACHES: AtomicU64 = AtomicU64::new(1);
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::default(),
            number: CACHES.fetch_add(1, Ordering::Relaxed),
            remembered: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            corrections: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }
}

/// Ignores poisoning: a panic leaves the table valid.
impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
