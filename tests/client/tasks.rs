//! Which tasks run while requests wait, and which do not.

use std::time::Duration;

use bolna_rate_limit::client::{PaceLayer, Pacer};
use bolna_rate_limit::{Policy, Quota};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_test::assert_pending;
use tokio_test::task::spawn;
use tower::{Layer, Service};

use crate::support::{Log, generous, request, settle, usage_of_call};

/// The number of tasks, in tests whose callers are not tasks themselves.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn one_task_for_each_endpoint_as_long_as_somebody_waits() {
    let log = Log::new();
    let quota = Quota::per_minute(1);
    let pacer = Pacer::builder()
        .policy(Policy::bolna().quota("call", quota).quota("agent", quota).build().unwrap());
    let pacer = pacer.max_wait(Duration::from_secs(100_000)).build().unwrap();
    let mut client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    for path in ["/call", "/v2/agent/7"] {
        client.call(request(path)).await.unwrap();
    }
    settle().await;
    assert_eq!(tasks(), 0, "no request waits");

    let mut calls: Vec<_> = (0..1000).map(|_| spawn(client.call(request("/call")))).collect();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
    settle().await;
    assert_eq!((usage_of_call(&pacer).waiting(), tasks()), (1000, 1));
    let mut others: Vec<_> =
        (0..1000).map(|_| spawn(client.call(request("/v2/agent/7")))).collect();
    for call in others.iter_mut().chain(&mut calls) {
        assert_pending!(call.poll());
    }
    settle().await;
    assert_eq!(tasks(), 2);

    // One is dispatched, and the others still wait.
    sleep(Duration::from_millis(60_100)).await;
    assert_eq!((calls.iter().filter(|call| call.is_woken()).count(), tasks()), (1, 2));
    drop(calls);
    settle().await;
    assert_eq!((usage_of_call(&pacer).waiting(), tasks()), (0, 1));
    // The dropped ones include the one that was dispatched, whose unit goes to the last one.
    drop(others.drain(..999));
    settle().await;
    assert_eq!((others[0].is_woken(), tasks()), (true, 0));
}
