//! Losses that only a part of the replicas sees.

use std::time::Duration;

use super::losses::ARGS;
use crate::outages::replicas::Replicas;
use crate::servers::{Mode, Proxy, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_replicas_is_cut_off_for_two_seconds() {
    let server = Server::start().await;
    let (url, proxy) = (server.url(), Proxy::to(server.port()));
    let replicas = Replicas::start_each(&ARGS, [&proxy.url(), &url, &url]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.set(Mode::Refuse);
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set(Mode::Pass);
    replicas.until_regained().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let record = replicas.stop();
    let lost = record.losses().into_iter().max().unwrap();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&lost), "{record}");
    assert!(record.longest_apart() >= lost / 3, "{record}");
    // In addition it admits its share of a burst.
    record.is_within(1.0 + 1.0 / 3.0);
}
