//! Responses with the status 503 or 403 that are refusals by a rate limit, by choice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, Refusals, RetryPolicy};
use http::{Method, Request, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::server::{exchange, post, response};
use crate::support::{Log, Remote, mock, settle, usage_of_call};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const UNAVAILABLE: (u16, &[(&str, &str)]) = (503, &[("retry-after", "30")]);
const FORBIDDEN: (u16, &[(&str, &str)]) =
    (403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")]);

fn request(method: Method) -> Request<String> {
    Request::builder().method(method).uri("/call").body(String::new()).unwrap()
}

fn answer((status, fields): (u16, &[(&'static str, &str)])) -> Response<String> {
    response(StatusCode::from_u16(status).unwrap(), fields, 0)
}

/// A server that answers the first request so, and admits the others.
fn once(log: &Log, first: (u16, &'static [(&'static str, &'static str)])) -> Remote {
    mock(log, move |number| if number == 1 { answer(first) } else { answer((200, &[])) })
}

fn both() -> RetryPolicy {
    RetryPolicy::builder().retry_unavailable().retry_forbidden().build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_choice_pauses_all_callers() {
    for first in [UNAVAILABLE, FORBIDDEN] {
        for method in [Method::GET, Method::POST] {
            let log = Log::new();
            let layer = BolnaClientLayer::new().retry(both());
            let client = layer.layer(once(&log, first));
            let one = tokio::spawn(client.clone().oneshot(request(method.clone())));
            settle().await;
            let usage = usage_of_call(layer.pacer());
            assert!(usage.paused() >= SECOND * 30, "{first:?}: {usage:?}");
            assert_eq!(usage.refused(), 1);
            let others: JoinSet<_> =
                (0..10).map(|_| client.clone().oneshot(request(Method::POST))).collect();
            for other in timeout(HOUR, others.join_all()).await.unwrap() {
                assert_eq!(other.unwrap().status(), StatusCode::OK, "{first:?}");
            }
            // A POST that is unavailable may have had its effect.
            let is_handed_back = first == UNAVAILABLE && method == Method::POST;
            let expected =
                if is_handed_back { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            let status = timeout(HOUR, one).await.unwrap().unwrap().unwrap().status();
            assert_eq!(status, expected, "{method}");
            let times = log.times("");
            assert_eq!(times.len(), if is_handed_back { 11 } else { 12 });
            assert!(times[1..].iter().all(|at| *at >= SECOND * 30), "{first:?}: {times:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_choice_they_are_responses_as_any_other() {
    for first in [UNAVAILABLE, FORBIDDEN] {
        let log = Log::new();
        let layer = BolnaClientLayer::new();
        let client = layer.layer(once(&log, first));
        let status = client.clone().oneshot(request(Method::GET)).await.unwrap().status();
        assert_eq!(status.as_u16(), first.0);
        assert_eq!((log.len(), usage_of_call(layer.pacer()).refused()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pace_without_retries_has_the_choice_too() {
    let all = Refusals::new().unavailable().forbidden();
    for (refusals, first, pauses) in [
        (Refusals::new(), UNAVAILABLE, false),
        (Refusals::new().forbidden(), UNAVAILABLE, false),
        (Refusals::new().unavailable(), UNAVAILABLE, true),
        (Refusals::new().unavailable(), (503, &[][..]), false),
        (Refusals::new().any_unavailable(), (503, &[]), true),
        (Refusals::new().any_unavailable(), UNAVAILABLE, true),
        (Refusals::new().forbidden(), FORBIDDEN, true),
        (all, (403, &[("x-ratelimit-remaining", "7")]), false),
        (Refusals::new(), (429, &[]), true),
    ] {
        let log = Log::new();
        let layer = PaceLayer::new(Pacer::new()).refusals(refusals);
        let client = layer.layer(once(&log, first));
        let status = client.oneshot(request(Method::GET)).await.unwrap().status();
        assert_eq!(status.as_u16(), first.0);
        assert_eq!(usage_of_call(layer.pacer()).refused() == 1, pauses, "{refusals:?}, {first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_alone_retries_what_is_forbidden_whatever_the_method() {
    let forbidden = |number| match number {
        1 => response(StatusCode::FORBIDDEN, &[("x-ratelimit-remaining", "0")], number),
        _ => response(StatusCode::OK, &[], number),
    };
    let (response, times, _) = exchange(both(), post(), forbidden).await;
    assert_eq!((response.status(), times.len()), (StatusCode::OK, 2));
    let (response, times, _) = exchange(RetryPolicy::new(), post(), forbidden).await;
    assert_eq!((response.status(), times.len()), (StatusCode::FORBIDDEN, 1));
}

#[tokio::test(start_paused = true)]
async fn a_job_loses_nothing_at_a_limiter_that_says_unavailable() {
    job(both(), &[("retry-after", "2")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_loses_nothing_at_a_limiter_that_does_not_say_how_long_it_is_unavailable() {
    job(RetryPolicy::builder().retry_any_unavailable().build().unwrap(), &[]).await;
}

/// A job of GETs against a server that does as nginx with `limit_req`: it admits one request in 2 s
/// and three at once, and answers the others with 503 and these fields.
#[expect(clippy::float_arithmetic, reason = "parts of a unit")]
async fn job(policy: RetryPolicy, fields: &'static [(&'static str, &'static str)]) {
    let log = Log::new();
    let limiter = Arc::new(Mutex::new((3.0_f64, Instant::now())));
    let server = {
        let log = log.clone();
        Remote::new(service_fn(move |request: Request<String>| {
            let (left, since) = &mut *limiter.lock().unwrap();
            *left = (*left + since.elapsed().as_secs_f64() / 2.0).min(3.0);
            *since = Instant::now();
            let is_admitted = *left >= 1.0;
            *left -= if is_admitted { 1.0 } else { 0.0 };
            let answer = answer(if is_admitted { (200, &[]) } else { (503, fields) });
            log.add(request.uri().to_string(), answer.status());
            async { Ok(answer) }
        }))
    };
    let client = BolnaClientLayer::new().retry(policy).layer(server);
    let calls: JoinSet<_> = (0..40).map(|_| client.clone().oneshot(request(Method::GET))).collect();
    for call in timeout(HOUR, calls.join_all()).await.unwrap() {
        assert_eq!(call.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(log.count(StatusCode::OK), 40);
    // 37 of the first burst are refused. Without a pause for all, 389 requests were sent.
    assert!(log.len() <= 80, "{}", log.len());
}
