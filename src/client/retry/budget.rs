//! The budget for the retries of all requests together.

use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};

/// A budget that all clones of a policy share.
pub(super) type SharedBudget = Box<dyn Budget + Send + Sync>;

/// 500 retries in 10 s, and one more for every five requests in that time that are not refused.
///
/// In the units of [`TpsBudget`], a retry withdraws 5, a request deposits 1, and the reserve is
/// `50 * 10 * 5`, which is 500 retries. Withdrawals and deposits expire after 10 to 11 s.
pub(super) fn default_budget() -> SharedBudget {
    Box::new(TpsBudget::new(Duration::from_secs(10), 50, 0.2))
}
