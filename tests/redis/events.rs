//! The events that an operator receives.

use bolna_rate_limit::store::{Store, StoreEvent, StoreListener};

use crate::servers::{Mode, Proxy, Server, until, when};
use crate::support::{Events, Replica, organization, slow, store};

#[tokio::test]
async fn a_server_that_is_still_lost_for_another_reason_is_told_of() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    proxy.set(Mode::Cut);
    let replica = Replica::connect(store(proxy.url()).start_degraded(), slow(5)).await;
    // Once at the start, and then in the background.
    until("it is tried again", async || when(proxy.accepted() >= 3, proxy.accepted())).await;
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    proxy.set(Mode::Pass);
    let changed = |events: &Events| {
        matches!(events.all().last(), Some(StoreEvent::StillLost { kind: "read_only", .. }))
    };
    until("it is told of", async || when(changed(&replica.events), replica.events.all())).await;
    assert_eq!(replica.events.all().len(), 2, "{:?}", replica.events.all());
}

#[tokio::test]
async fn a_listener_that_panics_does_not_keep_the_server_from_being_regained() {
    let server = Server::start().await;
    // `eprintln!` panics like this when its output is closed.
    let store = store(server.url()).connect().await.unwrap();
    store.subscribe(StoreListener::new(|event| panic!("{event}")));
    let limiter = bolna_rate_limit::Limiter::with_store(slow(5), store)
        .expect("the store can do what the policy asks for");
    let by_server = async || {
        let decision = limiter.check(&organization("o").into(), "/").unwrap().wait().await.unwrap();
        let decision = *decision.decision().unwrap();
        decision.quota().burst() == 5
    };
    assert!(by_server().await);
    server.kill();
    until("it is lost", async || when(!by_server().await, "asked")).await;
    server.restart().await;
    until("it is regained", async || when(by_server().await, "not asked")).await;
}
