//! What is known about a bucket that has no unit.

use std::num::NonZeroU32;

use crate::store::{Entry, nanos};
use crate::values::{Decision, Limit, LimitName, Principal, Quota, Rate};

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The cost of the requests that are refused.
const ONE: NonZeroU32 = NonZeroU32::MIN;

/// The bit of a block in [`Denial::full_at`]. Times, which are the sum of a time and a debt from
/// [`nanos`], do not reach it.
const BLOCKED: u64 = 1 << 63;

/// A call of the store.
pub(super) struct Asked {
    pub(super) principal: Principal,
    pub(super) name: LimitName,
    /// When the store was called, in nanoseconds.
    pub(super) at: u64,
    /// The number of changes by hand before the call.
    pub(super) changes: u64,
    quota: Quota,
}

impl Asked {
    pub(super) fn new(principal: &Principal, entry: &Entry, at: u64, changes: u64) -> Self {
        let (name, quota) = (entry.name(), entry.quota());
        Self { principal: principal.clone(), name, at, changes, quota }
    }

    /// Whether the answer is for the limit and the quota of this call, not for a replica's share
    /// of the quota.
    pub(super) fn is_answered_by(&self, decision: &Decision) -> bool {
        decision.quota() == self.quota && decision.name() == self.name
    }
}

#[derive(Clone)]
pub(super) struct Denial {
    pub(super) principal: Principal,
    pub(super) name: LimitName,
    /// The quota in the store's decision.
    pub(super) quota: Quota,
    /// What the store counts it by, in nanoseconds for each unit: it may round.
    interval: u64,
    /// When the store was called, in nanoseconds.
    pub(super) asked_at: u64,
    /// The earliest time at which the bucket can be full: the time of the call plus the debt in the
    /// answer. With the bit [`BLOCKED`], the time until which the bucket is blocked.
    full_at: u64,
}

impl Denial {
    /// The refusal to remember from an answer, if the bucket has no unit after it.
    pub(super) fn of(asked: &Asked, decision: &Decision) -> Option<Self> {
        let (rate, debt) = (decision.rate(), nanos(decision.reset()));
        let blocked = if decision.is_blocked() { BLOCKED } else { 0 };
        (blocked != 0 || !rate.has(debt)).then(|| Self {
            principal: asked.principal.clone(),
            name: asked.name,
            quota: decision.quota(),
            interval: rate.interval(),
            asked_at: asked.at,
            full_at: (asked.at + debt) | blocked,
        })
    }

    #[inline]
    pub(super) fn is_of(&self, principal: &Principal, name: LimitName) -> bool {
        self.name == name && self.principal == *principal
    }

    /// The limit that it was decided by.
    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.name, self.quota)
    }

    fn rate(&self) -> Rate {
        Rate::of(self.quota, self.interval)
    }

    /// The refusal of a request now, if it is certain that the store would refuse.
    #[inline]
    pub(super) fn refuses(&self, limit: Limit, now: u64) -> Option<Decision> {
        let debt = (self.full_at & !BLOCKED).saturating_sub(now);
        if self.full_at & BLOCKED != 0 {
            let refuses = self.is_alive(now) && self.quota == limit.quota() && debt > 0;
            return refuses.then(|| Decision::blocked_by(limit, self.rate(), ONE, debt));
        }
        // The store corrects a debt of more than a full refill when it is called.
        let rate = self.rate();
        let refuses = self.is_alive(now)
            && self.quota == limit.quota()
            && debt <= rate.refill()
            && !rate.has(debt);
        refuses.then(|| Decision::from_nanos(limit, rate, false, debt))
    }

    /// Whether the refusal is still so new that it may be used. If the clock has gone back, it is
    /// not.
    #[inline]
    pub(super) fn is_alive(&self, now: u64) -> bool {
        now.wrapping_sub(self.asked_at) <= self.interval.min(SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::Denial;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_denial_takes_120_bytes() {
        assert_eq!(size_of::<Denial>(), 120);
    }
}
