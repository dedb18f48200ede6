//! Proxies between the store and its servers.

use bolna_rate_limit::store::StoreEvent;

use super::assert_exact;
use crate::servers::{Haproxy, Server, Twemproxy, until, when};
use crate::support::{buckets, organization, store};

#[tokio::test]
async fn haproxy() {
    let server = Server::start().await;
    let proxy = Haproxy::to(&[&server]).await;
    assert_exact(store(proxy.url())).await;
}

#[tokio::test]
async fn haproxy_that_goes_over_to_another_primary() {
    let [primary, replica] = Server::with_replica().await;
    let proxy = Haproxy::to(&[&primary, &replica]).await;
    let limits = assert_exact(store(proxy.url())).await;
    primary.kill();
    replica.command::<()>(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    until("the server is regained", async || {
        let events = limits.events.all();
        when(
            matches!(events[..], [StoreEvent::Lost { .. }, .., StoreEvent::Regained { .. }]),
            events,
        )
    })
    .await;
    // The second primary has the charges of the first one.
    assert!(!limits.check(&organization("acme")).await.is_allowed());
}

#[tokio::test]
async fn twemproxy() {
    let servers = [Server::start().await];
    let proxy = Twemproxy::to(&servers).await;
    assert_exact(store(proxy.url())).await;
}

#[tokio::test]
async fn twemproxy_before_several_servers() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let proxy = Twemproxy::to(&servers).await;
    let limits = assert_exact(store(proxy.url())).await;
    for number in 0..30 {
        // The number comes first: the proxy's hash hardly mixes in the last characters of a key,
        // so that all buckets could be on one server.
        limits.check(&organization(&format!("{number}-org"))).await;
    }
    let mut counts = Vec::new();
    for server in &servers {
        counts.push(buckets(server).await.len());
    }
    assert_eq!(counts.iter().sum::<usize>(), 31, "{counts:?}");
    assert!(!counts.contains(&0), "the keys of different principals are spread: {counts:?}");
    assert_eq!(limits.events.all(), []);
}
