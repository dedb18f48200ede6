//! What is known of a bucket without a unit.

use std::time::Duration;

use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::quota::Quota;
use crate::store::{Bucket, nanos};

const SECOND: u64 = 1_000_000_000;

/// Above all times, which are sums of two from [`nanos`].
const BLOCKED: u64 = 1 << 63;

/// A question that the store was asked.
pub(super) struct Asked {
    pub(super) principal: Principal,
    pub(super) endpoint: Endpoint,
    pub(super) at: u64,
    /// How often a bucket had been changed by hand.
    pub(super) changes: u64,
    quota: Quota,
}

impl Asked {
    pub(super) fn new(bucket: Bucket<'_>, at: u64, changes: u64) -> Self {
        let Bucket { principal, endpoint, quota } = bucket;
        Self { principal: principal.clone(), endpoint, at, changes, quota }
    }

    /// Whether the answer is to this question, and not about a share of the quota.
    pub(super) fn is_answered_by(&self, decision: &Decision) -> bool {
        decision.quota() == self.quota && decision.endpoint() == self.endpoint
    }
}

#[derive(Clone)]
pub(super) struct Denial {
    pub(super) principal: Principal,
    pub(super) endpoint: Endpoint,
    /// As the store counts: it may round.
    pub(super) quota: Quota,
    /// When the store was asked.
    pub(super) asked_at: u64,
    /// When the bucket is full, at the least: it owes what it was said to since it was asked for.
    /// Until when it is blocked, with the bit [`BLOCKED`].
    full_at: u64,
}

impl Denial {
    /// What an answer says, if the bucket is without a unit then.
    pub(super) fn of(asked: &Asked, decision: &Decision) -> Option<Self> {
        let (quota, debt) = (decision.quota(), nanos(decision.reset()));
        let blocked = if decision.is_blocked() { BLOCKED } else { 0 };
        (blocked != 0 || debt > most_with_a_unit(quota)).then(|| Self {
            principal: asked.principal.clone(),
            endpoint: asked.endpoint,
            quota,
            asked_at: asked.at,
            full_at: (asked.at + debt) | blocked,
        })
    }

    #[inline]
    pub(super) fn is_of(&self, principal: &Principal, endpoint: Endpoint) -> bool {
        self.endpoint == endpoint && self.principal == *principal
    }

    /// The refusal of a request now, if it is sure that the store would refuse.
    #[inline]
    pub(super) fn refuses(&self, quota: Quota, now: u64) -> Option<Decision> {
        let debt = (self.full_at & !BLOCKED).saturating_sub(now);
        if self.full_at & BLOCKED != 0 {
            let refuses = self.is_alive(now) && self.quota == quota && debt > 0;
            return refuses
                .then(|| Decision::blocked(self.endpoint, self.quota, Duration::from_nanos(debt)));
        }
        // A bucket that owes more than it can is filled up in part, when it is asked for.
        let can_owe = debt <= self.quota.refill_nanos() + SECOND;
        let refuses = self.is_alive(now)
            && self.quota == quota
            && can_owe
            && debt > most_with_a_unit(self.quota);
        refuses.then(|| Decision::from_nanos(self.endpoint, self.quota, false, debt))
    }

    /// Whether it is so new that a reset elsewhere may still be overlooked. With a clock that has
    /// gone back it is not.
    #[inline]
    pub(super) fn is_alive(&self, now: u64) -> bool {
        now.wrapping_sub(self.asked_at) <= self.quota.interval_nanos().min(SECOND)
    }
}

/// A bucket that owes more has no unit.
#[inline]
fn most_with_a_unit(quota: Quota) -> u64 {
    quota.refill_nanos() - quota.interval_nanos()
}

#[cfg(test)]
mod tests {
    use super::Denial;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_denial_takes_104_bytes() {
        assert_eq!(size_of::<Denial>(), 104);
    }
}
