//! Requests that wait for one bucket are no fault of the server.

use std::time::Duration;

use crate::outages::queues::{at_one_instant, two_quotas};
use crate::support::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_thousand_requests_at_one_instant_as_many_are_admitted_as_the_bucket_holds() {
    // Longer than the machine takes for so many.
    let patient = |url: &str| store(url).deadline(Duration::from_secs(30));
    let (admitted, report) = at_one_instant(patient, 20_000).await;
    assert_eq!((admitted, report.fallbacks), (500, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_quotas_on_one_bucket_harm_no_one() {
    let seen = two_quotas(|url| store(url), 30, Duration::from_secs(2)).await;
    println!("{seen:?}");
    assert!(seen.checks > 1000 && seen.of_others > 1000, "{seen:?}");
    assert_eq!((seen.report.fallbacks, seen.report.open_breakers), (0, 0), "{seen:?}");
}
