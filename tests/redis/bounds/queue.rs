//! Requests that wait for one bucket do not count as failures of the server.

use std::time::Duration;

use crate::outages::queues::{at_one_instant, two_quotas};
use crate::support::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_requests_at_one_instant_admit_exactly_one_burst() {
    // Longer than a busy machine needs for this many requests.
    let patient = |url: &str| store(url).deadline(Duration::from_secs(30));
    let (admitted, report) = at_one_instant(patient, 20_000).await;
    assert_eq!((admitted, report.fallbacks), (500, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_quotas_on_one_bucket_do_not_make_the_server_count_as_lost() {
    let seen = two_quotas(|url| store(url), 30, Duration::from_secs(2)).await;
    println!("{seen:?}");
    assert!(seen.checks > 1000 && seen.of_others > 1000, "{seen:?}");
    assert_eq!((seen.report.fallbacks, seen.report.open_breakers), (0, 0), "{seen:?}");
}
