//! The buckets that are blocked. There are few of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use hashbrown::HashTable;

use super::table::{Key, Name};

/// The most by which readings of the clock by two threads may differ, in nanoseconds: 1 s.
const SLACK: u64 = 1_000_000_000;

#[derive(Default)]
pub(super) struct Blocks {
    /// A set of bits, one of which is chosen by the hash of each block. If the bit of a request is
    /// not set, the request reads nothing else.
    mask: AtomicU64,
    /// A block that has ended stays here until a request finds it, or another block is made.
    blocks: RwLock<HashTable<Block>>,
}

/// A block. Its times are in nanoseconds of the store's clock.
struct Block {
    name: Name,
    hash: u64,
    until: u64,
    /// The length of the block when it was made, so that a clock that goes back does not prolong
    /// it.
    period: u64,
}

impl Block {
    fn is_over(&self, now: u64) -> bool {
        self.until <= now
    }

    fn is_beyond(&self, now: u64) -> bool {
        self.until - now > self.period + SLACK
    }
}

impl Blocks {
    /// Whether a bucket of that hash may be blocked. If not, it is not.
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.mask.load(Ordering::Relaxed) & bit(hash) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mask.load(Ordering::Relaxed) == 0
    }

    /// How many nanoseconds of the bucket's block are left, if it is blocked.
    pub(super) fn left(&self, hash: u64, key: Key<'_>, now: u64) -> Option<u64> {
        {
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            let block = blocks.find(hash, |block| block.name.is(key))?;
            if !block.is_over(now) && !block.is_beyond(now) {
                return Some(block.until - now);
            }
        }
        let mut blocks = self.write();
        let block = blocks.find_mut(hash, |block| block.name.is(key))?;
        if block.is_over(now) {
            self.retain(&mut blocks, |block| !block.is_over(now));
            return None;
        }
        if block.is_beyond(now) {
            block.until = now + block.period;
        }
        Some(block.until - now)
    }

    /// Blocks a bucket for `period` nanoseconds, unless `current` returns false. `current` is
    /// called while no other block can change. Returns whether the bucket is newly blocked.
    pub(super) fn set(
        &self,
        hash: u64,
        key: Key<'_>,
        now: u64,
        period: u64,
        current: impl FnOnce() -> bool,
    ) -> bool {
        let mut blocks = self.write();
        if !current() {
            return false;
        }
        let until = now + period;
        if let Some(block) = blocks.find_mut(hash, |block| block.name.is(key)) {
            let new = block.is_over(now);
            (block.until, block.period) = (until, period);
            return new;
        }
        let block = Block { name: Name::of(key), hash, until, period };
        blocks.insert_unique(hash, block, |block| block.hash);
        self.retain(&mut blocks, |block| !block.is_over(now));
        true
    }

    /// Lifts the block of a bucket, if there is one, unless `current` returns false. `current` is
    /// called while no other block can change.
    pub(super) fn lift(&self, hash: u64, key: Key<'_>, current: impl FnOnce() -> bool) {
        let mut blocks = self.write();
        if !current() {
            return;
        }
        if let Ok(block) = blocks.find_entry(hash, |block| block.name.is(key)) {
            block.remove();
            self.retain(&mut blocks, |_| true);
        }
    }

    fn retain(&self, blocks: &mut HashTable<Block>, keep: impl Fn(&Block) -> bool) {
        blocks.retain(|block| keep(block));
        blocks.shrink_to(blocks.len() * 2, |block| block.hash);
        let mask = blocks.iter().fold(0, |mask, block| mask | bit(block.hash));
        self.mask.store(mask, Ordering::Relaxed);
    }

    /// Ignores poisoning: a panic leaves the table valid.
    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Block>> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[inline]
fn bit(hash: u64) -> u64 {
    1 << (hash % 64)
}
