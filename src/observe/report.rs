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
    /// The requests in flight that limits of
    /// [requests in flight](crate::policy::PolicyBuilder::concurrent) count, of all buckets. One
    /// that two such limits count is counted twice.
    pub in_flight: u64,
    /// How many [refunds](crate::Admission::refund) and settlements downwards of single requests
    /// the store has taken since the limiter was made. One refund of two bursts counts as two.
    pub refunds: u64,
    /// How many [settlements](crate::Admission::settle) upwards of single requests the store has
    /// taken since the limiter was made.
    pub settlements: u64,
    /// How many refunds and settlements of single requests were lost since the limiter was made,
    /// because the store has not taken them.
    pub failed_corrections: u64,
    /// The numbers of the store.
    pub store: StoreReport,
}

impl Report {
    pub(crate) fn new(enforcement: Enforcement, store: StoreReport) -> Self {
        Self { enforcement, store, ..Self::default() }
    }
}
