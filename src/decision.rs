//! What was decided about one request, as plain data.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// Whether a request is within its quota, and how much of the quota is left.
///
/// Everything is derived from the *debt*: how long from now the bucket takes to be full again if
/// nobody uses it. A bucket may also be *blocked* for a time, and refuses everything meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    endpoint: Endpoint,
    quota: Quota,
    verdict: Verdict,
    /// Of a blocked bucket, the debt with which the first unit comes back at the end of the wait.
    debt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Limited,
    Allowed,
    Blocked,
}

impl Decision {
    /// For stores: the request is admitted, and with its unit charged (or, from a peek, as it is)
    /// the bucket is full again after `debt`.
    #[must_use]
    pub const fn allowed(endpoint: Endpoint, quota: Quota, debt: Duration) -> Self {
        Self { endpoint, quota, verdict: Verdict::Allowed, debt: saturating_nanos(debt) }
    }

    /// For stores: the request is refused, nothing is charged, and the bucket is full again after
    /// `debt`.
    ///
    /// A bucket that has a unit refuses nothing, so a smaller debt counts as the smallest with
    /// which it has none.
    #[must_use]
    pub const fn limited(endpoint: Endpoint, quota: Quota, debt: Duration) -> Self {
        let least = most_with_a_unit(quota) + 1;
        let debt = saturating_nanos(debt);
        Self {
            endpoint,
            quota,
            verdict: Verdict::Limited,
            debt: if debt < least { least } else { debt },
        }
    }

    /// For stores: the bucket is blocked, the request is refused and nothing is charged, and one is
    /// admitted after `wait` at the earliest: at the end of the block, or later if the bucket
    /// has no unit by then.
    ///
    /// No wait at all counts as 1 ns.
    #[must_use]
    pub const fn blocked(endpoint: Endpoint, quota: Quota, wait: Duration) -> Self {
        let wait = saturating_nanos(wait);
        let debt = most_with_a_unit(quota).saturating_add(if wait == 0 { 1 } else { wait });
        Self { endpoint, quota, verdict: Verdict::Blocked, debt }
    }

    /// [`allowed`](Self::allowed) or [`limited`](Self::limited), from a store that has got the
    /// numbers right.
    #[inline]
    pub(crate) const fn from_nanos(
        endpoint: Endpoint,
        quota: Quota,
        allowed: bool,
        debt: u64,
    ) -> Self {
        Self {
            endpoint,
            quota,
            verdict: if allowed { Verdict::Allowed } else { Verdict::Limited },
            debt,
        }
    }

    /// The same for another endpoint.
    pub(crate) const fn of_endpoint(self, endpoint: Endpoint) -> Self {
        Self { endpoint, ..self }
    }

    /// Whether the request may go on.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed)
    }

    /// Whether the request is refused because its bucket is [blocked](crate::store::Store::block),
    /// however much is left.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        matches!(self.verdict, Verdict::Blocked)
    }

    /// The endpoint that the request was billed to.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The quota that it was measured by.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many requests would be admitted now: after this one, or, from a peek, this one included.
    /// Between 0 and the quota's burst; 0 of a blocked bucket.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        let left = self.quota.refill_nanos().saturating_sub(self.debt);
        #[expect(clippy::cast_possible_truncation, reason = "at most the burst, which is a u32")]
        let units = (left / self.quota.interval_nanos()) as u32;
        units
    }

    /// On a refusal, how long until a request would be admitted if nobody else uses the bucket:
    /// exact, and more than zero. `None` when the request was allowed.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if self.is_allowed() { None } else { Some(self.until(1)) }
    }

    /// How long until the bucket holds one more unit than [`remaining`](Self::remaining) now; zero
    /// when it is full. Of a blocked bucket, the same as [`retry_after`](Self::retry_after).
    #[must_use]
    pub const fn next_unit(&self) -> Duration {
        if self.debt == 0 { Duration::ZERO } else { self.until(self.remaining() + 1) }
    }

    /// How long until the bucket is full again if nobody uses it. Of a blocked bucket, which goes
    /// on refilling, no more is known than [`retry_after`](Self::retry_after), and this is the
    /// same.
    #[must_use]
    pub const fn reset(&self) -> Duration {
        if self.is_blocked() { self.until(1) } else { Duration::from_nanos(self.debt) }
    }

    /// How long until the bucket holds `units`.
    const fn until(&self, units: u32) -> Duration {
        let debt_then = (self.quota.burst() - units) as u64 * self.quota.interval_nanos();
        Duration::from_nanos(self.debt.saturating_sub(debt_then))
    }
}

/// A bucket that owes more has no unit.
const fn most_with_a_unit(quota: Quota) -> u64 {
    quota.refill_nanos() - quota.interval_nanos()
}

const fn saturating_nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}
