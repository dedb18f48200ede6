//! How many requests are admitted: over time, or at once.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::gcra::{Rate, share_of_burst};

const NANOS_PER_SEC: u64 = 1_000_000_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A limit over a period, and the burst that may be used at one instant; or a limit of requests in
/// flight. Always valid.
///
/// A limit over a period is enforced by [GCRA], a token bucket that stores one time instead of a
/// counter. The bucket holds up to [`burst`](Self::burst) units. A request takes one unit, and one
/// unit comes back every [`emission_interval`](Self::emission_interval). So
///
/// * with the default burst, which is the limit itself, a caller that sends at most `limit`
///   requests in every period is never refused;
/// * a caller that sends as fast as it can is admitted at most `limit + burst - 1` times in any one
///   period, and `limit` times a period in the long run.
///
/// A limit of requests in flight, which [`concurrent`](Self::concurrent) makes, has no period: a
/// place is free again when a request ends.
///
/// [GCRA]: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::Quota;
///
/// let quota = Quota::per_minute(500).burst(50).build()?;
/// assert_eq!(quota.emission_interval(), Duration::from_millis(120));
/// assert_eq!(quota.refill_time(), Duration::from_secs(6));
/// assert_eq!(quota.to_string(), "500 requests per minute");
///
/// let quota = Quota::concurrent(10).build()?;
/// assert!(quota.is_concurrent());
/// assert_eq!(quota.to_string(), "10 requests at once");
/// # Ok::<(), bolna_rate_limit::values::QuotaError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    limit: NonZeroU32,
    burst: NonZeroU32,
    /// Zero if it limits requests in flight.
    period: Duration,
}

impl Quota {
    /// The longest time that a drained bucket may take to be full again: 100 years of 365.25 days.
    ///
    /// With this bound a sum of times fits in 63 bits of nanoseconds, and is exact in a store that
    /// counts microseconds in floating point.
    pub const MAX_REFILL_TIME: Duration = Duration::from_secs(36_525 * 86_400);

    /// `limit` requests per second. The burst is `limit` too unless it is
    /// [set](QuotaBuilder::burst).
    pub const fn per_second(limit: u32) -> QuotaBuilder {
        Self::per(limit, SECOND)
    }

    /// `limit` requests per minute. The burst is `limit` too unless it is
    /// [set](QuotaBuilder::burst).
    pub const fn per_minute(limit: u32) -> QuotaBuilder {
        Self::per(limit, MINUTE)
    }

    /// `limit` requests per hour. The burst is `limit` too unless it is
    /// [set](QuotaBuilder::burst).
    pub const fn per_hour(limit: u32) -> QuotaBuilder {
        Self::per(limit, HOUR)
    }

    /// `limit` requests per day of 24 hours. The burst is `limit` too unless it is
    /// [set](QuotaBuilder::burst).
    ///
    /// Units come back one by one, not at midnight: of 20,000 a day one comes back every 4.32 s. So
    /// a caller that has spent a day's burst at once is admitted at that pace from then on.
    pub const fn per_day(limit: u32) -> QuotaBuilder {
        Self::per(limit, DAY)
    }

    /// `limit` requests per `period`. The burst is `limit` too unless it is
    /// [set](QuotaBuilder::burst).
    pub const fn per(limit: u32, period: Duration) -> QuotaBuilder {
        QuotaBuilder { limit, period, burst: None, concurrent: false }
    }

    /// At most `limit` requests in flight: from 1 to [`MAX_CONCURRENT`](Self::MAX_CONCURRENT).
    ///
    /// A request is in flight from its admission until the body of its response has ended or was
    /// dropped: see [`PolicyBuilder::concurrent`](crate::policy::PolicyBuilder::concurrent).
    pub const fn concurrent(limit: u32) -> QuotaBuilder {
        QuotaBuilder { limit, period: Duration::ZERO, burst: None, concurrent: true }
    }

    /// The most requests in flight that a quota can allow: a billion.
    pub const MAX_CONCURRENT: u32 = 1_000_000_000;

    /// Whether this limits the requests in flight, and not a rate.
    #[must_use]
    #[inline]
    pub const fn is_concurrent(&self) -> bool {
        self.period.is_zero()
    }

    /// The number of requests per [`period`](Self::period) that are admitted in the long run, or
    /// the number of requests that may be in flight; at least 1.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// The time over which the [`limit`](Self::limit) is counted. Zero if the quota is
    /// [of requests in flight](Self::is_concurrent), and never otherwise.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// The number of requests that a full bucket admits at one instant; at least 1. The same as the
    /// [`limit`](Self::limit) if the quota is of requests in flight.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// The time in which one unit comes back: `period / limit`, rounded **up** to a whole
    /// nanosecond. At least 1 ns, but zero if the quota is of requests in flight.
    ///
    /// If it were rounded down, as [`governor`](https://docs.rs/governor) does by itself, more than
    /// `limit` units would come back in a period.
    #[must_use]
    pub const fn emission_interval(&self) -> Duration {
        if self.is_concurrent() {
            Duration::ZERO
        } else {
            Duration::from_nanos(self.rate().interval())
        }
    }

