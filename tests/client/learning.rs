//! What the server says of its limits.

use std::time::Duration;

use bolna_rate_limit::client::BolnaClientLayer;
use bolna_rate_limit::{Policy, Quota};
use http::Response;
use tokio::time::timeout;
use tower::Layer;

use crate::support::{Log, assert_all_ok, assert_at, limited, limiter, mock, principal, send_calls, usage_of_call};

const HOUR: Duration = Duration::from_secs(3600);

/// The response that says so.
fn says(rate_limit: &str) -> Response<()> {
    let mut response = Response::new(());
    let value = http::HeaderValue::from_bytes(rate_limit.as_bytes()).unwrap();
    response.headers_mut().insert("ratelimit", value);
    response
}

#[tokio::test(start_paused = true)]
async fn units_that_others_have_taken_are_not_spent() {
    // Another client has taken 400 of the 500 before this one begins.
    let (log, limiter) = (Log::new(), limiter(Policy::default()));
    for _ in 0..400 {
        limiter.check_now(&principal(), "/call").unwrap();
    }
    let client = BolnaClientLayer::new().layer(limited(&log, &limiter));
    assert_all_ok(&send_calls(&client, 1).await);
    let remaining = usage_of_call(&client.usage()).remaining();
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
    // The first response tells of it.
    assert_all_ok(&send_calls(&client, 1).await);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 119)).await.unwrap());
    assert_eq!(log.refused(), 0);
    let (least, took) = (Duration::from_secs(60), log.elapsed());
    assert!(took <= least.mul_f64(1.03), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wider_limit_than_the_policys_is_not_used() {
    let log = Log::new();
    let limiter = limiter(Policy::bolna().quota("call", Quota::per_minute(60_000)).build().unwrap());
    let client = BolnaClientLayer::new().layer(limited(&log, &limiter));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 1000)).await.unwrap());
    let (least, took) = (Duration::from_secs(60), log.elapsed());
    assert!(took >= least, "{took:?}");
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
        assert_eq!(usage_of_call(&client.usage()).paused(), Duration::ZERO, "{field:?}");
    }
}
