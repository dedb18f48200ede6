//! What was decided about one request, as plain data.

use std::num::NonZeroU32;
use std::time::Duration;

use super::gcra::Rate;
use super::limit::{Limit, LimitName, Scope};
use super::quota::Quota;

/// What a limit says about one request, and how much of the quota is left.
///
/// A limit *allows* a request or *limits* it, or its bucket is *blocked*: an operator has it refuse
/// every request for a time. All numbers are derived from the bucket's *debt*: the time until the
/// bucket is full again if no more units are charged to it.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::{Account, Limiter, Policy, Quota};
///
/// let policy = Policy::bolna().quota("call", Quota::per_minute(1)).build()?;
/// let limiter = Limiter::new(policy);
/// let caller = Account::user("u-17");
/// let _first = limiter.check_now(&caller, "/call");
/// let second = limiter.check_now(&caller, "/call").expect("/call is not exempt");
///
/// let decision = second.decision().expect("the caller is identified");
/// assert!(!decision.is_allowed());
/// assert_eq!(decision.remaining(), 0);
/// let wait = decision.retry_after().expect("the request is limited");
/// assert!(wait <= Duration::from_secs(60));
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    name: LimitName,
    quota: Quota,
    /// The time in which one unit comes back, as the store counts it, in nanoseconds.
    interval: u64,
    scope: Scope,
    status: Status,
    /// The units that the request costs.
    cost: NonZeroU32,
    /// In nanoseconds. If the bucket is blocked, this is the debt with which the units of the cost
    /// would be back at the end of the wait. If the limit is of requests in flight, it is one
    /// second for each place that is taken.
    debt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Limited,
    Allowed,
    Blocked,
}

impl Decision {
    /// For stores: the request is allowed, and the bucket is full again after `debt`. The debt
    /// includes the request's own unit; in a peek, which charges nothing, it does not.
    #[must_use]
    pub const fn allowed(limit: Limit, debt: Duration) -> Self {
        Self::new(limit, limit.quota().rate(), Status::Allowed, ONE, saturating_nanos(debt))
    }

    /// For stores: the request is limited, nothing is charged, and the bucket is full again after
    /// `debt`.
    ///
    /// This is for a cost of one unit, which is limited only if the bucket has no unit. So a
    /// smaller debt, with which the bucket would have one, is raised to the smallest with which it
    /// has none. For other costs use [`Entry::limited`](crate::store::Entry::limited).
    #[must_use]
    pub const fn limited(limit: Limit, debt: Duration) -> Self {
        Self::limited_at(limit, ONE, debt)
    }

    /// [`limited`](Self::limited), for a request of that cost.
    pub(super) const fn limited_at(limit: Limit, cost: NonZeroU32, debt: Duration) -> Self {
        let rate = limit.quota().rate();
        let (debt, least) = (saturating_nanos(debt), lacking(rate, cost));
        let debt = if debt < least { least } else { debt };
        Self::new(limit, rate, Status::Limited, cost, debt)
    }

    /// For stores: the bucket is blocked and nothing is charged. `wait` is the time until a request
    /// can be allowed: until the end of the block, or longer if the bucket has no unit by then. A
    /// zero `wait` is treated as 1 ns.
    #[must_use]
    pub const fn blocked(limit: Limit, wait: Duration) -> Self {
        Self::blocked_at(limit, ONE, wait)
    }

    /// [`blocked`](Self::blocked), for a request of that cost.
    pub(super) const fn blocked_at(limit: Limit, cost: NonZeroU32, wait: Duration) -> Self {
        Self::blocked_by(limit, limit.quota().rate(), cost, saturating_nanos(wait))
    }

    /// [`allowed`](Self::allowed) or [`limited`](Self::limited), from a store that counts by `rate`
    /// and whose `allowed` and `debt`, in nanoseconds, agree.
    #[inline]
    pub(crate) const fn from_nanos(limit: Limit, rate: Rate, allowed: bool, debt: u64) -> Self {
        let status = if allowed { Status::Allowed } else { Status::Limited };
        Self::new(limit, rate, status, ONE, debt)
    }

    /// [`blocked`](Self::blocked), from a store that counts by `rate`; `wait` is in nanoseconds.
    pub(crate) const fn blocked_by(limit: Limit, rate: Rate, cost: NonZeroU32, wait: u64) -> Self {
        let debt = (lacking(rate, cost) - 1).saturating_add(if wait == 0 { 1 } else { wait });
        Self::new(limit, rate, Status::Blocked, cost, debt)
    }

    #[inline]
    const fn new(limit: Limit, rate: Rate, status: Status, cost: NonZeroU32, debt: u64) -> Self {
        Self {
            name: limit.name(),
            quota: limit.quota(),
            interval: rate.interval(),
            scope: limit.scope(),
            status,
            cost,
            debt,
        }
    }

