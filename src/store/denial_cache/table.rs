//! What is remembered, in shards.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::denial::{Asked, Denial};
use super::recent::{self, Source};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::store::Bucket;

const SHARDS: usize = 128;

/// The most in one shard: what fits a hash table of 512 slots.
const MOST: usize = 448;

/// The time, in nanoseconds, from one turn to be swept to the next. All shards have had theirs
/// within a second, after which everything is out of date.
const TURN: u64 = 1_000_000_000 / SHARDS as u64;

pub(super) struct Denials {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// What threads know it by.
    number: u64,
    /// Those in all shards.
    remembered: AtomicUsize,
    /// How often a change by hand has come to an end.
    changes: AtomicU64,
    /// How often something was dropped by which a request would still have been refused.
    corrections: AtomicU64,
    /// When a shard was last swept because its time had come.
    swept: AtomicU64,
    /// The shard whose turn it is.
    hand: AtomicUsize,
}

/// On a cache line of its own, so that two shards are never in each other's way.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<Slots>);

#[derive(Default)]
struct Slots {
    table: HashTable<Denial>,
    /// When it was last swept because it was full.
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

    /// The refusal of a request now, if it is sure that the store would refuse.
    #[inline]
    pub(super) fn recall(&self, bucket: Bucket<'_>, now: u64) -> Option<Decision> {
        if self.len() == 0 {
            return None;
        }
        // Read before the table: what is found there afterwards may be known to be wrong since.
        let source =
            Source { cache: self.number, corrections: self.corrections.load(Ordering::Acquire) };
        let hash = self.hash(bucket.principal, bucket.endpoint);
        recent::recall(source, hash, bucket, now)
            .or_else(|| self.look_up(source, hash, bucket, now))
    }

    #[inline(never)]
    fn look_up(&self, source: Source, hash: u64, bucket: Bucket<'_>, now: u64) -> Option<Decision> {
        let slots = self.shard(hash).read();
        let denial =
            slots.table.find(hash, |denial| denial.is_of(bucket.principal, bucket.endpoint))?;
        let decision = denial.refuses(bucket.quota, now)?;
        let denial = denial.clone();
        drop(slots);
        recent::remember(source, hash, denial);
        Some(decision)
    }

    /// Remembers what an answer says, or drops what it says is wrong.
    pub(super) fn learn(&self, asked: &Asked, decision: &Decision) {
        if asked.is_answered_by(decision) {
            let denial = Denial::of(asked, decision);
            if denial.is_some() || self.len() > 0 {
                self.put(asked, denial);
            }
        }
        self.take_turn(asked.at);
    }

    fn put(&self, asked: &Asked, denial: Option<Denial>) {
        let hash = self.hash(&asked.principal, asked.endpoint);
        let mut slots = self.shard(hash).write();
        // Compared under the lock that `forget` asks for afterwards: what is in time for this is
        // forgotten there.
        if self.changes() != asked.changes {
            return;
        }
        let same = |known: &Denial| known.is_of(&asked.principal, asked.endpoint);
        match (slots.table.find_entry(hash, same), denial) {
            // Answers come in any order.
            (Ok(known), _) if known.get().asked_at > asked.at => {}
            (Ok(mut known), Some(denial)) => {
                if known.get().quota != denial.quota {
                    self.correct();
                }
                *known.get_mut() = denial;
            }
            (Ok(known), None) => {
                if known.get().refuses(known.get().quota, asked.at).is_some() {
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
        if slots.table.len() >= MOST && now.wrapping_sub(slots.swept) >= TURN {
            slots.swept = now;
            self.sweep(slots, now);
        }
        if slots.table.len() < MOST {
            slots.table.insert_unique(hash, denial, |denial| self.hash_of(denial));
            self.remembered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets a bucket that has been changed by hand, and what is still on its way from before
    /// that.
    pub(super) fn forget(&self, principal: &Principal, endpoint: Endpoint) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let hash = self.hash(principal, endpoint);
        let mut slots = self.shard(hash).write();
        if let Ok(known) = slots.table.find_entry(hash, |denial| denial.is_of(principal, endpoint))
        {
            known.remove();
            self.remembered.fetch_sub(1, Ordering::Relaxed);
        }
        // Even if nothing was there: a thread may have a copy of what has been dropped.
        self.correct();
    }

    /// Makes threads look into the table again. To be called with the shard locked, so that none
    /// finds what is wrong there after it has read this.
    fn correct(&self) {
        self.corrections.fetch_add(1, Ordering::Release);
    }

    /// Sweeps the next shard, if its time has come.
    fn take_turn(&self, now: u64) {
        let swept = self.swept.load(Ordering::Relaxed);
        // Wraps when the clock has gone back, and the turn is taken then too.
        if self.len() == 0 || now.wrapping_sub(swept) < TURN {
            return;
        }
        if self.swept.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            // One that is in use is left for its next turn: nobody is made to wait.
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
        // Not the lowest bits nor the highest, by which a shard sorts its slots.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn hash_of(&self, denial: &Denial) -> u64 {
        self.hash(&denial.principal, denial.endpoint)
    }

    #[inline]
    fn hash(&self, principal: &Principal, endpoint: Endpoint) -> u64 {
        self.hasher.hash_one((principal, endpoint.number()))
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

/// What is remembered is as good after a panic as before.
impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
