//! A server's clock that is set back.

use crate::outages::clock::{A_SECOND, step};
use crate::support::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_a_second_of_five_and_of_an_hour_cost_hardly_anything() {
    for millis in [900, 5000, 3_600_000] {
        let [first, then] = step(|url| store(url), -1000 * millis).await;
        println!("set back by {millis} ms: {first} in the first second, {then} in the next two");
        // A tenth is for what a busy machine does not ask for.
        assert!(first >= A_SECOND * 9 / 10 && then >= A_SECOND * 18 / 10, "{first} {then}");
    }
}
