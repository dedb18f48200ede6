//! Networks that swallow, delay and cut.

use std::time::Duration;

use bolna_rate_limit::store::StoreEvent;

use super::{Fleet, HOURLY, MINUTELY, WHO};
use crate::servers::{Mode, Proxy, Server};

async fn fault(mode: Mode) {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let fleet = Fleet::on(proxy.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let lost = fleet.outage(async || proxy.set(mode), async || proxy.set(Mode::Pass)).await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything() {
    fault(Mode::Blackhole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_cuts_every_connection() {
    fault(Mode::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_refuses_every_connection() {
    fault(Mode::Refuse).await;
}

/// The delay of both ways is one and a half times the deadline, and connecting is still possible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_slower_than_the_deadline_is_lost_once_and_not_tried_on_requests() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let fleet = Fleet::on(proxy.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let slow = async || {
        proxy.set(Mode::Delay(Duration::from_millis(150)));
        fleet.until_lost().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let lost = fleet.outage(slow, async || proxy.set(Mode::Pass)).await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_slow_within_the_deadline_changes_nothing() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let fleet = Fleet::on(proxy.url(), HOURLY).await;
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    traffic.stop().await.is_exactly_one_burst();
    fleet.has_told_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_closes_are_made_anew() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    for kills in 1..=3 {
        server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
        fleet
            .until("all have regained the server", |replica| replica.events().len() == 2 * kills)
            .await;
    }
    fleet.counts_on(&server).await;
    traffic.stop().await.is_one_burst_on_the_server();
    for replica in &fleet.replicas {
        let events = replica.events();
        let alternate = |pair: &[StoreEvent]| {
            matches!(pair, [StoreEvent::Lost { .. }, StoreEvent::Regained { .. }])
        };
        assert!(events.chunks(2).all(alternate), "{events:?}");
    }
}
