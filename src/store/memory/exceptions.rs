//! What few buckets have: a block, or an overdraft.

use super::key::BucketKey;

/// The block and the overdraft of a bucket. Times are in nanoseconds of the store's clock; those
/// that have passed mean that there is none.
pub(super) struct Exception {
    pub(super) key: BucketKey,
    blocked_until: u64,
    /// The length of the block when it was made, so that a clock that goes back does not prolong
    /// it.
    period: u64,
    /// When the overdraft is repaid.
    overdrawn_until: u64,
    /// The overdraft when it was set, so that a clock that goes back does not prolong it.
    overdraft: u64,
}

impl Exception {
    pub(super) const fn new(key: BucketKey) -> Self {
        Self { key, blocked_until: 0, period: 0, overdrawn_until: 0, overdraft: 0 }
    }

    /// How much longer the bucket is blocked.
    pub(super) const fn blocked(&self, now: u64) -> u64 {
        let left = self.blocked_until.saturating_sub(now);
        if left > self.period { self.period } else { left }
    }

    /// Whether the clock has gone back since the block was made, so that it has to be made again to
    /// end at all.
    pub(super) const fn is_prolonged(&self, now: u64) -> bool {
        self.blocked_until.saturating_sub(now) > self.period
    }

    pub(super) fn block(&mut self, now: u64, period: u64) {
        (self.blocked_until, self.period) = (now + period, period);
    }

    /// How much of the overdraft is left: nothing if the clock has gone back.
    pub(super) const fn overdraft(&self, now: u64) -> u64 {
        let left = self.overdrawn_until.saturating_sub(now);
        if left > self.overdraft { 0 } else { left }
    }

    pub(super) fn overdraw(&mut self, now: u64, overdraft: u64) {
        (self.overdrawn_until, self.overdraft) = (now + overdraft, overdraft);
    }

    pub(super) const fn is_over(&self, now: u64) -> bool {
        self.blocked_until <= now && self.overdrawn_until <= now
    }
}
