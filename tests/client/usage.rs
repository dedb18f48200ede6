//! The usage that a client reports.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, RetryPolicy, Usage};
use bolna_rate_limit::{Policy, Quota};
use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};

use crate::support::{
    Log, Remote, distant, generous, limited, limiter, mock, one_call_in, refusal, request, send,
    send_calls, settle, usage_of_call,
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

#[tokio::test(start_paused = true)]
async fn what_the_retry_policy_does_not_retry_is_handed_back() {
    // The first three requests are refused.
    let server = |log: &Log| {
        mock(log, |number| match number {
            1..=3 => refusal(&[("retry-after", "10")]),
            _ => Response::new(String::new()),
        })
    };
    let log = Log::new();
    for (retry, expected) in [
        (RetryPolicy::builder().attempts(1).build().unwrap(), 1),
        (RetryPolicy::builder().attempts(3).build().unwrap(), 1),
        (RetryPolicy::new(), 0),
    ] {
        let client = BolnaClientLayer::new().retry(retry).layer(server(&Log::new()));
        let response = client.clone().oneshot(request("/call")).await.unwrap();
        let handed_back = || usage_of_call(client.pacer()).handed_back();
        assert_eq!(handed_back(), 0, "the caller has it still");
        drop(response);
        assert_eq!(handed_back(), expected);
    }
    // A body that can't be sent again, and no retries at all.
    let retry = RetryPolicy::builder().send_once().build().unwrap();
    let once = BolnaClientLayer::new().retry(retry).layer(server(&log));
    assert_eq!(send(&once, "/call").await.unwrap().unwrap(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(usage_of_call(once.pacer()).handed_back(), 1);
    let pacer = Pacer::new();
    let paced = PaceLayer::new(pacer.clone()).layer(server(&log));
    assert_eq!(send(&paced, "/call").await.unwrap().unwrap(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(usage_of_call(&pacer).handed_back(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_counts_once_however_many_requests_are_refused_before_it() {
    let log = Log::new();
    let server = mock(&log, |number| match number {
        1..=5 => refusal(&[("retry-after", "10")]),
        // The retries are 6 to 10. After the next one, no units are left for a minute.
        11 => says_none_left(60),
        _ => Response::new(String::new()),
    });
    let client = BolnaClientLayer::new().layer(distant(server, |_| Duration::from_millis(1)));
    let pauses = || usage_of_call(client.pacer()).pauses();
    assert_eq!(pauses(), 0);
    send_calls(&client, 5).await;
    assert_eq!((pauses(), usage_of_call(client.pacer()).refused()), (1, 5));
    sleep(Duration::from_secs(3600)).await;
    send_calls(&client, 5).await;
    assert_eq!(pauses(), 2);
    assert_eq!(client.pacer().usage().iter().map(Usage::pauses).sum::<u64>(), 2);
}

/// A response that reports an exhausted limit.
fn says_none_left(seconds: u32) -> Response<String> {
    let mut response = Response::new(String::new());
    let value = format!("\"call\";r=0;t={seconds}").parse().unwrap();
    response.headers_mut().insert("ratelimit", value);
    response
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_was_learned_can_be_read_until_it_is_forgotten() {
    let limiter =
        limiter(Policy::bolna().quota("call", Quota::per_minute(60).burst(1)).build().unwrap());
    let client = BolnaClientLayer::new().layer(silent(limited(&Log::new(), &limiter)));
    let learned = || usage_of_call(client.pacer()).learned_rate();
    send_calls(&client, 1).await;
    assert_eq!(learned(), None);
    send_calls(&client, 60).await;
    let rate = learned().unwrap();
    assert!((40.0..90.0).contains(&rate.per_minute()), "{rate:?}");
    let measured = rate.plateau_interval();
    assert!((0.8..1.2).contains(&measured.as_secs_f64()), "{rate:?}");
    assert!((rate.per_minute() * rate.interval().as_secs_f64() - 60.0).abs() < 0.001);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(learned(), None);
}

/// The same server, which reports nothing but refusals.
fn silent(server: Remote) -> Remote {
    Remote::new(server.map_response(|mut response: Response<String>| {
        response.headers_mut().clear();
        response
    }))
}
