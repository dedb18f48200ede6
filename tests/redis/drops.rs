//! Clients that go away while their requests are checked.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::servers::Server;
use crate::support::{Replica, charged, key_of, organization, slow};

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
enum Patience {
    Micros(u64),
    /// Until the check has been polled that many times.
    Polls(u32),
    Endless,
}

/// The output of the future, or `None` if it was dropped before.
async fn wait<F: Future>(patience: Patience, future: F) -> Option<F::Output> {
    match patience {
        Patience::Endless => Some(future.await),
        Patience::Micros(micros) => {
            tokio::time::timeout(Duration::from_micros(micros), future).await.ok()
        }
        Patience::Polls(polls) => {
            let (mut future, mut polled) = (pin!(future), 0);
            poll_fn(|cx| {
                polled += 1;
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => Poll::Ready(Some(output)),
                    Poll::Pending if polled >= polls => Poll::Ready(None),
                    Poll::Pending => {
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                }
            })
            .await
        }
    }
}

/// Four of six clients of a task leave, each at another moment.
fn patience(task: u64, request: u64) -> Patience {
    match (task + request) % 6 {
        0 => Patience::Polls(1),
        1 => Patience::Polls(u32::try_from(request % 40).unwrap() + 2),
        2 => Patience::Micros(request * 37 % 2000),
        3 => Patience::Micros(request * 101 % 400),
        _ => Patience::Endless,
    }
}

async fn nobody_is_stuck(replica: &Replica, callers: &[&'static str]) {
    let mut tasks = JoinSet::new();
    for caller in callers.iter().flat_map(|caller| [*caller; 50]) {
        let replica = replica.clone();
        tasks.spawn(async move {
            let decision = replica.check(&organization(caller)).await;
            assert_eq!(
                (decision.is_allowed(), decision.quota().burst()),
                (true, 100_000),
                "the server decides"
            );
        });
    }
    tasks.join_all().await;
    assert_eq!(replica.events.all().len(), 0, "{:?}", replica.events);
}

const CALLERS: [&str; 2] = ["acme", "globex"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_charged_at_most_for_every_check_and_at_least_for_every_grant() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(100_000)).await;
    for caller in CALLERS {
        let mut tasks = JoinSet::new();
        for task in 0..12 {
            let replica = replica.clone();
            tasks.spawn(async move {
                let (mut dropped, mut granted) = (0_u64, 0_u64);
                for request in 0..300 {
                    match wait(patience(task, request), replica.check(&organization(caller))).await
                    {
                        Some(decision) => {
                            assert_eq!(decision.quota().burst(), 100_000, "the server decides");
                            granted += u64::from(decision.is_allowed());
                        }
                        None => dropped += 1,
                    }
                }
                (dropped, granted)
            });
        }
        let (dropped, granted) = tasks
            .join_all()
            .await
            .into_iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!(dropped + granted, 12 * 300);
        assert!(dropped > 300, "{dropped} clients left");
        // Calls for one bucket are made one after another. After this call, all calls before it
        // have been made.
        assert!(replica.check(&organization(caller)).await.is_allowed());
        let charged = charged(&server, &key_of(caller)).await;
        assert!((granted + 1..=12 * 300 + 1).contains(&charged), "{charged} {granted} {dropped}");
    }
    nobody_is_stuck(&replica, &CALLERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_aborted_hold_nobody_up() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(100_000)).await;
    let (started, granted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for round in 0..200_u64 {
        let mut tasks = JoinSet::new();
        let mut handles = Vec::new();
        for _ in 0..10 {
            let (replica, started, granted) =
                (replica.clone(), Arc::clone(&started), Arc::clone(&granted));
            handles.push(tasks.spawn(async move {
                started.fetch_add(1, Ordering::SeqCst);
                let decision = replica.check(&organization("acme")).await;
                assert_eq!(decision.quota().burst(), 100_000, "the server decides");
                granted.fetch_add(u64::from(decision.is_allowed()), Ordering::SeqCst);
            }));
        }
        for _ in 0..round % 8 {
            tokio::task::yield_now().await;
        }
        // The first of a batch leaves, some behind it, or all.
        let leaving = usize::try_from(round % 11).unwrap();
        handles[..leaving].iter().for_each(tokio::task::AbortHandle::abort);
        while let Some(ended) = tasks.join_next().await {
            assert!(ended.is_ok() || ended.unwrap_err().is_cancelled());
        }
    }
    assert!(replica.check(&organization("acme")).await.is_allowed());
    let (started, granted) = (started.load(Ordering::SeqCst), granted.load(Ordering::SeqCst));
    let charged = charged(&server, &key_of("acme")).await;
    assert!((granted + 1..=started + 1).contains(&charged), "{charged} {granted} {started}");
    nobody_is_stuck(&replica, &["acme"]).await;
}
