//! What the client learns from the limits that the server reports.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, WaitError};
use bolna_rate_limit::{Policy, Quota};
use http::{Request, Response};
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::support::{
    Log, assert_all_ok, assert_at, limited, limiter, mock, one_call_in, principal, request,
    send_calls, usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A response with that `RateLimit` field.
fn says(rate_limit: &str) -> Response<String> {
    let mut response = Response::new(String::new());
    let value = http::HeaderValue::from_bytes(rate_limit.as_bytes()).unwrap();
    response.headers_mut().insert("ratelimit", value);
    response
}

#[tokio::test(start_paused = true)]
async fn units_that_others_have_taken_are_not_spent() {
    // Another client has spent 400 of the 500 units before this one begins.
    let (log, limiter) = (Log::new(), limiter(Policy::default()));
    for _ in 0..400 {
        limiter.check_now(&principal().into(), "/call").unwrap();
    }
    let client = BolnaClientLayer::new().layer(limited(&log, &limiter));
    assert_all_ok(&send_calls(&client, 1).await);
    let remaining = usage_of_call(client.pacer()).remaining();
    assert!((93..=99).contains(&remaining), "{remaining}");
    assert_all_ok(&timeout(HOUR, send_calls(&client, 499)).await.unwrap());
    assert_eq!(log.refused(), 0);
    let (least, took) = (Duration::from_secs(48), log.elapsed());
    assert!(took <= least.mul_f64(1.02), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stricter_limit_than_the_policys_is_believed() {
    let log = Log::new();
    let limiter = limiter(Policy::bolna().quota("call", Quota::per_minute(60)).build().unwrap());
    let client = BolnaClientLayer::new().layer(limited(&log, &limiter));
    // The first response reports it.
    assert_all_ok(&send_calls(&client, 1).await);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 119)).await.unwrap());
    assert_eq!(log.refused(), 0);
    let (least, took) = (Duration::from_secs(60), log.elapsed());
    assert!(took <= least.mul_f64(1.03), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wider_limit_than_the_policys_is_not_used() {
    let log = Log::new();
    let limiter =
        limiter(Policy::bolna().quota("call", Quota::per_minute(60_000)).build().unwrap());
    let client = BolnaClientLayer::new().layer(limited(&log, &limiter));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 1000)).await.unwrap());
    let (least, took) = (Duration::from_secs(60), log.elapsed());
    assert!(took >= least, "{took:?}");
}

/// Reports once that the quota is one request in a hundred years, and that no units are left.
fn absurd(number: usize) -> Response<String> {
    let mut response = says("\"call\";r=0");
    let policy = http::HeaderValue::from_static("\"call\";q=1;w=3155760000");
    response.headers_mut().insert("ratelimit-policy", policy);
    if number == 1 { response } else { Response::new(String::new()) }
}

#[tokio::test(start_paused = true)]
async fn no_quota_that_a_server_tells_locks_an_endpoint_up() {
    // This holds whatever happens to the requests that are sent after it.
    for lost in ["says nothing", "fails", "is dropped"] {
        let log = Log::new();
        let server = mock(&log, absurd);
        let server = service_fn(move |request: Request<String>| {
            let (server, is_first) = (server.clone(), request.uri().query() == Some("0"));
            async move {
                let response = server.oneshot(request).await?;
                match lost {
                    "fails" if !is_first => Err(BoxError::from("broken")),
                    "is dropped" if !is_first => std::future::pending().await,
                    _ => Ok(response),
                }
            }
        });
        let client = PaceLayer::default().layer(server);
        for hour in 0..10 {
            let call = client.clone().oneshot(request(&format!("/call?{hour}")));
            let _ = timeout(Duration::from_secs(1), call).await;
            assert_eq!(log.len(), hour + 1, "after {hour} hours, when one {lost}");
            sleep(HOUR + Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_years() {
    let log = Log::new();
    let pacer = Pacer::builder().policy(one_call_in(Duration::from_secs(1))).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(mock(&log, absurd));
    let answers = timeout(HOUR, send_calls(&client, 10)).await.unwrap();
    assert!(answers[0].is_ok());
    assert!(
        answers[1..]
            .iter()
            .all(|answer| answer.as_ref().is_err_and(|error| error.is::<WaitError>()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_not_told_again_is_forgotten_after_an_hour() {
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(mock(&log, absurd));
    assert_all_ok(&send_calls(&client, 1).await);
    sleep(HOUR).await;
    assert_all_ok(&timeout(HOUR, send_calls(&client, 1000)).await.unwrap());
    let (least, took) = (Duration::from_secs(60), log.elapsed() - HOUR);
    assert!(took <= least.mul_f64(1.02), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_wrong_change_nothing() {
    for field in [
        "",
        " ",
        ",",
        "call",
        "\"call\"",
        "\"call",
        "\"call\";r",
        "\"call\";r=",
        "\"call\";r=-1",
        "\"call\";r=1.5",
        "\"call\";r=\"0\"",
        "\"call\";r=?0",
        "\"call\";r=1000000000000000",
        "\"call\";r=0;t=-1, \"call\";r=",
        "\"call\";r=0;t=5,",
        "\"call\";r=0;t=5;",
        "\"call\";r=0, ;",
        "\"call\";R=0",
        "(\"call\");r=0",
        "\"c\u{e4}ll\";r=0",
        "r=0;t=60",
        "limit=500, remaining=soon, reset=60",
        "0",
        "soon",
    ] {
        let log = Log::new();
        let client = BolnaClientLayer::new().layer(mock(&log, move |_| says(field)));
        assert_all_ok(&send_calls(&client, 1).await);
        assert_all_ok(&send_calls(&client, 494).await);
        assert_at(log.elapsed(), Duration::ZERO);
        assert_eq!(usage_of_call(client.pacer()).paused(), Duration::ZERO, "{field:?}");
    }
}
