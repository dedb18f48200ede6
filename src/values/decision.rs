//! What was decided about one request, as plain data.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::gcra::Rate;
use super::quota::Quota;

/// What a limit says about one request, and how much of the quota is left.
///
/// Everything is derived from the *debt*: how long from now the bucket takes to be full again if no
/// unit is taken meanwhile. A bucket may also be *blocked* for a time, and refuses everything
/// until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    endpoint: Endpoint,
    quota: Quota,
    /// What the store counts the quota by.
    interval: u64,
    status: Status,
    /// Of a blocked bucket, the debt with which the first unit comes back at the end of the wait.
    debt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Limited,
    Allowed,
    Blocked,
}

impl Decision {
    /// For stores: the request is admitted, and with its unit charged (or, from a peek, as it is)
    /// the bucket is full again after `debt`.
    #[must_use]
    pub const fn allowed(endpoint: Endpoint, quota: Quota, debt: Duration) -> Self {
        Self::new(endpoint, quota, quota.rate(), Status::Allowed, saturating_nanos(debt))
    }

    /// For stores: the request is refused, nothing is charged, and the bucket is full again after
    /// `debt`.
    ///
    /// A bucket that has a unit refuses nothing, so a smaller debt counts as the smallest with
    /// which it has none.
    #[must_use]
    pub const fn limited(endpoint: Endpoint, quota: Quota, debt: Duration) -> Self {
        let rate = quota.rate();
        let debt = saturating_nanos(debt);
        let debt = if rate.has(debt) { empty(rate) } else { debt };
        Self::new(endpoint, quota, rate, Status::Limited, debt)
    }

    /// For stores: the bucket is blocked, the request is refused and nothing is charged, and one is
    /// admitted after `wait` at the earliest: at the end of the block, or later if the bucket
    /// has no unit by then.
    ///
    /// No wait at all counts as 1 ns.
    #[must_use]
    pub const fn blocked(endpoint: Endpoint, quota: Quota, wait: Duration) -> Self {
        Self::blocked_by(endpoint, quota, quota.rate(), saturating_nanos(wait))
    }

    /// [`allowed`](Self::allowed) or [`limited`](Self::limited), from a store that has got the
    /// numbers right.
    #[inline]
    pub(crate) const fn from_nanos(
        endpoint: Endpoint,
        quota: Quota,
        rate: Rate,
        allowed: bool,
        debt: u64,
    ) -> Self {
        let status = if allowed { Status::Allowed } else { Status::Limited };
        Self::new(endpoint, quota, rate, status, debt)
    }

    /// [`blocked`](Self::blocked), from a store that counts by `rate`.
    pub(crate) const fn blocked_by(
        endpoint: Endpoint,
        quota: Quota,
        rate: Rate,
        wait: u64,
    ) -> Self {
        let debt = (empty(rate) - 1).saturating_add(if wait == 0 { 1 } else { wait });
        Self::new(endpoint, quota, rate, Status::Blocked, debt)
    }

    #[inline]
    const fn new(endpoint: Endpoint, quota: Quota, rate: Rate, status: Status, debt: u64) -> Self {
        Self { endpoint, quota, interval: rate.interval(), status, debt }
    }

    /// The same for another endpoint.
    pub(crate) const fn of_endpoint(self, endpoint: Endpoint) -> Self {
        Self { endpoint, ..self }
    }

    /// What the store has counted by.
    #[inline]
    pub(crate) const fn rate(&self) -> Rate {
        Rate::of(self.quota, self.interval)
    }

    /// Whether the limit allows the request.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self.status, Status::Allowed)
    }

    /// Whether the request is refused because its bucket is [blocked](crate::store::Store::block),
    /// however much is left.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        matches!(self.status, Status::Blocked)
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
        self.rate().left(self.debt)
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
        Duration::from_nanos(self.rate().until(self.debt, units))
    }
}

/// The smallest debt with which a bucket has no unit.
const fn empty(rate: Rate) -> u64 {
    rate.refill() - rate.interval() + 1
}

const fn saturating_nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}
