//! Nodes of a cluster that die, are replaced, and hand slots over.

use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, StoreEvent};

use super::{BURST, By, Fleet, HOURLY, a_while, charged, exists, key, until_replicated};
use crate::servers::{Cluster, Mode, Proxy, Server, until, when};

/// Four callers. The buckets of the first two are on the first node.
struct Callers {
    all: [&'static str; 4],
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

async fn slot_of(cluster: &Cluster, who: &str) -> u16 {
    cluster.nodes()[1].command(&["CLUSTER", "KEYSLOT", &key(who)]).await.unwrap()
}

impl Callers {
    async fn of(cluster: &Cluster) -> Self {
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for who in NAMES {
            let slot = slot_of(cluster, who).await;
            if slot < 16_384 / 3 { first.push(who) } else { others.push(who) }
        }
        Self { all: [first[0], first[1], others[0], others[1]] }
    }
}

async fn fleet(cluster: &Cluster) -> Fleet {
    let urls = cluster.urls();
    Fleet::of(HOURLY, || RedisStore::cluster(&urls)).await
}

/// Has the remaining nodes serve their slots when other nodes are down.
async fn whole_or_not(cluster: &Cluster) {
    for node in cluster.nodes() {
        node.command::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])
            .await
            .unwrap();
    }
}

