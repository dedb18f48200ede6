//! Refunds and blocks by an operator, which hold for all replicas.

use std::time::Duration;

use bolna_rate_limit::store::StoreError;
use bolna_rate_limit::{Decision, Endpoint, Principal};
use tokio::task::JoinSet;

use crate::servers::{Server, until, when};
use crate::support::{
    HOUR, Replica, assert_lasts_until, buckets, charged, key_of, once_an_hour, organization, slow,
    stored, time_of,
};

const BURST: u32 = 5;

async fn two_on(server: &Server) -> [Replica; 2] {
    [Replica::on(server, slow(BURST)).await, Replica::on(server, slow(BURST)).await]
}

async fn refund(replica: &Replica, who: &Principal, units: u32) -> Result<(), StoreError> {
    replica.limiter.refund(who, Endpoint::DEFAULT, units).await
}

async fn block(replica: &Replica, who: &Principal, period: Duration) -> Result<(), StoreError> {
    replica.limiter.block(who, Endpoint::DEFAULT, period).await
}

async fn peek(replica: &Replica, who: &Principal) -> Decision {
    let ruling = replica.limiter.peek(who, Endpoint::DEFAULT).await.unwrap().unwrap();
    *ruling.decision().unwrap()
}

fn nothing_was_lost(fleet: &[Replica]) {
    fleet
        .iter()
        .for_each(|replica| assert_eq!(replica.events.all().len(), 0, "{:?}", replica.events));
}

#[tokio::test]
async fn units_that_are_given_back_are_there_for_all() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let acme = organization("acme");
    refund(&fleet[0], &acme, 3).await.unwrap();
    assert_eq!(buckets(&server).await.len(), 0);
    assert_eq!(fleet[0].drain(&acme).await, BURST);
    assert!(!fleet[1].check(&acme).await.is_allowed());
    refund(&fleet[0], &acme, 0).await.unwrap();
    assert_eq!(fleet[0].left(&acme).await, 0);
    refund(&fleet[0], &acme, 3).await.unwrap();
    assert_eq!((fleet[0].left(&acme).await, fleet[1].left(&acme).await), (3, 3));
    assert_eq!(fleet[0].drain(&acme).await, 3);
    refund(&fleet[0], &acme, 2).await.unwrap();
    // The other replica sees it within a second.
    until("it is seen", async || {
        let decision = fleet[1].check(&acme).await;
        when(decision.is_allowed(), decision)
    })
    .await;
    assert_eq!(charged(&server, &key_of("acme")).await, u64::from(BURST) - 1);
    for units in [BURST, u32::MAX] {
        refund(&fleet[1], &acme, units).await.unwrap();
        assert_eq!(buckets(&server).await.len(), 0, "a full bucket has no key");
        assert_eq!(fleet[1].drain(&acme).await, BURST);
    }
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn a_block_is_there_for_all_until_it_is_lifted() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let (acme, globex) = (organization("acme"), organization("globex"));
    assert!(fleet[1].check(&acme).await.is_allowed());
    let before = time_of(&server).await;
    block(&fleet[0], &acme, 2 * HOUR).await.unwrap();
    let after = time_of(&server).await;
    for replica in &fleet {
        for refused in
            [replica.check(&acme).await, replica.check(&acme).await, peek(replica, &acme).await]
        {
            assert!(refused.is_blocked() && refused.quota() == once_an_hour(BURST), "{refused:?}");
            let wait = refused.retry_after().unwrap();
            assert!(wait <= 2 * HOUR && wait > HOUR, "{wait:?}");
        }
        assert!(replica.check(&globex).await.is_allowed());
    }
    let value: String = stored(&server, &["GET", &key_of("acme")]).await;
    let until_when: u64 = value.split_once('!').unwrap().1.parse().unwrap();
    let period = u64::try_from((2 * HOUR).as_micros()).unwrap();
    assert!((before + period..=after + period).contains(&until_when));
    assert_lasts_until(&server, &key_of("acme"), until_when).await;

    // A block is replaced, lifted, and lifted by a reset. Charged units stay charged, and the
    // replica that lifts the block sees it at once.
    block(&fleet[0], &acme, 100 * HOUR).await.unwrap();
    assert!(fleet[0].check(&acme).await.retry_after().unwrap() > 99 * HOUR);
    block(&fleet[0], &acme, Duration::ZERO).await.unwrap();
    assert_eq!(fleet[0].check(&acme).await.remaining(), BURST - 2);
    assert_eq!(charged(&server, &key_of("acme")).await, 2);
    until("the other sees it", async || {
        let decision = fleet[1].check(&acme).await;
        when(decision.is_allowed(), decision)
    })
    .await;
    block(&fleet[0], &acme, Duration::MAX).await.unwrap();
    assert!(fleet[1].check(&acme).await.is_blocked());
    fleet[1].limiter.reset(&acme, Endpoint::DEFAULT).await.unwrap();
    assert_eq!(fleet[1].drain(&acme).await, BURST);
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn a_block_ends_by_itself_and_its_key_goes() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let acme = organization("acme");
    block(&fleet[0], &acme, Duration::from_millis(300)).await.unwrap();
    let refused = fleet[1].check(&acme).await;
    assert!(
        refused.is_blocked() && refused.retry_after().unwrap() <= Duration::from_millis(300),
        "{refused:?}"
    );
    until("the block is over", async || {
        let keys = buckets(&server).await;
        when(keys.is_empty(), keys)
    })
    .await;
    assert_eq!(fleet[1].drain(&acme).await, BURST);
    // The shortest period is not zero.
    block(&fleet[0], &acme, Duration::from_nanos(1)).await.unwrap();
    nothing_was_lost(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_share_calls_are_refused_from_the_block_on() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(100_000)).await;
    let acme = organization("acme");
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (replica, acme) = (replica.clone(), acme.clone());
        tasks.spawn(async move {
            let mut admitted = 0;
            loop {
                let decision = replica.check(&acme).await;
                if decision.is_blocked() {
                    return admitted;
                }
                assert!(decision.is_allowed(), "{decision:?}");
                admitted += 1;
            }
        });
    }
    until("requests are admitted", async || {
        let left = replica.left(&acme).await;
        when(left < 99_900, left)
    })
    .await;
    block(&replica, &acme, HOUR).await.unwrap();
    assert!(replica.check(&acme).await.is_blocked());
    let admitted: u64 = tasks.join_all().await.into_iter().sum();
    block(&replica, &acme, Duration::ZERO).await.unwrap();
    assert_eq!(charged(&server, &key_of("acme")).await, admitted);
    assert!(replica.check(&acme).await.is_allowed());
    nothing_was_lost(&[replica]);
}

