//! The report of a limiter.

use crate::store::StoreReport;
use crate::values::Enforcement;

/// The current numbers of a limiter and its store, for metrics or for a status page.
///
/// ```
/// use bolna_rate_limit::{Account, Enforcement, Limiter};
///
/// let limiter = Limiter::default();
/// let _ruling = limiter.check_now(&Account::user("u-17"), "/call");
///
/// let report = limiter.report();
/// assert_eq!(report.enforcement, Enforcement::FULL);
/// assert_eq!(report.store.buckets, 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// On which principals the limiter enforces limits, whatever the policy.
    pub enforcement: Enforcement,
    /// How many places are taken in all limits of
    /// [requests in flight](crate::policy::PolicyBuilder::concurrent), those of a candidate
    /// included. A request takes as many as it costs, in each such limit.
    pub in_flight: u64,
    /// How many refund commands for single requests the store has taken since the limiter was made:
    /// by a [refund](crate::limiter::Admission::refund), or by a settlement downwards. A request
    /// that was charged to a candidate's buckets too needs one more, and so does one that gets more
    /// than a burst back.
    pub refunds: u64,
    /// How many commands to charge more for single requests, by
    /// [settlements](crate::limiter::Admission::settle) upwards, the store has taken since the
    /// limiter was made. A request that was charged to a candidate's buckets too needs one more.
    pub settlements: u64,
    /// How many of both commands were lost since the limiter was made, because the store did not
    /// take them. What a `RedisStore` had no room for is in
    /// [`lost_corrections`](StoreReport::lost_corrections) too, so do not add the two.
    pub failed_corrections: u64,
    /// The numbers of the store.
    pub store: StoreReport,
}

impl Report {
    pub(crate) fn new(enforcement: Enforcement, store: StoreReport) -> Self {
        Self { enforcement, store, ..Self::default() }
    }
}
