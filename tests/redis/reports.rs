//! What a store reports about itself: numbers on request, and changes to its subscribers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, RedisStoreBuilder, Store, StoreEvent, StoreListener};
use tokio::task::JoinSet;

use crate::servers::Cluster;
use crate::servers::{Mode, Proxy, Server, until, when};
use crate::support::{Replica, key_of, organization, slow, store};

/// The events that one subscriber has received.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<StoreEvent>>>);

impl Ear {
    fn at(store: &RedisStore) -> Self {
        let ear = Self::default();
        let told = Arc::clone(&ear.0);
        store.subscribe(StoreListener::new(move |event| told.lock().unwrap().push(event.clone())));
        ear
    }

    fn told(&self) -> Vec<StoreEvent> {
        self.0.lock().unwrap().clone()
    }

    fn is_told_lost(&self) -> bool {
        matches!(self.told().last(), Some(StoreEvent::Lost { .. } | StoreEvent::StillLost { .. }))
    }

    fn is_told_regained(&self) -> bool {
        matches!(self.told().last(), Some(StoreEvent::Regained { .. }))
    }

    /// Losses and their ends, each with the port of its server, without events that only change the
    /// reason of a loss.
    fn of_ports(&self) -> Vec<(bool, u16)> {
        let port = |server: &Option<Arc<str>>| {
            server.as_ref().unwrap().rsplit(':').next().unwrap().parse().unwrap()
        };
        let of_port = |event: &StoreEvent| match event {
            StoreEvent::Lost { server, .. } => Some((true, port(server))),
            StoreEvent::Regained { server } => Some((false, port(server))),
            _ => None,
        };
        self.told().iter().filter_map(of_port).collect()
    }
}

async fn connect(builder: RedisStoreBuilder) -> Replica {
    Replica::connect(builder, slow(5)).await
}

#[tokio::test]
async fn a_server_that_is_killed_is_told_of_and_what_is_decided_without_it_is_counted() {
    let server = Server::start().await;
    let replica = connect(store(server.url())).await;
    let store = replica.limiter.store();
    let early = [Ear::at(store), Ear::at(store)];
    let caller = organization("o");
    // Two requests, because one unit is less than the other replica's share of the burst.
    for _ in 0..2 {
        replica.check(&caller).await;
    }
    let healthy = store.report();
    assert_eq!((healthy.buckets, healthy.fallbacks, healthy.failures.len()), (1, 0, 0));
    assert_eq!((healthy.breakers, healthy.open_breakers, healthy.max_buckets), (1, 0, None));

    server.kill();
    until("it is lost", async || when(early.iter().all(Ear::is_told_lost), early[0].told())).await;
    until("its breaker is open", async || when(store.report().open_breakers == 1, store.report()))
        .await;
    let before = store.report();
    for _ in 0..10 {
        replica.check(&caller).await;
    }
    let lost = store.report();
    assert_eq!(lost.fallbacks, before.fallbacks + 10);
    assert_eq!(lost.failures.values().sum::<u64>(), lost.fallbacks);
    assert_eq!(lost.failures["lost"], before.failures.get("lost").unwrap_or(&0) + 10);

    let late = Ear::at(store);
    assert!(late.is_told_lost() && late.told().len() == 1, "{:?}", late.told());
    let text = late.told()[0].to_string();
    let address = format!("127.0.0.1:{}", server.port());
    assert_eq!(text.matches(&address).count(), 1, "{text}");

    server.restart().await;
    let ears = [&early[0], &early[1], &late];
    until("it is regained", async || {
        when(ears.iter().all(|ear| ear.is_told_regained()), late.told())
    })
    .await;
    let port = server.port();
    for ear in ears {
        assert_eq!(ear.of_ports(), [(true, port), (false, port)], "{:?}", ear.told());
    }
    assert_eq!(Ear::at(store).told(), [], "nothing stands any more");
    replica.check(&caller).await;
    let regained = store.report();
    assert_eq!((regained.open_breakers, regained.fallbacks), (0, lost.fallbacks));
    assert_eq!(regained.failures, lost.failures);
}

#[tokio::test]
async fn whoever_subscribes_to_a_store_that_has_started_without_its_server_is_told_so() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    proxy.set(Mode::Refuse);
    let replica = connect(store(proxy.url()).start_degraded()).await;
    let ear = Ear::at(replica.limiter.store());
    assert!(ear.is_told_lost());
    proxy.set(Mode::Pass);
    until("it is regained", async || when(ear.is_told_regained(), ear.told())).await;
    assert_eq!(ear.told().len(), 2);
}

#[tokio::test]
async fn a_key_that_holds_no_bucket_is_counted_as_such() {
    let server = Server::start().await;
    let replica = connect(store(server.url())).await;
    let ear = Ear::at(replica.limiter.store());
    server.command::<()>(&["LPUSH", &key_of("o"), "foreign"]).await.unwrap();
    for _ in 0..3 {
        replica.check(&organization("o")).await;
    }
    replica.left(&organization("o")).await;
    replica.check(&organization("other")).await;
    let report = replica.limiter.store().report();
    assert_eq!((report.fallbacks, report.failures), (3, [("foreign_key", 4)].into()));
    assert_eq!((report.open_breakers, ear.told().len()), (0, 0));
}

