//! A server that is lost, and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{Store, StoreEvent};
use bolna_rate_limit::{Account, Ruling};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{call, calls, charges, keys, member, names, ten_four_fifteen};
use crate::servers::{Mode, Proxy, Server, until, when};
use crate::support::{Replica, once_an_hour, store};

/// Whether the server has decided: the share of a replica is smaller.
fn is_by_server(ruling: &Ruling) -> bool {
    ruling.decisions()[0].quota() == once_an_hour(10)
}

async fn until_lost(replica: &Replica) {
    until("the server is lost", async || {
        let events = replica.events.all();
        when(matches!(events.last(), Some(StoreEvent::Lost { .. })), events)
    })
    .await;
}

async fn until_paid(replica: &Replica) {
    until("all is charged back", async || {
        let report = replica.limiter.store().report();
        when((report.owed, report.open_breakers) == (0, 0), report)
    })
    .await;
    // The last charges may be in flight.
    sleep(2 * crate::support::DEADLINE).await;
}

#[tokio::test]
async fn without_the_server_each_limit_is_decided_by_the_share_and_charged_back_later() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    // One of two replicas, whose shares are 5 of 10, 2 of 4 and 7 of 15.
    let replica = Replica::connect(store(proxy.url()), ten_four_fifteen().build().unwrap()).await;
    let limiter = &replica.limiter;
    let one = member("u-1", "o-1");
    for _ in 0..2 {
        assert!(is_by_server(&call(limiter, &one).await));
    }
    proxy.set(Mode::Refuse);
    until_lost(&replica).await;
    let admitted = async |account: &Account, refuse: &[&str]| {
        for admitted in 0.. {
            let ruling = call(limiter, account).await;
            assert!(!is_by_server(&ruling), "{ruling:?}");
            if !ruling.is_admitted() {
                assert_eq!(names(ruling.violated()), refuse);
                return admitted;
            }
        }
        unreachable!("it is refused in the end");
    };
    // Half of the user's two units, half of the organization's eight and of everyone's thirteen.
    assert_eq!(admitted(&one, &["call-user"]).await, 1);
    assert_eq!(admitted(&member("u-2", "o-1"), &["call-user"]).await, 2);
    assert_eq!(admitted(&member("u-3", "o-1"), &["call"]).await, 1);
    assert_eq!(admitted(&member("u-9", "o-2"), &["call-user", "call-all"]).await, 2);
    assert_eq!(admitted(&member("u-8", "o-2"), &["call-all"]).await, 0);
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 2),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 2),
        ("bolna:2:{~everyone}:call-all", 2),
    ]);
    assert_eq!(charges(&server).await, expected, "nothing has reached the server");

    proxy.set(Mode::Pass);
    until_paid(&replica).await;
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 6),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 3),
        ("bolna:2:{organization:o-1}:call-user:user:u-2", 2),
        ("bolna:2:{organization:o-1}:call-user:user:u-3", 1),
        ("bolna:2:{organization:o-2}:call", 2),
        ("bolna:2:{organization:o-2}:call-user:user:u-9", 2),
        ("bolna:2:{~everyone}:call-all", 8),
    ]);
    assert_eq!(charges(&server).await, expected);
    let ruling = call(limiter, &one).await;
    assert!(is_by_server(&ruling) && ruling.is_admitted());
}

#[tokio::test]
async fn the_first_request_that_the_server_decides_finds_charged_what_was_admitted_without_it() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let replica = Replica::connect(store(proxy.url()), ten_four_fifteen().build().unwrap()).await;
    proxy.set(Mode::Refuse);
    until_lost(&replica).await;
    let mut admitted = 0;
    for number in 0..5 {
        let account = member("u-1", &format!("o-{number}"));
        admitted += u32::from(call(&replica.limiter, &account).await.is_admitted());
    }
    assert_eq!(admitted, 5);
    proxy.set(Mode::Pass);
    // Requests of an account for which nothing is owed: everyone's bucket is charged first.
    let new = member("u-1", "new");
    let ruling = until("the server decides", async || {
        let ruling = call(&replica.limiter, &new).await;
        admitted += u32::from(ruling.is_admitted());
        when(is_by_server(&ruling), &ruling)?;
        Ok(ruling)
    })
    .await;
    assert!(ruling.is_admitted());
    assert_eq!(ruling.decisions()[2].remaining(), 15 - admitted);
}

const ALL: u32 = 100_000;

/// Of each bucket the server has charged, after many losses, what was admitted from it. Only what
/// was in flight when a connection broke may be charged twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_losses_the_buckets_of_users_and_of_everyone_are_charged_exactly() {
    let server = Server::start().await;
    let policy =
        calls(ALL, ALL).also("call", LimitBuilder::everyone("call-all", once_an_hour(ALL)));
    let policy = policy.build().unwrap();
    let mut fleet = Vec::new();
    for _ in 0..3 {
        let builder = store(server.url()).expected_replicas(3);
        let builder = builder.deadline(Duration::from_millis(100));
        fleet.push(Replica::connect(builder, policy.clone()).await);
    }
    let (is_over, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for (task, replica) in fleet.iter().flat_map(|replica| [replica; 4]).enumerate() {
        let (replica, is_over) = (replica.clone(), Arc::clone(&is_over));
        tasks.spawn(async move {
            let mut admitted = Vec::new();
            for turn in task.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (user, of) = (turn % 3, turn % 4);
                let account = member(&format!("u-{user}"), &format!("o-{of}"));
                assert!(call(&replica.limiter, &account).await.is_admitted());
                admitted.push((user, of));
                sleep(Duration::from_millis(1)).await;
            }
            admitted
        });
    }
    for stopped in [20, 50, 200, 1000, 50, 90, 600, 30, 110] {
        sleep(Duration::from_millis(150)).await;
        server.suspend();
        sleep(Duration::from_millis(stopped)).await;
        server.resume();
    }
    sleep(Duration::from_millis(300)).await;
    is_over.store(true, Ordering::Relaxed);
    let mut admitted = BTreeMap::<String, u64>::new();
    for (user, of) in tasks.join_all().await.concat() {
        let organization = format!("bolna:2:{{organization:o-{of}}}:call");
        let of_user = format!("{organization}-user:user:u-{user}");
        for key in [organization, of_user, "bolna:2:{~everyone}:call-all".to_owned()] {
            *admitted.entry(key).or_default() += 1;
        }
    }
    assert!(fleet.iter().any(|replica| replica.limiter.store().report().fallbacks > 0));
    for replica in &fleet {
        until_paid(replica).await;
    }
    let charged = charges(&server).await;
    assert!(charged.keys().eq(admitted.keys()), "{charged:?} {admitted:?}");
    for (key, charged) in charged {
        let admitted = admitted[&key];
        assert!(
            (admitted..=admitted + admitted / 50 + 2).contains(&charged),
            "{key}: {charged} for {admitted}"
        );
    }
}