    /// The time in which a drained bucket is full again: `burst` emission intervals.
    #[must_use]
    pub const fn refill_time(&self) -> Duration {
        if self.is_concurrent() {
            Duration::ZERO
        } else {
            Duration::from_nanos(self.rate().refill())
        }
    }

    pub(super) const fn burst_non_zero(&self) -> NonZeroU32 {
        self.burst
    }

    /// The rate by which a store counts. This is a long division, so keep the result.
    ///
    /// For requests in flight it is the scale by which a [`Decision`](super::Decision) counts them:
    /// one second each, which is the wait that a refusal names.
    pub(crate) const fn rate(&self) -> Rate {
        if self.is_concurrent() {
            return Rate::new(NANOS_PER_SEC, self.burst);
        }
        // A period is longer than 0 ns, so this is at least 1.
        let interval = self.period.as_nanos().div_ceil(self.limit.get() as u128);
        let slowest = Self::MAX_REFILL_TIME.as_nanos();
        // `build` accepts nothing slower. But the quota that `shared_by` makes may be slower.
        let interval = if interval > slowest { slowest } else { interval };
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_REFILL_TIME")]
        let rate = Rate::new(interval as u64, self.burst);
        rate
    }

    /// One replica's share of the quota, for display, when `replicas` of them can't count together:
    /// one `replicas`th of the limit and of the burst. If the limit can't be divided without a
    /// remainder, the same limit in `replicas` times the period. The share is counted by
    /// [`Rate::shared_by`].
    pub(crate) fn shared_by(self, replicas: NonZeroU32) -> Self {
        let burst = share_of_burst(self.burst, replicas);
        match NonZeroU32::new(self.limit.get() / replicas) {
            Some(limit) if limit.get() * replicas.get() == self.limit.get() => {
                Self { limit, burst, ..self }
            }
            _ => Self { burst, period: self.period.saturating_mul(replicas.get()), ..self },
        }
    }

    /// The same quota with another burst, which is not 0.
    pub(super) fn with_burst(self, burst: u32) -> Self {
        Self { burst: NonZeroU32::new(burst).unwrap_or(self.burst), ..self }
    }

    /// One process's share of a quota of requests in flight: one `replicas`th, rounded down, but at
    /// least the cost of one request.
    pub(crate) fn concurrent_share(self, replicas: NonZeroU32, cost: NonZeroU32) -> Self {
        let share = share_of_burst(self.burst, replicas).max(cost);
        Self { limit: share, burst: share, ..self }
    }

    /// `percent` of the limit and of the burst, rounded down, but at least 1.
    pub(crate) fn share(self, percent: u8) -> QuotaBuilder {
        let part = |units: NonZeroU32| {
            let part = u64::from(units.get()) * u64::from(percent) / 100;
            u32::try_from(part).unwrap_or(u32::MAX).max(1)
        };
        Self::per(part(self.limit), self.period).burst(part(self.burst))
    }

    /// The time in which `units` come back, in whole seconds, rounded up. It is computed from the
    /// limit and the period, not from the rounded [`emission_interval`](Self::emission_interval).
    pub(crate) const fn seconds_for(&self, units: u32) -> u64 {
        let nanos = (units as u128 * self.period.as_nanos()).div_ceil(self.limit.get() as u128);
        let seconds = nanos.div_ceil(NANOS_PER_SEC as u128);
        #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
        let seconds = if seconds > u64::MAX as u128 { u64::MAX } else { seconds as u64 };
        seconds
    }
}

/// `500 requests per minute`, where the burst is not shown, or `10 requests at once`.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, period) = (self.limit, self.period);
        let requests = if limit.get() == 1 { "request" } else { "requests" };
        match period {
            SECOND => write!(f, "{limit} {requests} per second"),
            MINUTE => write!(f, "{limit} {requests} per minute"),
            HOUR => write!(f, "{limit} {requests} per hour"),
            DAY => write!(f, "{limit} {requests} per day"),
            Duration::ZERO => write!(f, "{limit} {requests} at once"),
            _ if period.subsec_nanos() == 0 => {
                write!(f, "{limit} {requests} per {} seconds", period.as_secs())
            }
            _ => write!(f, "{limit} {requests} per {period:?}"),
        }
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("limit", &self.limit)
            .field("period", &self.period)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

