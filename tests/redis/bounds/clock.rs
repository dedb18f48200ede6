//! A server's clock that is set back.

use crate::outages::clock::{A_SECOND, step};
use crate::support::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_back_by_a_second_or_an_hour_costs_a_caller_hardly_anything() {
    for millis in [900, 5000, 3_600_000] {
        let [first, then] = step(|url| store(url), -1000 * millis).await;
        println!("set back by {millis} ms: {first} in the first second, {then} in the next two");
        // A tenth less is allowed, since requests come late on a busy machine.
        assert!(first >= A_SECOND * 9 / 10 && then >= A_SECOND * 18 / 10, "{first} {then}");
    }
}
