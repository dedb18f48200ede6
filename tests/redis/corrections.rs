//! Refunds and settlements that are submitted, without waiting for the reply.

use std::time::Duration;

use bolna_rate_limit::store::{
    Bucket, Charge, Command, Entry, RedisStore, RedisStoreBuilder, Store, StoreError, StoreEvent,
};
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Principal, Quota};

use crate::servers::{Cluster, Mode, Proxy, Server, until, when};
use crate::support::{
    DEADLINE, Events, Replica, charged, key_of, once_an_hour, organization, patient, slow, store,
};

const BURST: u32 = 100;

fn units(units: u32) -> Entry {
    Entry::new(Endpoint::DEFAULT, once_an_hour(BURST)).with_cost(units).unwrap()
}

fn refund(store: &impl Store, who: &Principal, cost: u32) -> Result<(), StoreError> {
    store.submit(Command::Refund(Charge::of_one(who, &units(cost))))
}

fn settle(store: &impl Store, who: &Principal, cost: u32) -> Result<(), StoreError> {
    store.submit(Command::Settle(Charge::of_one(who, &units(cost))))
}

/// A replica without a share of its own, so that nothing is owed.
fn strict(url: &str) -> RedisStoreBuilder {
    store(url).without_fallback()
}

impl Replica {
    async fn is_lost(&self) {
        let is_lost = async || when(self.report().open_breakers > 0, self.report());
        until("the server is lost", is_lost).await;
    }

    /// All that was submitted has arrived, and what is owed was charged.
    async fn has_corrected(&self) {
        let done = async || {
            let report = self.report();
            when((report.waiting_corrections, report.owed) == (0, 0), report)
        };
        until("all has arrived", done).await;
    }

    fn report(&self) -> bolna_rate_limit::store::StoreReport {
        self.limiter.store().report()
    }
}

#[tokio::test]
async fn what_is_submitted_arrives() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(BURST)).await;
    let store = replica.limiter.store();
    for number in 0..50 {
        let caller = organization(&format!("o-{number}"));
        for _ in 0..3 {
            assert!(replica.check(&caller).await.is_allowed());
        }
        refund(store, &caller, 2).unwrap();
        settle(store, &caller, 40).unwrap();
    }
    replica.has_corrected().await;
    for number in 0..50 {
        assert_eq!(charged(&server, &key_of(&format!("o-{number}"))).await, 41);
    }
    assert_eq!(replica.report().lost_corrections, 0);
    assert!(replica.events.all().is_empty());
}