/// A [`Quota`] that has not been checked yet.
///
/// A [`PolicyBuilder`](crate::policy::PolicyBuilder) takes it unchecked and reports what is wrong
/// with it, so a wrong number from a file is an error and not a panic.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::values::QuotaBuilder;
/// use bolna_rate_limit::{Policy, Quota};
///
/// const CALLS: QuotaBuilder = Quota::per_minute(500).burst(50);
///
/// let policy = Policy::bolna().quota("call", CALLS).build()?;
/// assert_eq!(policy.quota_of(bolna_rate_limit::Endpoint::CALL), CALLS.build().ok());
/// // A quota of other numbers: 3 in 250 ms.
/// assert!(Quota::per(3, Duration::from_millis(250)).build().is_ok());
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a quota does nothing until it is built or given to a policy"]
pub struct QuotaBuilder {
    limit: u32,
    period: Duration,
    burst: Option<u32>,
    /// Whether it limits requests in flight, and the period means nothing.
    concurrent: bool,
}

impl QuotaBuilder {
    /// Sets the number of requests that a full bucket admits at one instant; at least 1. Defaults
    /// to the limit: the smallest burst with which no caller that keeps to the limit is ever
    /// refused. For requests in flight the burst must be the limit.
    pub const fn burst(self, burst: u32) -> Self {
        Self { burst: Some(burst), ..self }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// If the limit, the period or the burst is zero, or if a drained bucket would take longer than
    /// [`Quota::MAX_REFILL_TIME`] to be full again. For requests in flight: if the limit is zero or
    /// above [`Quota::MAX_CONCURRENT`], or if the burst is not the limit.
    pub const fn build(self) -> Result<Quota, QuotaError> {
        let Some(limit) = NonZeroU32::new(self.limit) else {
            return Err(QuotaError::ZeroLimit);
        };
        if self.concurrent {
            return match self.burst {
                Some(burst) if burst != self.limit => Err(QuotaError::BurstOfConcurrent(burst)),
                _ if self.limit > Quota::MAX_CONCURRENT => {
                    Err(QuotaError::TooManyConcurrent(self.limit))
                }
                _ => Ok(Quota { limit, burst: limit, period: Duration::ZERO }),
            };
        }
        if self.period.is_zero() {
            return Err(QuotaError::ZeroPeriod);
        }
        let burst = match self.burst {
            None => limit,
            Some(burst) => match NonZeroU32::new(burst) {
                Some(burst) => burst,
                None => return Err(QuotaError::ZeroBurst),
            },
        };
        let interval = self.period.as_nanos().div_ceil(limit.get() as u128);
        if interval * burst.get() as u128 > Quota::MAX_REFILL_TIME.as_nanos() {
            return Err(QuotaError::TooSlow(self));
        }
        Ok(Quota { limit, burst, period: self.period })
    }
}

impl From<Quota> for QuotaBuilder {
    fn from(quota: Quota) -> Self {
        let (limit, period, burst) = (quota.limit(), quota.period, Some(quota.burst()));
        Self { limit, period, burst, concurrent: quota.is_concurrent() }
    }
}

impl TryFrom<QuotaBuilder> for Quota {
    type Error = QuotaError;

    fn try_from(builder: QuotaBuilder) -> Result<Self, QuotaError> {
        builder.build()
    }
}

/// What is wrong with a quota.
///
/// ```
/// use bolna_rate_limit::Quota;
///
/// let error = Quota::per_day(1).burst(50_000).build().unwrap_err();
/// let text = "limit 1 per 86400s with burst 50000 takes more than 100 years to fill up: \
///             raise the limit, shorten the period or lower the burst";
/// assert_eq!(error.to_string(), text);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaError {
    /// The limit is 0 requests.
    ZeroLimit,
    /// The period is 0 s.
    ZeroPeriod,
    /// The burst is 0 requests.
    ZeroBurst,
    /// A drained bucket would take longer than [`Quota::MAX_REFILL_TIME`] to be full again.
    TooSlow(QuotaBuilder),
    /// A limit of requests in flight was given this burst, which differs from the limit.
    BurstOfConcurrent(u32),
    /// A limit of requests in flight is above [`Quota::MAX_CONCURRENT`].
    TooManyConcurrent(u32),
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroLimit => f.write_str(
                "limit is 0, which would refuse everything for ever: it must be at least 1 request",
            ),
            Self::ZeroPeriod => f.write_str("period is 0 s: it must be at least 1 ns"),
            Self::ZeroBurst => f.write_str(
                "burst is 0, which would refuse everything for ever: it must be at least 1 request",
            ),
            Self::TooSlow(asked) => write!(
                f,
                "limit {} per {:?} with burst {} takes more than 100 years to fill up: \
                 raise the limit, shorten the period or lower the burst",
                asked.limit,
                asked.period,
                asked.burst.unwrap_or(asked.limit),
            ),
            Self::BurstOfConcurrent(burst) => write!(
                f,
                "burst is {burst}: a limit of requests in flight has no burst of its own; leave \
                 the burst out",
            ),
            Self::TooManyConcurrent(limit) => write!(
                f,
                "limit is {limit} requests in flight: it must be at most {}; leave out a limit \
                 that no caller can reach",
                Quota::MAX_CONCURRENT,
            ),
        }
    }
}

impl Error for QuotaError {}
