//! What runs while requests wait, and what does not.

use std::time::Duration;

use bolna_rate_limit::client::{PaceLayer, Pacer};
use bolna_rate_limit::{Policy, Quota};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_test::assert_pending;
use tokio_test::task::spawn;
use tower::{Layer, Service};

use crate::support::{Log, generous, request, settle, usage_of_call};

/// Callers that are no tasks themselves.
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
    assert_eq!(tasks(), 0, "nobody waits");

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

    // One is let go, and the others still wait.
    sleep(Duration::from_millis(60_100)).await;
    assert_eq!((calls.iter().filter(|call| call.is_woken()).count(), tasks()), (1, 2));
    drop(calls);
    settle().await;
    assert_eq!((usage_of_call(&pacer).waiting(), tasks()), (0, 1));
    // With them goes the one who had been let go, and whose unit is the last one's.
    drop(others.drain(..999));
    settle().await;
    assert_eq!((others[0].is_woken(), tasks()), (true, 0));
}
