//! Several replicas that share one server or one cluster share one limit.

use std::time::Duration;

use bolna_rate_limit::{Endpoint, Policy, Quota};
use tokio::task::JoinSet;

use crate::servers::{Server, until, when};
use crate::support::{Replica, buckets, charged, key_of, organization, slow, time_of};

const REPLICAS: usize = 3;

async fn fleet_on(server: &Server, policy: &Policy) -> Vec<Replica> {
    let mut fleet = Vec::new();
    for _ in 0..REPLICAS {
        fleet.push(Replica::on(server, policy.clone()).await);
    }
    fleet
}

/// Sends from four tasks on each replica, with that many requests per task; returns how many were
/// admitted.
async fn hammer(fleet: &[Replica], id: &'static str, requests: u32) -> u32 {
    let mut tasks = JoinSet::new();
    for replica in fleet.iter().flat_map(|replica| [replica; 4]) {
        let replica = replica.clone();
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..requests {
                admitted += u32::from(replica.check(&organization(id)).await.is_allowed());
            }
            admitted
        });
    }
    tasks.join_all().await.into_iter().sum()
}

fn nothing_was_lost(fleet: &[Replica]) {
    for replica in fleet {
        assert_eq!(replica.events.all().len(), 0, "{:?}", replica.events);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_admit_together_what_one_would() {
    let server = Server::start().await;
    let fleet = fleet_on(&server, &slow(200)).await;
    assert_eq!(hammer(&fleet, "acme", 100).await, 200);
    assert_eq!(charged(&server, &key_of("acme")).await, 200);
    nothing_was_lost(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_what_comes_back() {
    const BURST: u64 = 50;
    const INTERVAL: u64 = 5000;
    let server = Server::start().await;
    let quota = Quota::per_second(200).burst(50);
    let fleet = fleet_on(&server, &Policy::builder().default_quota(quota).build().unwrap()).await;

    let before = time_of(&server).await;
    let mut admitted = u64::from(fleet[0].check(&organization("acme")).await.is_allowed());
    let first = time_of(&server).await;
    while time_of(&server).await < first + 1_500_000 {
        admitted += u64::from(hammer(&fleet, "acme", 20).await);
    }
    // The last request is refused, so all units that have come back by then were spent.
    let last = loop {
        let now = time_of(&server).await;
        if !fleet[0].check(&organization("acme")).await.is_allowed() {
            break now;
        }
        admitted += 1;
    };
    let after = time_of(&server).await;
    let bounds = BURST + (last - first) / INTERVAL..=BURST + (after - before) / INTERVAL;
    assert!(bounds.contains(&admitted), "{admitted} {bounds:?}");
    nothing_was_lost(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_on_a_cluster_admit_together_what_one_would() {
    use crate::servers::Cluster;
    use crate::support::patient;
    use bolna_rate_limit::store::RedisStore;

    const BURST: u32 = 10;
    let cluster = Cluster::start().await;
    let mut fleet = Vec::new();
    for _ in 0..REPLICAS {
        fleet.push(
            Replica::connect(patient(RedisStore::cluster(cluster.urls())), slow(BURST)).await,
        );
    }
    let mut tasks = JoinSet::new();
    for replica in fleet.iter().flat_map(|replica| [replica; 3]) {
        let replica = replica.clone();
        tasks.spawn(async move {
            let mut admitted = [0; 40];
            for _ in 0..4 {
                for (number, admitted) in admitted.iter_mut().enumerate() {
                    *admitted += u32::from(
                        replica.check(&organization(&number.to_string())).await.is_allowed(),
                    );
                }
            }
            admitted
        });
    }
    let mut admitted = [0; 40];
    for of_one in tasks.join_all().await {
        admitted.iter_mut().zip(of_one).for_each(|(sum, of_one)| *sum += of_one);
    }
    assert_eq!(admitted, [BURST; 40]);
    for node in cluster.nodes() {
        // Each node has some 13 buckets; that one has none happens once in ten million runs.
        let keys: Vec<String> = node.command(&["KEYS", "bolna:2:*:default"]).await.unwrap();
        assert_ne!(keys.len(), 0);
    }
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn a_look_charges_nothing_and_a_reset_fills_up_for_all() {
    let server = Server::start().await;
    let fleet = fleet_on(&server, &slow(5)).await;
    let (acme, globex) = (organization("acme"), organization("globex"));
    for _ in 0..3 {
        assert!(fleet[0].check(&acme).await.is_allowed());
    }
    for replica in &fleet {
        assert_eq!((replica.left(&acme).await, replica.left(&acme).await), (2, 2));
        assert_eq!(replica.left(&globex).await, 5);
    }
    assert_eq!(charged(&server, &key_of("acme")).await, 3);
    assert_eq!(buckets(&server).await, [key_of("acme")]);

    assert_eq!(fleet[1].drain(&acme).await, 2);
    for replica in &fleet {
        assert!(!replica.check(&acme).await.is_allowed());
        assert_eq!(replica.left(&acme).await, 0);
    }
    fleet[2].limiter.reset(&acme, Endpoint::DEFAULT).await.unwrap();
    assert_eq!(fleet[2].drain(&acme).await, 5);
    fleet[2].limiter.reset(&acme, Endpoint::DEFAULT).await.unwrap();
    // The other replicas see it within a second.
    let began = std::time::Instant::now();
    for replica in &fleet {
        until("it is seen", async || {
            let decision = replica.check(&acme).await;
            when(decision.is_allowed(), decision)
        })
        .await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(charged(&server, &key_of("acme")).await, 3);
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn half_spent_stays_half_spent_in_time_when_limits_change() {
    let server = Server::start().await;
    let an_hour = |limit| Policy::builder().default_quota(Quota::per_hour(limit)).build().unwrap();
    let fleet = fleet_on(&server, &an_hour(100)).await;
    let acme = organization("acme");
    for _ in 0..50 {
        assert!(fleet[0].check(&acme).await.is_allowed());
    }
    for (limit, left) in [(200, 100), (40, 20), (100, 50)] {
        fleet[1]
            .limiter
            .set_policy(an_hour(limit))
            .expect("the store can do what the policy asks for");
        assert_eq!(fleet[1].left(&acme).await, left);
    }
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn what_was_spent_stays_spent_when_limits_change() {
    let server = Server::start().await;
    let fleet = fleet_on(&server, &slow(10)).await;
    let acme = organization("acme");
    for _ in 0..4 {
        assert!(fleet[0].check(&acme).await.is_allowed());
    }
    fleet[1].limiter.set_policy(slow(20)).expect("the store can do what the policy asks for");
    assert_eq!((fleet[1].left(&acme).await, fleet[0].left(&acme).await), (16, 6));
    assert_eq!(fleet[1].drain(&acme).await, 16);
    // Under the lower limit, the bucket is just drained: the next unit comes back after one
    // interval.
    fleet[2].limiter.set_policy(slow(3)).expect("the store can do what the policy asks for");
    let refused = fleet[2].check(&acme).await;
    assert!(!refused.is_allowed());
    let healed = fleet[2].limiter.peek(&acme, Endpoint::DEFAULT).await.unwrap().unwrap();
    assert!(healed.retry_after().unwrap() <= Duration::from_secs(3600), "{healed:?}");
    nothing_was_lost(&fleet);
}
