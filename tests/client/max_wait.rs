//! A bound on the wait of one request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, MaxWait, Pacer, Priority, WaitError};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::support::{
    Log, assert_at, distant, generous, mock, one_call_in, patient, refusal, request, send, settle,
    usage_of_call,
};

const SECOND: Duration = Duration::from_secs(1);

fn at_most(wait: Duration) -> Request<String> {
    let mut request = request("/call");
    request.extensions_mut().insert(MaxWait(wait));
    request
}

fn wait_error(error: &BoxError) -> WaitError {
    *error.downcast_ref().unwrap()
}

fn one_in_ten_seconds() -> Pacer {
    Pacer::builder().policy(one_call_in(10 * SECOND)).max_wait(15 * SECOND).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_as_long_as_it_says() {
    let log = Log::new();
    let client = BolnaClientLayer::with_pacer(one_in_ten_seconds()).layer(generous(&log));
    client.clone().oneshot(at_most(Duration::ZERO)).await.unwrap();
    let error = client.clone().oneshot(at_most(9 * SECOND)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait for 10.0s, and its MaxWait is 9.0s"
    );
    client.clone().oneshot(at_most(10 * SECOND)).await.unwrap();
    assert_at(log.elapsed(), 10 * SECOND);
    // Longer than the bound of the pacer, which holds for the others.
    let calls = [(); 2].map(|()| tokio::spawn(client.clone().oneshot(at_most(100 * SECOND))));
    settle().await;
    let error = send(&client, "/call").await.unwrap().unwrap_err();
    assert!(error.to_string().contains("this client allows at most 15.0s"), "{error}");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_at(log.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn zero_fails_at_once() {
    let log = Log::new();
    let pacer = one_in_ten_seconds();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&log));
    client.clone().oneshot(at_most(Duration::ZERO)).await.unwrap();
    let error = client.clone().oneshot(at_most(Duration::ZERO)).await.unwrap_err();
    assert_eq!((wait_error(&error).wait(), wait_error(&error).is_full()), (10 * SECOND, false));
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait for 10.0s, and its MaxWait is zero"
    );
    assert_eq!(
        pacer.try_acquire("/call").unwrap_err(),
        wait_error(&error),
        "try_acquire says the same"
    );
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.waiting(), usage.unsent(), usage.sent()), (0, 2, 1));
    // It overtakes none that waits.
    let waits = send(&client, "/call");
    sleep(10 * SECOND - Duration::from_nanos(1)).await;
    assert!(pacer.try_acquire("/call").is_err());
    waits.await.unwrap().unwrap();
    sleep(10 * SECOND).await;
    assert!(pacer.try_acquire("/call").is_ok());
}

