//! Numbers on request.

use crate::store::StoreReport;
use crate::values::Enforcement;

/// The numbers of a limiter and its store now. See [`Limiter::report`](crate::Limiter::report).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// On which principals the limiter enforces limits, by whatever policy.
    pub enforcement: Enforcement,
    /// The numbers of the store.
    pub store: StoreReport,
}

impl Report {
    pub(crate) const fn new(enforcement: Enforcement, store: StoreReport) -> Self {
        Self { enforcement, store }
    }
}
