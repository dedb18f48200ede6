//! Losses that all replicas see.

use std::time::Duration;

use crate::outages::faults::{kill_clients, naps, one_that_naps, stop_and_go};
use crate::outages::replica;
use crate::outages::replicas::{Record, Replicas};
use crate::servers::{Sentinels, Server};

/// The test that makes this program a replica.
pub(super) const ARGS: [&str; 3] = ["bounds::losses::a_replica", "--exact", "--nocapture"];

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Does nothing but in the processes that the other tests start.
#[test]
fn a_replica() {
    let _ = replica::run_if_asked();
}

async fn start(url: &str) -> Replicas {
    let replicas = Replicas::start(&ARGS, url).await;
    // By then all buckets have been drained, and those of callers that pause are full again.
    tokio::time::sleep(SECOND).await;
    replicas
}

async fn end(replicas: Replicas) -> Record {
    replicas.until_regained().await;
    // If the server's buckets hold more units than they should, these are admitted now, and
    // counted.
    tokio::time::sleep(SECOND).await;
    replicas.stop()
}

async fn stopped_in_turn(stopped: Duration, between: Duration) -> Record {
    let server = Server::start().await;
    let replicas = start(&server.url()).await;
    stop_and_go(&server, stopped, between, 7 * SECOND).await;
    end(replicas).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_for_50_ms_again_and_again() {
    let record = stopped_in_turn(50 * MILLI, 150 * MILLI).await;
    assert!(record.fallbacks() > 0);
    record.is_within(2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_for_200_ms_again_and_again() {
    let record = stopped_in_turn(200 * MILLI, 500 * MILLI).await;
    assert!(record.losses().len() >= 3, "{record}");
    record.is_within(2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_for_a_second_again_and_again() {
    let record = stopped_in_turn(SECOND, 500 * MILLI).await;
    assert!(record.losses().len() >= 3, "{record}");
    record.is_within(2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_for_3_s_twice() {
    let record = stopped_in_turn(3 * SECOND, 500 * MILLI).await;
    assert!(record.losses().len() >= 3, "{record}");
    record.is_within(2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_naps() {
    let server = one_that_naps().await;
    let replicas = start(&server.url()).await;
    naps(&server, 7 * SECOND).await;
    let record = end(replicas).await;
    assert!(record.fallbacks() > 0);
    record.is_within(2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_all_connections_five_times() {
    let server = Server::start().await;
    let replicas = start(&server.url()).await;
    kill_clients(&server, 5, 300 * MILLI).await;
    let record = end(replicas).await;
    assert!(record.losses().len() >= 3, "{record}");
    record.is_within(2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_replaced() {
    let sentinels = Sentinels::start().await;
    let hosts: Vec<_> = sentinels.urls().iter().map(|url| url.replace("redis://", "")).collect();
    let url = format!("redis+sentinel://{}/{}", hosts.join(","), sentinels.service());
    let replicas = start(&url).await;
    sentinels.failover().await;
    let record = end(replicas).await;
    assert!(record.losses().len() >= 3, "{record}");
    // The successor has a full bucket at most.
    record.is_within(2.0);
}
