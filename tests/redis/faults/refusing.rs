//! Servers that answer with an error.

use std::time::{Duration, Instant};

use super::{Fleet, HOURLY, MINUTELY, WHO};
use crate::servers::{Server, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_memory_is_full_is_lost_until_it_has_more() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    server.command::<()>(&["SET", "filler", &"x".repeat(4 << 20)]).await.unwrap();
    let limit =
        async |bytes| server.command::<()>(&["CONFIG", "SET", "maxmemory", bytes]).await.unwrap();
    let lost = fleet.outage(async || limit("3mb").await, async || limit("100mb").await).await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["out_of_memory"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_somebodys_endless_script_is_lost_until_that_is_killed() {
    let server = Server::with_args(&["--lua-time-limit", "50"]).await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let mut somebody = server.connection().await.unwrap();
    let endless = async || {
        tokio::spawn(async move {
            let mut endless = redis::cmd("EVAL");
            endless.arg("while true do end").arg(0);
            endless.query_async::<()>(&mut somebody).await
        });
    };
    let kill = async || {
        until("the script is killed", async || {
            Ok(server.command::<()>(&["SCRIPT", "KILL"]).await?)
        })
        .await;
    };
    let lost = fleet.outage(endless, kill).await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["busy", "unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_the_script_is_told_it_again_and_nobody_notices() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    // Slow enough that many requests are admitted between one flush and the next.
    let traffic = fleet.send_every(Duration::from_millis(20), &WHO);
    let (began, texts) = (Instant::now(), server.calls_of("eval").await);
    while began.elapsed() < Duration::from_secs(1) {
        server.command::<()>(&["SCRIPT", "FLUSH"]).await.unwrap();
    }
    traffic.until_drained().await;
    assert!(server.calls_of("eval").await > texts + 10);
    traffic.stop().await.is_exactly_one_burst();
    fleet.has_told_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_made_a_replica_is_lost_until_it_is_a_primary_again() {
    let (server, other) = (Server::start().await, Server::start().await);
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    // The primary that it follows is down, so that the server keeps its data.
    other.kill();
    let port = other.port().to_string();
    let follow = async |host, port| server.command::<()>(&["REPLICAOF", host, port]).await.unwrap();
    let lost = fleet
        .outage(async || follow("127.0.0.1", &port).await, async || follow("NO", "ONE").await)
        .await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["read_only"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_loses_a_permission_is_lost_until_he_has_it_again() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let user =
        async |rule| server.command::<()>(&["ACL", "SETUSER", "default", rule]).await.unwrap();
    let lost = fleet.outage(async || user("-set").await, async || user("+set").await).await;
    fleet.counts_on(&server).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["missing_permission"]);
}