#[tokio::test(start_paused = true)]
async fn zero_fails_at_once_where_it_is_not_known_how_long_it_would_wait() {
    // For a place.
    let pacer = Pacer::with_policy(Policy::bolna().concurrent("call", 1).build().unwrap());
    let permit = pacer.try_acquire("/call").unwrap();
    let error = pacer.try_acquire("/call").unwrap_err();
    assert!(error.is_concurrent(), "{error}");
    drop(permit);
    drop(pacer.try_acquire("/call").unwrap());

    // For the first answers.
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(distant(generous(&log), |_| SECOND));
    let calls: Vec<_> = (0..50).map(|_| send(&client, "/call")).collect();
    settle().await;
    let error = client.clone().oneshot(at_most(Duration::ZERO)).await.unwrap_err();
    assert!(wait_error(&error).wait() > Duration::ZERO, "{error}");
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_fails_when_it_turns_out_that_it_would_wait_longer() {
    let log = Log::new();
    let quota = Quota::per_second(1).burst(1);
    let pacer = patient().policy(Policy::bolna().quota("call", quota).build().unwrap());
    let server = mock(&log, |number| match number {
        1 => refusal(&[("retry-after", "60")]),
        _ => Response::new(String::new()),
    });
    let client =
        BolnaClientLayer::with_pacer(pacer.build().unwrap()).layer(distant(server, |_| SECOND / 4));
    let first = send(&client, "/call");
    settle().await;
    let patient = send(&client, "/call");
    let error = client.clone().oneshot(at_most(5 * SECOND)).await.unwrap_err();
    assert!(error.to_string().ends_with("and its MaxWait is 5.0s"), "{error}");
    assert_at(log.elapsed(), SECOND / 2);
    for call in [first, patient] {
        assert_eq!(call.await.unwrap().unwrap(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_take_no_longer_either() {
    for (bound, expected, requests) in [
        (Duration::ZERO, StatusCode::TOO_MANY_REQUESTS, 1),
        (6 * SECOND, StatusCode::TOO_MANY_REQUESTS, 1),
        (9 * SECOND, StatusCode::OK, 2),
    ] {
        let log = Log::new();
        let server = mock(&log, |number| match number {
            1 => refusal(&[("retry-after", "7")]),
            _ => Response::new(String::new()),
        });
        let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
        let response = client.clone().oneshot(at_most(bound)).await.unwrap();
        assert_eq!((response.status(), log.len()), (expected, requests), "{bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn acquire_takes_a_bound_too() {
    let pacer = one_in_ten_seconds();
    let _permit = pacer.try_acquire("/call").unwrap();
    let error = pacer.acquire_with("/call", MaxWait(9 * SECOND)).await.unwrap_err();
    assert_eq!(error.wait(), 10 * SECOND);
    let options = (Priority::Bulk, MaxWait(10 * SECOND));
    assert!(pacer.acquire_with("/call", options).await.is_ok());
    let options = (MaxWait(9 * SECOND), Priority::Bulk);
    assert!(pacer.acquire_with("/call", options).await.is_err());
    assert!(
        Pacer::builder()
            .policy(Policy::bolna().exempt(["/free"]).build().unwrap())
            .build()
            .unwrap()
            .try_acquire("/free")
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_bound_ends_while_a_request_with_a_long_one_waits_for_a_place() {
    let log = Log::new();
    let policy = Policy::bolna().concurrent("call", 1).build().unwrap();
    let pacer = patient().policy(policy).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&log));
    let _call = pacer.occupy("/call");
    let _long = send(&client, "/call");
    settle().await;
    let error = client.clone().oneshot(at_most(SECOND)).await.unwrap_err();
    assert!(wait_error(&error).is_concurrent(), "{error}");
    assert_at(log.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_wait_is_not_retried_even_at_once() {
    // While the body of the refusal is read, its pause is ended by hand.
    let sent = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&sent);
    let server = service_fn(move |_: Request<String>| {
        seen.fetch_add(1, Ordering::Relaxed);
        let endless = futures_util::stream::pending::<Result<Frame<Bytes>, io::Error>>();
        let mut response = Response::new(StreamBody::new(endless));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
    let pacer = client.pacer().clone();
    let call = tokio::spawn(client.oneshot(at_most(Duration::ZERO)));
    settle().await;
    assert!(!usage_of_call(&pacer).paused().is_zero());
    pacer.resume("/call");
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(sent.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_error_names_what_takes_too_long() {
    // Others are before it, so its turn comes too late, whenever the place is free.
    let policy = Policy::bolna().quota("call", Quota::per_second(1).burst(1));
    let policy = policy.concurrent("call", 1).build().unwrap();
    let pacer = patient().policy(policy).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&Log::new()));
    let _running = pacer.occupy("/call");
    let _before: Vec<_> = (0..6).map(|_| send(&client, "/call")).collect();
    settle().await;
    let error = client.oneshot(at_most(5 * SECOND)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait for 6.0s, and its MaxWait is 5.0s"
    );
    let error = wait_error(&error);
    assert_eq!((error.is_concurrent(), error.limit().unwrap().name()), (false, "call"));

    // The limit of the endpoint is the slowest for the next request, and the shared one for those
    // after the third.
    let policy = Policy::builder()
        .endpoint("call", Quota::per(1, 10 * SECOND), ["/call"])
        .shared(LimitBuilder::account("few", Quota::per(1, 3600 * SECOND).burst(3)), ["call"]);
    let pacer = patient().jitter(Duration::ZERO).policy(policy.build().unwrap());
    let client = BolnaClientLayer::with_pacer(pacer.build().unwrap()).layer(generous(&Log::new()));
    let _before: Vec<_> = (0..3).map(|_| send(&client, "/call")).collect();
    settle().await;
    let error = client.oneshot(at_most(100 * SECOND)).await.unwrap_err();
    let error = wait_error(&error);
    assert_eq!((error.wait(), error.limit().unwrap().name()), (3600 * SECOND, "few"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_learned_pace_does_not_wait_for_a_place() {
    let policy = Policy::bolna().concurrent("call", 5).build().unwrap();
    let pacer = patient().policy(policy).build().unwrap();
    let server = mock(&Log::new(), |number| match number {
        3 | 6 | 9 => refusal(&[]),
        _ => Response::new(String::new()),
    });
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(server);
    for _ in 0..10 {
        assert!(send(&client, "/call").await.unwrap().unwrap().is_success());
    }
    assert!(usage_of_call(&pacer).learned_rate().is_some());
    sleep(20 * SECOND).await;
    let _before: Vec<_> = (0..20).map(|_| send(&client, "/call")).collect();
    settle().await;
    let usage = usage_of_call(&pacer);
    assert!(usage.waiting() > 0 && usage.paused().is_zero(), "{usage:?}");
    let places = usage.concurrency().unwrap();
    assert_eq!((places.in_flight(), places.waiting()), (0, 0));
    let error = client.oneshot(at_most(Duration::from_millis(1))).await.unwrap_err();
    assert!(!wait_error(&error).is_concurrent(), "{error}");
    assert_eq!(wait_error(&error).limit().unwrap().name(), "call");
}
