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
    /// The numbers of the store.
    pub store: StoreReport,
}

impl Report {
    pub(crate) const fn new(enforcement: Enforcement, store: StoreReport) -> Self {
        Self { enforcement, store }
    }
}