fn is_of(event: &StoreEvent, node: &Server) -> bool {
    let (StoreEvent::Lost { server: Some(server), .. }
    | StoreEvent::Regained { server: Some(server), .. }) = event
    else {
        return false;
    };
    server.ends_with(&format!(":{}", node.port()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cluster_only_the_buckets_of_the_node_that_died_are_counted_here() {
    let cluster = Cluster::start().await;
    whole_or_not(&cluster).await;
    let fleet = fleet(&cluster).await;
    let callers = Callers::of(&cluster).await;
    let (dead, theirs) = (&cluster.nodes()[0], [callers.all[0], callers.all[1]]);
    let traffic = fleet.send_every(Duration::from_millis(10), &callers.all);
    traffic.until("some is spent", |who| traffic.admitted(who) >= BURST / 5).await;
    traffic
        .between_requests(async || {
            // So that each replica has seen what is left in the buckets, which the replicas then
            // divide.
            for who in theirs {
                for replica in &fleet.replicas {
                    assert_eq!(replica.send(who).await.by, By::Server);
                }
            }
            dead.kill();
        })
        .await;
    fleet.until_lost().await;
    traffic.until("all have spent their burst", |who| traffic.admitted(who) + 2 >= BURST).await;
    traffic
        .until("the others are drained", |who| {
            theirs.contains(&who) || traffic.admitted(who) == BURST
        })
        .await;
    a_while().await;
    for who in theirs {
        assert!(traffic.granted(who, By::Process) > 0, "{who}");
        assert_eq!(traffic.admitted(who) + 2, BURST, "{who}");
    }
    for who in &callers.all[2..] {
        assert_eq!(
            [By::Server, By::Process].map(|by| traffic.granted(who, by)),
            [BURST, 0],
            "{who}"
        );
    }
    // The restarted node has forgotten what it has charged, and is charged for what was admitted
    // without it.
    let before = theirs.map(|who| traffic.granted(who, By::Server));
    dead.restart().await;
    fleet.until_regained().await;
    let again = || [0, 1].map(|at| traffic.granted(theirs[at], By::Server) - before[at]);
    let owed = theirs.map(|who| traffic.granted(who, By::Process));
    // The replica that comes back first finds units that the other one, which had the other half of
    // what was left, has yet to charge.
    let is_rest = |at: usize| (BURST - owed[at]..=BURST - owed[at] / 2 + 1).contains(&again()[at]);
    until("they have the rest of a burst", async || {
        when(is_rest(0) && is_rest(1), (again(), owed))
    })
    .await;
    a_while().await;
    for (at, who) in theirs.into_iter().enumerate() {
        assert!(is_rest(at), "{:?} {owed:?}", again());
        assert_eq!(charged(dead, who).await, again()[at] + owed[at], "{who}");
    }
    traffic.stop().await;
    for replica in &fleet.replicas {
        let events = replica.events();
        assert!(events.len() == 2 && events.iter().all(|event| is_of(event, dead)), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_of_a_node_that_died_takes_its_buckets_over() {
    let cluster = Cluster::with_replicas().await;
    let fleet = fleet(&cluster).await;
    let callers = Callers::of(&cluster).await;
    let (old, new) = (&cluster.nodes()[0], &cluster.nodes()[3]);
    whole_or_not(&cluster).await;
    let traffic = fleet.send(&callers.all);
    traffic.until_drained().await;
    until_replicated(old).await;
    let calls = new.calls_of("evalsha").await;
    old.kill();
    until("the replica takes over", async || when(new.is_primary().await, "a replica")).await;
    until("it is asked", async || when(new.calls_of("evalsha").await > calls + 10, calls)).await;
    fleet.until_regained().await;
    // A new caller whose bucket is on that node.
    let newcomer = newcomer(&cluster).await;
    for replica in &fleet.replicas {
        assert_eq!(replica.send(&newcomer).await.by, By::Server);
    }
    assert!(exists(new, &newcomer).await);
    let traffic = traffic.stop().await;
    traffic.is_one_burst_on_the_server();
    for who in callers.all {
        assert_eq!(traffic.traffic.granted(who, By::Process), 0, "{who}");
    }
    for replica in &fleet.replicas {
        let events = replica.events();
        let [lost @ StoreEvent::Lost { .. }, regained @ StoreEvent::Regained { .. }] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert!(is_of(lost, old) && is_of(regained, new), "{events:?}");
    }
}

async fn newcomer(cluster: &Cluster) -> String {
    for number in 0.. {
        let who = format!("newcomer-{number}");
        if slot_of(cluster, &who).await < 16_384 / 3 {
            return who;
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed_and_what_was_spent_stays_spent() {
    let cluster = Cluster::start().await;
    let fleet = fleet(&cluster).await;
    let callers = Callers::of(&cluster).await;
    let (from, to) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    let moving = callers.all[0];
    // Slow enough that the slot moves while units are spent.
    let traffic = fleet.send_every(Duration::from_millis(10), &callers.all);
    traffic.until("some is spent", |who| traffic.admitted(who) >= BURST / 5).await;
    hand_over(&cluster, from, to, moving).await;
    until("the new node is asked", async || when(to.calls_of("evalsha").await > 0, "not yet"))
        .await;
    traffic.until_drained().await;
    let traffic = traffic.stop().await;
    // Each request was sent on to the node that had the bucket then.
    traffic.is_exactly_one_burst();
    assert!(exists(to, moving).await);
    fleet.has_told_nothing();
}

/// In the way of `redis-cli --cluster reshard`.
async fn hand_over(cluster: &Cluster, from: &Server, to: &Server, who: &str) {
    let slot = slot_of(cluster, who).await.to_string();
    let id = async |node: &Server| node.command::<String>(&["CLUSTER", "MYID"]).await.unwrap();
    let (from_id, to_id) = (id(from).await, id(to).await);
    to.command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await.unwrap();
    from.command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await.unwrap();
    let port = to.port().to_string();
    from.command::<()>(&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS", &key(who)])
        .await
        .unwrap();
    a_while().await;
    for node in [to, from, &cluster.nodes()[2]] {
        node.command::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_or_a_node_that_is_down_at_the_start_is_lost_once_and_regained_once() {
    let cluster = Cluster::start().await;
    whole_or_not(&cluster).await;
    let proxy = Proxy::to(cluster.nodes()[0].port());
    proxy.set(Mode::Refuse);
    let degraded = |url| Fleet::of(HOURLY, move || RedisStore::cluster([&url]).start_degraded());
    let cut_off = degraded(proxy.url()).await;
    let slow = &cluster.nodes()[2];
    slow.suspend();
    let in_part = degraded(cluster.nodes()[0].url()).await;
    for fleet in [&cut_off, &in_part] {
        fleet.until_lost().await;
    }
    proxy.set(Mode::Pass);
    slow.resume();
    for fleet in [&cut_off, &in_part] {
        fleet.until_regained().await;
        let callers = Callers::of(&cluster).await;
        let traffic = fleet.send(&callers.all);
        traffic.until_drained().await;
        traffic.stop().await;
        for replica in &fleet.replicas {
            assert!(
                replica.lost().len() == 1 && replica.events().len() == 2,
                "{:?}",
                replica.events()
            );
        }
    }
}