#[tokio::test]
async fn an_error_about_a_key_does_not_say_whose_it_is() {
    let server = Server::start().await;
    let store = store(server.url()).without_fallback().connect().await.unwrap();
    let limiter = bolna_rate_limit::Limiter::with_store(slow(5), store)
        .expect("the store can do what the policy asks for");
    server.command::<()>(&["LPUSH", &key_of("customer"), "foreign"]).await.unwrap();
    let error =
        limiter.check(&organization("customer").into(), "/").unwrap().wait().await.unwrap_err();
    let text = error.to_string();
    let keys = key_of("customer").replace("customer", "*");
    assert!(text.contains(&format!("a key {keys} holds something that is no bucket")), "{text}");
    assert!(!format!("{text} {error:?}").contains("customer"), "{text} {error:?}");
}

#[tokio::test]
async fn those_for_whom_there_is_no_room_and_those_who_get_no_answer_are_counted_as_such() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let replica = connect(store(proxy.url()).max_in_flight(3)).await;
    proxy.set(Mode::Blackhole);
    let mut checks = JoinSet::new();
    for number in 0..10 {
        let replica = replica.clone();
        checks.spawn(async move { replica.check(&organization(&number.to_string())).await });
    }
    checks.join_all().await;
    let report = replica.limiter.store().report();
    assert_eq!(
        (report.fallbacks, report.failures),
        (10, [("no_answer", 3), ("too_many", 7)].into())
    );
    assert_eq!(report.open_breakers, 0);
    proxy.set(Mode::Pass);
}

#[tokio::test]
async fn the_cap_of_local_buckets_is_told_of_and_what_is_refused_is_remembered() {
    let server = Server::start().await;
    let replica = connect(store(server.url()).max_local_buckets(10)).await;
    let ear = Ear::at(replica.limiter.store());
    assert_eq!(replica.drain(&organization("drained")).await, 5);
    assert_eq!(replica.limiter.store().report().remembered_denials, 1);
    for number in 0..10 {
        assert_eq!(replica.drain(&organization(&number.to_string())).await, 5);
    }
    assert_eq!(ear.told(), [StoreEvent::CapReached { max_buckets: 10 }]);
    let report = replica.limiter.store().report();
    assert_eq!((report.buckets, report.max_buckets, report.remembered_denials), (10, Some(10), 11));
}

#[tokio::test]
async fn without_fallback_failures_are_the_callers_and_say_what_kind_they_are() {
    let server = Server::start().await;
    let store = store(server.url()).without_fallback().connect().await.unwrap();
    let ear = Ear::at(&store);
    let limiter = bolna_rate_limit::Limiter::with_store(slow(5), store)
        .expect("the store can do what the policy asks for");
    server.command::<()>(&["LPUSH", &key_of("o"), "foreign"]).await.unwrap();
    let kind = async || {
        let answer = limiter.check(&organization("o").into(), "/").unwrap().wait().await;
        answer.map_or_else(|error| error.kind(), |_| "none")
    };
    assert_eq!(kind().await, "foreign_key");
    server.kill();
    until("it is lost", async || when(ear.is_told_lost(), ear.told())).await;
    until("it is not asked", async || when(kind().await == "lost", kind().await)).await;
    let report = limiter.store().report();
    assert_eq!((report.fallbacks, report.failures.len(), report.open_breakers), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cluster_each_primary_has_a_breaker_and_its_successor_ends_its_loss() {
    let cluster = Cluster::with_replicas().await;
    for node in cluster.nodes() {
        node.command::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])
            .await
            .unwrap();
    }
    let builder = RedisStore::cluster(cluster.urls()).deadline(Duration::from_millis(300));
    let replica = connect(builder).await;
    let store = replica.limiter.store();
    let early = Ear::at(store);
    assert_eq!((store.report().breakers, store.report().open_breakers), (3, 0));
    let (old, new) = (&cluster.nodes()[0], &cluster.nodes()[3]);
    old.kill();
    // Its successor may count already.
    until("it is lost", async || when(!early.told().is_empty(), early.told())).await;
    let late = Ear::at(store);
    // The late subscriber may have come just before the time of the successor, or just after it.
    let is_over = || early.is_told_regained() && !late.is_told_lost();
    until("its successor counts", async || when(is_over(), early.told())).await;
    let told = [(true, old.port()), (false, new.port())];
    assert_eq!(early.of_ports(), told, "{:?}", early.told());
    assert!(late.told().is_empty() || late.of_ports() == told, "{:?}", late.told());
    assert_eq!(Ear::at(store).told(), [], "nothing stands any more");
    until("all count", async || when(store.report().open_breakers == 0, store.report())).await;
    assert_eq!(store.report().breakers, 3);
}

#[tokio::test]
async fn without_fallback_no_bucket_is_kept_in_this_process() {
    let server = Server::start().await;
    let replica = connect(store(server.url()).without_fallback()).await;
    assert_eq!(replica.drain(&organization("acme")).await, 5);
    assert_eq!(replica.limiter.store().report().buckets, 0);
}
