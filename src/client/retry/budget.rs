//! How many retries all requests may make together.

use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};

/// A budget that all clones of a policy draw on.
pub(super) type SharedBudget = Box<dyn Budget + Send + Sync>;

/// 500 retries in ten seconds, and one more for every five requests that are not refused in them.
///
/// In [`TpsBudget`]'s units a retry takes 5 and a request gives 1, with 50 * 10 * 5 in reserve: 500
/// retries. Both are forgotten after 10 to 11 s.
pub(super) fn default_budget() -> SharedBudget {
    Box::new(TpsBudget::new(Duration::from_secs(10), 50, 0.2))
}