#[tokio::test]
async fn who_is_blocked_stays_so_when_the_server_is_lost() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let (acme, globex) = (organization("acme"), organization("globex"));
    block(&fleet[0], &acme, HOUR).await.unwrap();
    assert!(fleet[1].check(&acme).await.is_blocked());
    server.kill();
    for replica in &fleet {
        until("this process decides", async || {
            let decision = replica.check(&acme).await;
            assert!(decision.is_blocked(), "{decision:?}");
            when(decision.quota() != once_an_hour(BURST), decision)
        })
        .await;
        let wait = replica.check(&acme).await.retry_after().unwrap();
        assert!(wait <= HOUR && wait > HOUR / 2, "{wait:?}");
        assert!(replica.check(&globex).await.is_allowed());
    }
    // A change by hand still takes effect in this process, and the error says that it did not
    // elsewhere.
    block(&fleet[0], &acme, Duration::ZERO).await.unwrap_err();
    assert!(fleet[0].check(&acme).await.is_allowed());
    block(&fleet[0], &globex, HOUR).await.unwrap_err();
    assert!(fleet[0].check(&globex).await.is_blocked());
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_scripts_is_told_them_again() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let acme = organization("acme");
    assert_eq!(fleet[0].drain(&acme).await, BURST);
    stored::<()>(&server, &["SCRIPT", "FLUSH"]).await;
    refund(&fleet[0], &acme, 3).await.unwrap();
    stored::<()>(&server, &["SCRIPT", "FLUSH"]).await;
    block(&fleet[0], &acme, HOUR).await.unwrap();
    assert!(fleet[0].check(&acme).await.is_blocked());
    block(&fleet[0], &acme, Duration::ZERO).await.unwrap();
    assert_eq!(fleet[0].drain(&acme).await, 3);
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn a_server_that_was_held_up_does_not_do_what_has_been_said_to_have_failed() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(BURST)).await;
    let acme = organization("acme");
    assert_eq!(replica.drain(&acme).await, BURST);
    server.suspend();
    refund(&replica, &acme, 3).await.unwrap_err();
    block(&replica, &acme, HOUR).await.unwrap_err();
    server.resume();
    until("the server is asked again", async || {
        let decision = peek(&replica, &acme).await;
        when(decision.quota() == once_an_hour(BURST), decision)
    })
    .await;
    assert_eq!(charged(&server, &key_of("acme")).await, u64::from(BURST));
}

#[tokio::test]
async fn in_a_cluster_each_bucket_is_changed_where_it_is() {
    use crate::servers::Cluster;
    use crate::support::patient;
    use bolna_rate_limit::store::RedisStore;

    let cluster = Cluster::start().await;
    let connect = || Replica::connect(patient(RedisStore::cluster(cluster.urls())), slow(BURST));
    let fleet = [connect().await, connect().await];
    for number in 0..20 {
        let who = organization(&number.to_string());
        assert_eq!(fleet[0].drain(&who).await, BURST);
        refund(&fleet[0], &who, 2).await.unwrap();
        assert_eq!(fleet[1].left(&who).await, 2);
        block(&fleet[0], &who, HOUR).await.unwrap();
        assert!(fleet[1].check(&who).await.is_blocked());
        block(&fleet[0], &who, Duration::ZERO).await.unwrap();
        assert_eq!(fleet[0].drain(&who).await, 2);
    }
    nothing_was_lost(&fleet);
}
