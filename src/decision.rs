//! What was decided about one request, as plain data.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// Whether a request is within its quota, and how much of the quota is left.
///
/// Everything is derived from the *debt*: how long from now the bucket takes to be full again if nobody uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    endpoint: Endpoint,
    quota: Quota,
    allowed: bool,
    debt: u64,
}

impl Decision {
    /// For stores: the request is admitted, and with its unit charged (or, from a peek, as it is) the bucket is full again
    /// after `debt`.
    #[must_use]
    pub const fn allowed(endpoint: Endpoint, quota: Quota, debt: Duration) -> Self {
        Self { endpoint, quota, allowed: true, debt: saturating_nanos(debt) }
    }

    /// For stores: the request is refused, nothing is charged, and the bucket is full again after `debt`.
    ///
    /// A bucket that has a unit refuses nothing, so a smaller debt counts as the smallest with which it has none.
    #[must_use]
    pub const fn limited(endpoint: Endpoint, quota: Quota, debt: Duration) -> Self {
        let least = quota.refill_nanos() - quota.interval_nanos() + 1;
        let debt = saturating_nanos(debt);
        Self { endpoint, quota, allowed: false, debt: if debt < least { least } else { debt } }
    }

    /// [`allowed`](Self::allowed) or [`limited`](Self::limited), from a store that has got the numbers right.
    #[inline]
    pub(crate) const fn from_nanos(endpoint: Endpoint, quota: Quota, allowed: bool, debt: u64) -> Self {
        Self { endpoint, quota, allowed, debt }
    }

    /// The same for another endpoint.
    pub(crate) const fn of_endpoint(self, endpoint: Endpoint) -> Self {
        Self { endpoint, ..self }
    }

    /// Whether the request may go on.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.allowed
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

    /// How many requests would be admitted now: after this one, or, from a peek, this one included. Between 0 and the
    /// quota's burst.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        let left = self.quota.refill_nanos().saturating_sub(self.debt);
        #[expect(clippy::cast_possible_truncation, reason = "at most the burst, which is a u32")]
        let units = (left / self.quota.interval_nanos()) as u32;
        units
    }

    /// On a refusal, how long until a request would be admitted if nobody else uses the bucket: exact, and more than
    /// zero. `None` when the request was allowed.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if self.allowed { None } else { Some(self.until(1)) }
    }

    /// How long until the bucket holds one more unit than [`remaining`](Self::remaining) now; zero when it is full.
    #[must_use]
    pub const fn next_unit(&self) -> Duration {
        if self.debt == 0 { Duration::ZERO } else { self.until(self.remaining() + 1) }
    }

    /// How long until the bucket is full again if nobody uses it.
    #[must_use]
    pub const fn reset(&self) -> Duration {
        Duration::from_nanos(self.debt)
    }

    /// How long until the bucket holds `units`.
    const fn until(&self, units: u32) -> Duration {
        let debt_then = (self.quota.burst() - units) as u64 * self.quota.interval_nanos();
        Duration::from_nanos(self.debt.saturating_sub(debt_then))
    }
}

const fn saturating_nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}
