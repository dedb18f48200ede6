//! A server that is well is regained at once.

use std::time::Duration;

use crate::outages::connections::{cuts, herd, stalls};
use crate::support::store;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_is_made_again_at_once_even_after_an_outage() {
    let lost = cuts(|url| store(url), 2 * SECOND, SECOND / 2, 5).await;
    println!("{lost:?}");
    assert!(lost[0] >= SECOND, "{lost:?}");
    assert!(lost[1..].iter().all(|lost| *lost < SECOND / 2), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stalls_is_regained_at_once_if_it_was_well_for_a_second() {
    let lost = stalls(|url| store(url).deadline(SECOND / 40), SECOND, SECOND * 5 / 4, 3).await;
    println!("{lost:?}");
    assert!(lost[1..].iter().all(|lost| *lost < SECOND / 2), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stores_come_back_within_two_seconds_and_without_a_flood() {
    let herd = herd(|url| store(url), 100, 3).await;
    println!("{herd:?}");
    assert!(herd.back < 2 * SECOND, "{herd:?}");
    // The attempts of one store begin 0, 50, 150, 350, 600 and 850 ms after the loss or later, and
    // then four times a second at most.
    assert!(herd.attempts[0] <= 600, "{herd:?}");
    assert!(herd.attempts[1..].iter().all(|attempts| *attempts <= 400), "{herd:?}");
    assert!(herd.connections <= 400, "{herd:?}");
}
