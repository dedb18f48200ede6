//! Servers that stop, and go on or start again.

use std::time::Duration;

use bolna_rate_limit::store::RedisStore;

use super::{BURST, By, Fleet, HOURLY, MINUTELY, WHO, a_while};
use crate::servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_freezes_is_done_without_until_it_thaws() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let lost = fleet.outage(async || server.suspend(), async || server.resume()).await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_thaws_charges_once_what_was_admitted_without_it() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    let traffic = fleet.send_every(Duration::from_millis(10), &WHO);
    traffic.until("some is spent", |who| traffic.admitted(who) >= BURST / 5).await;
    // No request is in flight when the server is suspended, so all units that it charges are
    // charged in time.
    traffic.between_requests(async || server.suspend()).await;
    fleet.until_lost().await;
    a_while().await;
    server.resume();
    fleet.until_regained().await;
    traffic.is_charged_once(&server).await;
    // Every unit that is left on the server can still be spent.
    traffic.until_drained().await;
    traffic.is_charged_once(&server).await;
    let traffic = traffic.stop().await;
    traffic.is_one_burst_and_an_overdraft();
    for who in WHO {
        assert!((1..BURST).contains(&traffic.traffic.granted(who, By::Process)));
    }
    fleet.has_told_once(&["unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_counts_again_when_it_is_started_with_neither_buckets_nor_script() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let lost = fleet.outage(async || server.kill(), async || server.restart().await).await;
    traffic.until_drained().await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(2, lost);
    fleet.has_told_once(&["unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_had_spent_all_gets_nothing_while_the_server_is_down() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    fleet.outage(async || server.suspend(), async || server.resume()).await;
    let traffic = traffic.stop().await;
    traffic.is_one_burst_on_the_server();
    assert!(traffic.traffic.by(By::Process) > 0);
    for who in WHO {
        assert_eq!(traffic.traffic.granted(who, By::Process), 0, "{who}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_at_the_start_is_counted_on_as_soon_as_it_is_up() {
    let server = Server::start().await;
    server.kill();
    let url = server.url();
    let fleet = Fleet::of(HOURLY, || RedisStore::builder(&url).start_degraded()).await;
    fleet.until_lost().await;
    let traffic = fleet.send(&WHO);
    // Each of the two replicas has half of the burst.
    traffic.until("the shares are spent", |who| traffic.granted(who, By::Process) == BURST).await;
    a_while().await;
    server.restart().await;
    fleet.until_regained().await;
    traffic.until_drained().await;
    fleet.counts_on(&server).await;
    traffic.is_charged_once(&server).await;
    traffic.stop().await.is_one_burst_and_an_overdraft();
    fleet.has_told_once(&["unreachable"]);
}

/// The three losses do not add up: what is left on the server decides what is admitted without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_lost_again_and_again_is_overdrawn_once() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    let traffic = fleet.send_every(Duration::from_millis(40), &WHO);
    traffic.until("some is spent", |who| traffic.admitted(who) >= 2).await;
    for _ in 0..3 {
        fleet.outage(async || server.suspend(), async || server.resume()).await;
        traffic.is_charged_once(&server).await;
    }
    traffic.until_drained().await;
    traffic.is_charged_once(&server).await;
    traffic.stop().await.is_one_burst_and_an_overdraft();
}