    /// The same decision about a request of that cost. The debt must agree with it.
    #[inline]
    pub(super) const fn of_cost(self, cost: NonZeroU32) -> Self {
        Self { cost, ..self }
    }

    /// The same decision under another name of the limit.
    pub(crate) const fn renamed(self, name: LimitName) -> Self {
        Self { name, ..self }
    }

    /// The rate by which the store has counted.
    #[inline]
    pub(crate) const fn rate(&self) -> Rate {
        Rate::of(self.quota, self.interval)
    }

    /// Whether the limit allows the request.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self.status, Status::Allowed)
    }

    /// Whether the request is over the limit because its bucket is
    /// [blocked](crate::Limiter::block), however much is left in it.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        matches!(self.status, Status::Blocked)
    }

    /// The limit: its name, its scope, and its [quota](Self::quota).
    #[must_use]
    #[inline]
    pub const fn limit(&self) -> Limit {
        Limit::of(self.name, self.scope, self.quota)
    }

    /// The name of the limit. An endpoint's own limit has the endpoint's name.
    #[must_use]
    #[inline]
    pub const fn name(&self) -> LimitName {
        self.name
    }

    /// The quota that the request was measured by: the limit's, or a replica's share of it.
    ///
    /// A store may count it more coarsely: a `RedisStore` in whole microseconds for each unit,
    /// rounded up. Then [`reset`](Self::reset) can be longer than the quota's
    /// [`refill_time`](Quota::refill_time).
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// The units that the request costs, from 1 to the quota's burst: 1 unless the policy or the
    /// [request](crate::BolnaRateLimitLayer::cost) has another cost.
    #[must_use]
    pub const fn cost(&self) -> u32 {
        self.cost.get()
    }

    /// The units that are left, from 0 to the quota's burst: how many more requests of one unit
    /// would be allowed now. 0 if the bucket is blocked. If the bucket was charged, the request's
    /// own units are charged already; a peek charges nothing. For a limit of requests in flight:
    /// how many places are free.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        if self.is_blocked() { 0 } else { self.rate().left(self.debt) }
    }

    /// How many places are taken, if the limit is of [requests in flight](Quota::is_concurrent):
    /// those of this request too, if it has been admitted. It is more than the limit if that was
    /// lowered meanwhile. `None` for a rate.
    #[must_use]
    pub const fn in_flight(&self) -> Option<u32> {
        if !self.quota.is_concurrent() {
            return None;
        }
        let count = self.debt / self.rate().interval();
        #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
        Some(if count > u32::MAX as u64 { u32::MAX } else { count as u32 })
    }

    /// The time until a request of the same cost would be allowed if no other request is charged to
    /// the bucket meanwhile. It is exact and never zero. `None` if this request is allowed.
    ///
    /// When a request in flight will end is not known, so for a limit of
    /// [requests in flight](Quota::is_concurrent) it is 1 s, and may not suffice.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if self.is_allowed() {
            None
        } else if self.quota.is_concurrent() {
            Some(IN_FLIGHT)
        } else {
            Some(self.until(self.cost.get()))
        }
    }

    /// The time until the bucket holds one unit more than the [`remaining`](Self::remaining) ones;
    /// zero if the bucket is full. If the bucket is blocked, the same as
    /// [`retry_after`](Self::retry_after). For a limit of requests in flight, zero unless the
    /// request is limited.
    #[must_use]
    pub const fn next_unit(&self) -> Duration {
        if self.quota.is_concurrent() {
            self.wait_for_end()
        } else if self.is_blocked() {
            self.until(self.cost.get())
        } else if self.debt == 0 {
            Duration::ZERO
        } else {
            self.until(self.remaining() + 1)
        }
    }

    /// The time until the bucket is full again if nothing is charged to it meanwhile; zero if it is
    /// full. If the bucket is blocked, the same as [`retry_after`](Self::retry_after): a blocked
    /// bucket goes on refilling, but no store says how full it is. For a limit of requests in
    /// flight, zero unless the request is limited.
    #[must_use]
    pub const fn reset(&self) -> Duration {
        if self.quota.is_concurrent() {
            self.wait_for_end()
        } else if self.is_blocked() {
            self.until(self.cost.get())
        } else {
            Duration::from_nanos(self.debt)
        }
    }

    /// The wait for the end of a request in flight, if the request is limited.
    const fn wait_for_end(&self) -> Duration {
        if self.is_allowed() { Duration::ZERO } else { IN_FLIGHT }
    }

    /// The time until the bucket holds `units`.
    const fn until(&self, units: u32) -> Duration {
        Duration::from_nanos(self.rate().until(self.debt, units))
    }
}

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// The wait that the refusal of one request too many in flight names.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// The smallest debt with which a bucket does not hold a cost, which is at most the burst.
const fn lacking(rate: Rate, cost: NonZeroU32) -> u64 {
    rate.refill() - rate.time_of(cost.get()) + 1
}

const fn saturating_nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}
