//! The budget for the retries of all requests together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};

/// A budget that all clones of a policy share.
pub(super) type SharedBudget = Box<dyn Budget + Send + Sync>;

/// 500 retries in 10 s, and one more for every five requests in that time that are not refused.
pub(super) fn default_budget() -> SharedBudget {
    // In the units of `TpsBudget`, with 1.0 both a withdrawal and a deposit are one retry, and the
    // reserve is `50 * 10`. They expire after 10 to 11 s.
    let retries = TpsBudget::new(Duration::from_secs(10), 50, 1.0);
    Box::new(OneForFive { retries, handled: AtomicUsize::new(0) })
}

/// Deposits a retry with each fifth request. `TpsBudget` can count fifths of a retry itself, but a
/// deposit takes a lock and reads the clock, for each request that is not refused.
struct OneForFive {
    retries: TpsBudget,
    handled: AtomicUsize,
}

impl Budget for OneForFive {
    #[inline]
    fn deposit(&self) {
        if self.handled.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
            self.retries.deposit();
        }
    }

    fn withdraw(&self) -> bool {
        self.retries.withdraw()
    }
}
