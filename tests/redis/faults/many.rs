//! More requests than a server can answer, and operators who do not want a replica to count by
//! itself.

use std::time::Duration;

use bolna_rate_limit::layer::OnStoreFailure;
use bolna_rate_limit::store::RedisStore;
use http::StatusCode;

use super::{By, HOURLY, Replica, a_while};
use crate::servers::{Mode, Proxy, Server, until, when};

const MANY: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_wait_when_the_server_freezes_are_answered_in_time() {
    let server = Server::start().await;
    let replica =
        Replica::connect(RedisStore::builder(server.url()).expected_replicas(2), HOURLY).await;
    server.suspend();
    let answers = replica.send_together(MANY, |number| format!("caller-{}", number % 100)).await;
    assert_eq!(answers.len(), MANY);
    for answer in answers {
        answer.is_well();
        assert_eq!((answer.status, answer.by), (StatusCode::OK, By::Process));
    }
    until("the server is lost", async || when(replica.is_cut_off(), replica.events())).await;
    server.resume();
    until("the server is regained", async || when(!replica.is_cut_off(), replica.events())).await;
    assert_eq!(replica.send("caller-0").await.by, By::Server);
    assert_eq!(replica.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_wait_when_the_server_dies_are_answered_in_time() {
    let server = Server::start().await;
    let replica =
        Replica::connect(RedisStore::builder(server.url()).expected_replicas(2), HOURLY).await;
    server.suspend();
    let many = replica.send_together(MANY, |number| format!("caller-{}", number % 100));
    let (answers, ()) = tokio::join!(many, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
    });
    for answer in answers {
        answer.is_well();
        assert_eq!((answer.status, answer.by), (StatusCode::OK, By::Process));
    }
    until("the server is lost", async || when(replica.is_cut_off(), replica.events())).await;
    assert_eq!(replica.lost().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_find_too_many_waiting_are_counted_here_and_the_server_is_not_lost() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let builder = RedisStore::builder(proxy.url()).expected_replicas(2).max_in_flight(1);
    let replica = Replica::connect(builder, HOURLY).await;
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    for round in 0..10 {
        let answers = replica.send_together(20, |number| format!("caller-{round}-{number}")).await;
        let by = |by| answers.iter().filter(|answer| answer.by == by).count();
        assert!(by(By::Server) >= 1, "{answers:?}");
        assert!(by(By::Process) >= 1, "{answers:?}");
        answers.iter().for_each(super::Answered::is_well);
    }
    assert!(replica.events().is_empty(), "{:?}", replica.events());
    proxy.set(Mode::Pass);
    assert_eq!(replica.send("alone").await.by, By::Server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fallback_a_lost_server_is_what_the_operator_says() {
    let server = Server::start().await;
    let replica =
        Replica::connect(RedisStore::builder(server.url()).without_fallback(), HOURLY).await;
    let admitting = Replica {
        layer: replica.layer.clone().on_store_failure(OnStoreFailure::Admit),
        events: replica.events.clone(),
    };
    server.suspend();
    for (replica, status) in [
        (&replica, StatusCode::SERVICE_UNAVAILABLE),
        (&admitting, StatusCode::OK),
        (&replica, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        // Before the server is taken to be lost, and after.
        for answer in replica.send_together(20, |number| format!("caller-{number}")).await {
            assert_eq!((answer.status, answer.by), (status, By::Nobody));
            assert!(answer.took <= super::DEADLINE + super::MARGIN, "{answer:?}");
        }
    }
    a_while().await;
    assert!(replica.is_cut_off());
    server.resume();
    until("the server is regained", async || when(!replica.is_cut_off(), replica.events())).await;
    for replica in [&replica, &admitting] {
        let answer = replica.send("caller").await;
        assert_eq!((answer.status, answer.by), (StatusCode::OK, By::Server));
    }
    assert_eq!(replica.events().len(), 2);
}