#[tokio::test]
async fn a_refund_comes_before_the_requests_that_follow_it() {
    let server = Server::start().await;
    let (replica, caller) = (Replica::on(&server, slow(2)).await, organization("o"));
    let entry = Entry::new(Endpoint::DEFAULT, once_an_hour(2));
    for _ in 0..20 {
        assert_eq!(replica.drain(&caller).await, 2);
        for _ in 0..2 {
            let store = replica.limiter.store();
            store.submit(Command::Refund(Charge::of_one(&caller, &entry))).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_submitted_from_a_thread_without_a_runtime_arrives() {
    let server = Server::start().await;
    let (replica, caller) = (Replica::on(&server, slow(BURST)).await, organization("o"));
    replica.check(&caller).await;
    let limiter = replica.limiter.clone();
    std::thread::spawn(move || refund(limiter.store(), &organization("o"), 1).unwrap())
        .join()
        .unwrap();
    replica.has_corrected().await;
    assert_eq!(charged(&server, &key_of("o")).await, 0);
}

#[tokio::test]
async fn what_is_submitted_while_the_server_is_lost_arrives_once_when_it_is_back() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    for (url, is_strict) in [(proxy.url(), false), (proxy.url(), true)] {
        let name = format!("strict-{is_strict}");
        let (builder, caller) = (store(&url), organization(&name));
        let builder = if is_strict { builder.without_fallback() } else { builder };
        let replica = Replica::connect(builder, slow(BURST)).await;
        let store = replica.limiter.store();
        for _ in 0..10 {
            replica.check(&caller).await;
        }
        proxy.set(Mode::Refuse);
        proxy.cut();
        replica.is_lost().await;
        for _ in 0..3 {
            refund(store, &caller, 2).unwrap();
        }
        settle(store, &caller, 20).unwrap();
        let report = replica.report();
        // A settlement is owed as what is admitted here. Without a fallback it waits.
        let waiting = if is_strict { (2, 0) } else { (1, 1) };
        assert_eq!((report.waiting_corrections, report.owed), waiting);
        assert_eq!(charged(&server, &key_of(&name)).await, 10);
        proxy.set(Mode::Pass);
        replica.has_corrected().await;
        assert_eq!(charged(&server, &key_of(&name)).await, 24);
        assert_eq!(replica.report().lost_corrections, 0);
    }
}

#[tokio::test]
async fn units_that_were_admitted_without_the_server_are_given_back_once() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let (replica, caller) =
        (Replica::connect(store(proxy.url()), slow(BURST)).await, organization("o"));
    let store = replica.limiter.store();
    for _ in 0..5 {
        replica.check(&caller).await;
    }
    proxy.set(Mode::Refuse);
    proxy.cut();
    replica.is_lost().await;
    for _ in 0..10 {
        assert!(replica.check(&caller).await.is_allowed());
    }
    // 10 units are owed, so 3 of the 13 that are given back wait for the server.
    refund(store, &caller, 6).unwrap();
    assert_eq!((replica.report().waiting_corrections, replica.report().owed), (0, 1));
    refund(store, &caller, 7).unwrap();
    assert_eq!((replica.report().waiting_corrections, replica.report().owed), (1, 0));
    assert!(replica.check(&caller).await.is_allowed());
    proxy.set(Mode::Pass);
    replica.has_corrected().await;
    assert_eq!(charged(&server, &key_of("o")).await, 5 + 1 - 3);
    // What was charged back is given back by the server.
    refund(store, &caller, 3).unwrap();
    replica.has_corrected().await;
    assert_eq!(charged(&server, &key_of("o")).await, 0);
}

#[tokio::test]
async fn a_server_that_is_killed_and_keeps_its_data_gets_what_waits() {
    let server = Server::with_args(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (replica, caller) =
        (Replica::connect(strict(&server.url()), slow(BURST)).await, organization("o"));
    for _ in 0..10 {
        replica.check(&caller).await;
    }
    server.kill();
    replica.is_lost().await;
    refund(replica.limiter.store(), &caller, 4).unwrap();
    server.restart().await;
    replica.has_corrected().await;
    assert_eq!(charged(&server, &key_of("o")).await, 6);
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_is_not_given_again() {
    let server = Server::start().await;
    let (replica, callers) = (
        Replica::connect(strict(&server.url()), slow(BURST)).await,
        (0..40).map(|number| format!("o-{number}")).collect::<Vec<_>>(),
    );
    for caller in &callers {
        for _ in 0..10 {
            replica.check(&organization(caller)).await;
        }
    }
    // It receives the refunds, and does not answer.
    server.suspend();
    for caller in &callers {
        refund(replica.limiter.store(), &organization(caller), 5).unwrap();
    }
    replica.is_lost().await;
    server.resume();
    replica.has_corrected().await;
    let mut given = 0;
    for caller in &callers {
        let left = charged(&server, &key_of(caller)).await;
        assert!(left == 5 || left == 10, "{left} units are charged: given back twice, or in part");
        given += u64::from(left == 5);
    }
    // Those that the server has carried out although they count as lost.
    let lost = replica.report().lost_corrections;
    assert!(given + lost >= 40, "{given} of 40 were given back, and {lost} are lost");
}

#[tokio::test]
async fn corrections_are_lost_and_counted_if_the_queue_is_full() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let builder = strict(&proxy.url()).max_corrections(2);
    let replica = Replica::connect(builder, slow(BURST)).await;
    let store = replica.limiter.store();
    let callers = ["a", "b", "c"].map(organization);
    for caller in &callers {
        replica.check(caller).await;
    }
    for round in 1..=2 {
        proxy.set(Mode::Refuse);
        proxy.cut();
        replica.is_lost().await;
        for caller in &callers[..2] {
            settle(store, caller, 1).unwrap();
            settle(store, caller, 1).unwrap();
        }
        for _ in 0..3 {
            let error = settle(store, &callers[2], 1).unwrap_err();
            assert_eq!((error.kind(), error.is_of_store()), ("too_many", false));
            let text = "2 refunds and settlements are already waiting for the server";
            assert_eq!(error.to_string(), text);
        }
        let report = replica.report();
        assert_eq!((report.waiting_corrections, report.lost_corrections), (2, 3 * round));
        proxy.set(Mode::Pass);
        replica.has_corrected().await;
    }
    for (caller, units) in [("a", 5), ("b", 5), ("c", 1)] {
        assert_eq!(charged(&server, &key_of(caller)).await, units);
    }
}

#[tokio::test]
async fn settlements_wait_if_the_ledger_is_full() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let builder = store(proxy.url()).max_local_buckets(1).max_corrections(1);
    let replica = Replica::connect(builder, slow(BURST)).await;
    proxy.set(Mode::Refuse);
    proxy.cut();
    replica.is_lost().await;
    for caller in ["a", "b"] {
        settle(replica.limiter.store(), &organization(caller), 3).unwrap();
    }
    settle(replica.limiter.store(), &organization("c"), 3).unwrap_err();
    let report = replica.report();
    assert_eq!((report.owed, report.waiting_corrections, report.lost_corrections), (1, 1, 1));
    proxy.set(Mode::Pass);
    replica.has_corrected().await;
    for (caller, units) in [("a", 3), ("b", 3), ("c", 0)] {
        assert_eq!(charged(&server, &key_of(caller)).await, units);
    }
}

#[tokio::test]
async fn a_key_that_holds_no_bucket_loses_its_correction_only() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(BURST)).await;
    server.command::<()>(&["LPUSH", &key_of("foreign"), "a list"]).await.unwrap();
    settle(replica.limiter.store(), &organization("foreign"), 1).unwrap();
    settle(replica.limiter.store(), &organization("o"), 1).unwrap();
    replica.has_corrected().await;
    assert_eq!(replica.report().lost_corrections, 1);
    assert_eq!(charged(&server, &key_of("o")).await, 1);
}

