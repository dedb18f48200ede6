//! The usage that a client reports.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
use bolna_rate_limit::{Policy, Quota};
use http::Response;
use tokio::time::sleep;
use tower::Layer;

use crate::support::{
    Log, distant, generous, mock, one_call_in, refusal, send, send_calls, settle, usage_of_call,
};

#[test]
fn there_is_one_for_each_endpoint_of_the_policy() {
    let pacer = Pacer::new();
    let endpoints: Vec<_> =
        pacer.usage().iter().map(|usage| (usage.endpoint(), usage.quota())).collect();
    assert_eq!(endpoints, Policy::default().endpoints().collect::<Vec<_>>());
    for usage in pacer.usage() {
        // 500 ms of the burst are held back.
        let at_once =
            if usage.quota() == Quota::per_minute(1000).build().unwrap() { 991 } else { 495 };
        assert_eq!(
            (usage.remaining(), usage.wait(), usage.paused()),
            (at_once, Duration::ZERO, Duration::ZERO)
        );
        assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
        assert_eq!((usage.sent(), usage.retried(), usage.refused(), usage.unsent()), (0, 0, 0, 0));
    }
}

#[test]
fn a_path_can_be_asked_for_before_anything_is_sent_there() {
    let pacer = Pacer::with_policy(Policy::bolna().exempt(["/healthz"]).build().unwrap());
    let endpoint = |path| pacer.peek(path).map(|usage| usage.endpoint().name());
    for (path, expected) in [
        ("/v2/agent/7/executions", Some("executions")),
        ("/v2/agent/7", Some("agent")),
        ("/call", Some("call")),
        ("/user/me", Some("default")),
        ("", Some("default")),
        ("*", Some("default")),
        ("/healthz", None),
    ] {
        assert_eq!(endpoint(path), expected, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_remains_is_what_would_be_sent_at_once() {
    let log = Log::new();
    let layer = BolnaClientLayer::new();
    let client = layer.layer(generous(&log));
    let usage = || usage_of_call(layer.pacer());
    send_calls(&client, 400).await;
    assert_eq!((usage().remaining(), usage().sent(), usage().wait()), (95, 400, Duration::ZERO));
    send_calls(&client, 95).await;
    assert_eq!((usage().remaining(), usage().sent(), log.elapsed()), (0, 495, Duration::ZERO));
    assert!(usage().wait() > Duration::ZERO && usage().wait() <= Duration::from_millis(120));
    // Units come back at 500 a minute.
    sleep(Duration::from_secs(12)).await;
    assert_eq!((usage().remaining(), usage().wait()), (100, Duration::ZERO));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(usage().remaining(), 495);
    // Other endpoints have buckets of their own.
    assert!(
        layer
            .pacer()
            .usage()
            .iter()
            .filter(|usage| usage.sent() == 0)
            .all(|usage| usage.remaining() >= 495)
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_and_what_is_unanswered() {
    let log = Log::new();
    let pacer = Pacer::builder()
        .policy(one_call_in(Duration::from_secs(10)))
        .max_waiting(3)
        .build()
        .unwrap();
    let layer = BolnaClientLayer::with_pacer(pacer);
    let client = layer.layer(distant(generous(&log), |_| Duration::from_secs(7)));
    let calls = [0; 6].map(|_| send(&client, "/call"));
    settle().await;
    let usage = usage_of_call(client.pacer());
    assert_eq!((usage.waiting(), usage.unanswered(), usage.sent(), usage.unsent()), (3, 1, 1, 2));
    assert_eq!((usage.remaining(), usage.wait()), (0, Duration::from_secs(40)));

    sleep(Duration::from_secs(11)).await;
    let usage = usage_of_call(client.pacer());
    assert_eq!((usage.waiting(), usage.unanswered(), usage.sent()), (2, 2, 2));
    sleep(Duration::from_secs(60)).await;
    let usage = usage_of_call(client.pacer());
    assert_eq!(
        (usage.waiting(), usage.unanswered(), usage.sent(), usage.remaining()),
        (0, 0, 4, 1)
    );
    assert_eq!((usage.refused(), usage.retried(), usage.paused()), (0, 0, Duration::ZERO));
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().is_ok(), number < 4, "call {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_and_retries_are_counted() {
    let log = Log::new();
    let server = mock(&log, |number| {
        if number <= 3 { refusal(&[("retry-after", "5")]) } else { Response::new(String::new()) }
    });
    let layer = BolnaClientLayer::new();
    let client = layer.layer(distant(server, |_| Duration::from_millis(20)));
    let calls = [0; 3].map(|_| send(&client, "/call"));
    sleep(Duration::from_millis(41)).await;
    let usage = usage_of_call(layer.pacer());
    assert_eq!((usage.sent(), usage.retried(), usage.refused(), usage.unanswered()), (3, 0, 3, 0));
    // Counted from 40 ms on, when the first refusal arrived.
    let paused = usage.paused() + Duration::from_millis(1);
    assert!(
        paused >= Duration::from_secs(5) && paused <= Duration::from_millis(5122),
        "{paused:?}"
    );
    assert!(usage.wait() >= usage.paused());
    assert_eq!(usage.remaining(), 0);
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
    let usage = usage_of_call(layer.pacer());
    assert_eq!((usage.sent(), usage.retried(), usage.refused(), usage.unsent()), (6, 3, 3, 0));
    assert_eq!(usage.paused(), Duration::ZERO);
}
