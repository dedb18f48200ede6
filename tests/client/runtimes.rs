//! One client in several runtimes, in real time.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
use bolna_rate_limit::{Policy, Quota};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_test::assert_pending;
use tokio_test::task::spawn;
use tower::{Layer, ServiceExt};

use crate::support::{Log, generous, request, usage_of_call};

/// A call that takes longer than this hangs.
const LONG: Duration = Duration::from_secs(60);

fn pacer(interval: Duration) -> Pacer {
    let policy = Policy::bolna().quota("call", Quota::per(1, interval)).build().unwrap();
    Pacer::builder().policy(policy).build().unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn those_who_wait_are_served_when_the_runtime_that_drives_ends() {
    // The runtime ends once before the task has begun, and once while the task waits.
    for has_begun in [false, true] {
        let log = Log::new();
        let layer = BolnaClientLayer::with_pacer(pacer(Duration::from_millis(200)));
        let client = layer.layer(generous(&log));
        let first = runtime();
        first.block_on(async {
            client.clone().oneshot(request("/call")).await.unwrap();
            let mut waiting = spawn(client.clone().oneshot(request("/call")));
            assert_pending!(waiting.poll());
            if has_begun {
                tokio::task::yield_now().await;
            }
        });
        let waiting = thread::spawn(move || {
            runtime().block_on(async { timeout(LONG, client.oneshot(request("/call"))).await })
        });
        drop(first);
        waiting.join().unwrap().expect("the call hangs").unwrap();
        assert_eq!(log.len(), 2);
    }
}

#[test]
fn a_runtime_that_has_been_shut_down_lets_nobody_wait() {
    let layer = BolnaClientLayer::with_pacer(pacer(Duration::from_secs(200)));
    let client = layer.layer(generous(&Log::new()));
    let runtime = runtime();
    let handle = runtime.handle().clone();
    handle.block_on(client.clone().oneshot(request("/call"))).unwrap();
    runtime.shutdown_background();
    // The call panics instead of trying for ever.
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        done.send(
            thread::spawn(move || handle.block_on(client.oneshot(request("/call"))))
                .join()
                .is_err(),
        )
    });
    assert!(is_done.recv_timeout(LONG).expect("the call hangs"));
    assert_eq!(usage_of_call(layer.pacer()).waiting(), 0);
}

#[test]
fn runtimes_that_come_and_go_share_a_client() {
    let log = Log::new();
    let layer = BolnaClientLayer::with_pacer(pacer(Duration::from_millis(1)));
    let client = layer.layer(generous(&log));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || {
                for _ in 0..10 {
                    runtime().block_on(async {
                        let calls = (0..5).map(|_| client.clone().oneshot(request("/call")));
                        let calls = timeout(LONG, join_all(calls));
                        assert!(calls.await.expect("a call hangs").iter().all(Result::is_ok));
                    });
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let usage = usage_of_call(layer.pacer());
    assert_eq!((usage.sent(), usage.waiting(), usage.unanswered(), log.len()), (200, 0, 0, 200));
}