#[tokio::test]
async fn a_reset_makes_void_what_waits() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let (replica, caller) =
        (Replica::connect(strict(&proxy.url()), slow(BURST)).await, organization("o"));
    let store = replica.limiter.store();
    replica.check(&caller).await;
    proxy.set(Mode::Refuse);
    proxy.cut();
    replica.is_lost().await;
    settle(store, &caller, 50).unwrap();
    let reset = Command::Reset(Bucket::of_account(&caller, Endpoint::DEFAULT));
    store.command(reset).await.unwrap_err();
    assert_eq!(replica.report().waiting_corrections, 0);
}

#[tokio::test]
async fn other_commands_are_not_submitted_to_a_server() {
    let server = Server::start().await;
    let (replica, caller) = (Replica::on(&server, slow(BURST)).await, organization("o"));
    let block =
        Command::block(Bucket::of_account(&caller, Endpoint::DEFAULT), Duration::from_secs(60));
    let error = replica.limiter.store().submit(block).unwrap_err();
    assert_eq!(error.kind(), "unsupported");
    let text = "the store does not take the command block without waiting for the reply, only \
                refund and settle: use `Store::command`";
    assert_eq!(error.to_string(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrections_for_other_nodes_do_not_wait_for_a_lost_one() {
    let cluster = Cluster::start().await;
    for node in cluster.nodes() {
        // The other nodes serve their slots when one is down.
        let words = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        node.command::<()>(&words).await.unwrap();
    }
    let urls = cluster.urls();
    let builder = patient(RedisStore::cluster(&urls)).without_fallback();
    let replica = Replica::connect(builder, slow(BURST)).await;
    let store = replica.limiter.store();
    let callers: Vec<_> = (0..30).map(|number| format!("o-{number}")).collect();
    let mut of_first = Vec::new();
    for caller in &callers {
        replica.check(&organization(caller)).await;
        let words = ["CLUSTER", "KEYSLOT", &key_of(caller)];
        let slot: u16 = cluster.nodes()[1].command(&words).await.unwrap();
        of_first.push(slot < 16_384 / 3);
    }
    let waits = of_first.iter().filter(|is_first| **is_first).count();
    assert!((1..30).contains(&waits));
    cluster.nodes()[0].suspend();
    replica.is_lost().await;
    for caller in &callers {
        settle(store, &organization(caller), 4).unwrap();
    }
    let others = async || {
        let report = replica.report();
        when(report.waiting_corrections == waits, report)
    };
    until("those for the other nodes have arrived", others).await;
    cluster.nodes()[0].resume();
    replica.has_corrected().await;
    let charged = async |caller: &String| {
        let ruling = replica.limiter.peek(&organization(caller), Endpoint::DEFAULT).await;
        BURST - ruling.unwrap().unwrap().decision().unwrap().remaining()
    };
    for caller in &callers {
        assert_eq!(charged(caller).await, 5, "{caller}");
    }
    assert_eq!(replica.report().lost_corrections, 0);
}

#[test]
fn when_the_runtime_has_ended_nothing_panics() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (server, store) = runtime.block_on(async {
        let server = Server::start().await;
        let store = store(server.url()).deadline(DEADLINE).connect().await.unwrap();
        (server, store)
    });
    let events = Events::of(&store);
    drop(runtime);
    refund(&store, &organization("o"), 1).unwrap();
    settle(&store, &organization("o"), 1).unwrap();
    assert!(events.all().iter().all(|it| matches!(it, StoreEvent::Lost { .. })));
    drop((store, server));
}

#[tokio::test]
async fn a_correction_of_what_a_faster_quota_has_charged_changes_that_time_only() {
    let server = Server::start().await;
    let fast = || Policy::bolna().quota("call", Quota::per_second(1)).build().unwrap();
    let slow = || Policy::bolna().quota("call", Quota::per_day(24)).build().unwrap();
    for (number, is_refund) in [true, false].into_iter().enumerate() {
        let limiter = Limiter::with_store(fast(), store(server.url()).connect().await.unwrap());
        let limiter = limiter.unwrap();
        limiter.print_advice(false);
        let caller = Account::user(format!("u-{number}"));
        let admit = async || {
            let admitted = limiter.admit(&caller, "/call").unwrap().await.unwrap();
            admitted.admission.unwrap()
        };
        let first = admit().await;
        limiter.set_policy(slow()).unwrap();
        for _ in 0..10 {
            admit().await;
        }
        if is_refund {
            first.refund();
        } else {
            first.settle(Endpoint::CALL, 2);
        }
        let arrived = async || {
            let report = limiter.report().store;
            when(report.waiting_corrections == 0, report)
        };
        until("it has arrived", arrived).await;
        let ruling = limiter.peek(&caller, Endpoint::CALL).await.unwrap().unwrap();
        let owed = ruling.decisions()[0].reset();
        // Of ten hours, some time has passed in the test.
        let ten_hours = Duration::from_secs(10 * 3600);
        assert!(owed > ten_hours - Duration::from_secs(60), "{owed:?}");
        assert!(owed <= ten_hours + Duration::from_secs(2), "{owed:?}");
    }
}
