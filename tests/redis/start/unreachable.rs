use std::error::Error;
use std::time::{Duration, Instant};

use bolna_rate_limit::store::RedisStoreErrorKind as Kind;

use super::{
    KEY, LEFT_AFTERWARDS, LEFT_BY_REPLICA, LEFT_BY_SERVER, acme, assert_counts, assert_refused,
    connect_degraded, lost, refusal, request, store, until_regained,
};
use crate::servers::{Mode, Proxy, Server, until, when};
use crate::support::charged;

const TIMEOUT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let server = Server::start().await;
    server.kill();
    let refused = refusal(store(server.url())).await;
    assert_refused(
        &refused,
        Kind::Unreachable,
        &[&format!("127.0.0.1:{}", server.port()), "refused"],
    );
    server.restart().await;
    assert_counts(store(server.url())).await;
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_named() {
    // `.invalid` is reserved for names that do not exist.
    let refused =
        refusal(store("redis://redis.invalid:6379").connect_timeout(Duration::from_secs(20))).await;
    assert_refused(&refused, Kind::Unreachable, &["redis.invalid:6379"]);
}

#[tokio::test]
async fn a_server_that_is_silent_is_waited_for_no_longer_than_the_connect_timeout() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    proxy.set(Mode::Blackhole);
    let began = Instant::now();
    let refused = refusal(store(proxy.url()).connect_timeout(TIMEOUT)).await;
    assert_refused(
        &refused,
        Kind::Unreachable,
        &[&format!("127.0.0.1:{}", proxy.port()), "within 200ms"],
    );
    assert!((TIMEOUT..25 * TIMEOUT).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_wants_to_starts_without_a_server_and_counts_on_it_once_it_is_there() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    for mode in [Mode::Refuse, Mode::Blackhole] {
        server.command::<()>(&["FLUSHALL"]).await.unwrap();
        proxy.set(mode);
        let began = Instant::now();
        let (limiter, events) = connect_degraded(store(proxy.url()).connect_timeout(TIMEOUT)).await;
        assert!(began.elapsed() < 25 * TIMEOUT, "{mode:?}: {:?}", began.elapsed());
        assert_eq!(lost(&events).0, "unreachable");
        assert_eq!(request(&limiter, &acme()).await, LEFT_BY_REPLICA, "{mode:?}");

        proxy.set(Mode::Pass);
        until_regained(&events).await;
        // What was admitted without the server is charged to it, with or without a request.
        until("it is charged", async || when(charged(&server, KEY).await == 1, KEY)).await;
        assert_eq!(request(&limiter, &acme()).await, LEFT_AFTERWARDS, "{mode:?}");
        assert_eq!(charged(&server, KEY).await, 2);
        assert_eq!(events.all().len(), 2, "{:?}", events.all());
    }
}

#[tokio::test]
async fn a_server_that_starts_after_the_replica_counts() {
    let server = Server::start().await;
    server.kill();
    let (limiter, events) = connect_degraded(store(server.url())).await;
    assert_eq!(request(&limiter, &acme()).await, LEFT_BY_REPLICA);
    server.restart().await;
    until_regained(&events).await;
    assert_eq!(request(&limiter, &acme()).await, LEFT_AFTERWARDS);
}

#[tokio::test]
async fn without_a_fallback_it_starts_too_and_every_request_is_an_error_at_first() {
    let server = Server::start().await;
    server.kill();
    let (limiter, events) = connect_degraded(store(server.url()).without_fallback()).await;
    let error = limiter.check(&acme().into(), "/").unwrap().wait().await.unwrap_err();
    let reason = error.source().unwrap().to_string();
    assert!(reason.contains("no connection to the server"), "{reason}");
    server.restart().await;
    until_regained(&events).await;
    assert_eq!(request(&limiter, &acme()).await, LEFT_BY_SERVER);
}
