//! A cap on the wait that refusals say.

use std::time::Duration;

use bolna_rate_limit::layer::{Dialect, LegacyReset, Reason, ResponseBody};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Limiter, Policy, Quota};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use proptest::prelude::*;
use serde_json::Value;

use crate::deferred::lost_store;
use crate::support::{call_by, now, one_call, organization, request, send, stopped_limiter, text};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The time in which a unit comes back to the caller of the property.
const INTERVAL: Duration = Duration::from_secs(30);

type Layer = BolnaRateLimitLayer<MemoryStore<ManualClock>>;

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// `Retry-After` and `retry-after-ms`.
fn told(headers: &HeaderMap) -> [Option<&str>; 2] {
    ["Retry-After", "retry-after-ms"].map(|name| field(headers, name))
}

/// A refusal: its fields and its body.
async fn refused(layer: &Layer, request: Request<String>) -> (HeaderMap, String) {
    let response = send(layer, request).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    (response.headers().clone(), text(response).await)
}

#[tokio::test]
async fn a_client_that_waits_as_told_finds_a_block_lifted_early() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let capped = layer.clone().max_retry_after(MINUTE);
    limiter.block(&organization("o"), Endpoint::CALL, HOUR).await.unwrap();
    for (layer, seconds) in [(&layer, "3600"), (&capped, "60"), (&layer, "3600"), (&capped, "60")] {
        let (headers, body) = refused(layer, call_by("u", "o")).await;
        assert_eq!(told(&headers), [Some(seconds), None]);
        // The block is an hour long all the same.
        assert_eq!(field(&headers, "RateLimit"), Some("\"call\";r=0;t=3600"));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["detail"].as_str().unwrap().contains("Wait 3600 seconds"), "{body}");
    }
    clock.advance(MINUTE);
    let (headers, _) = refused(&capped, call_by("u", "o")).await;
    assert_eq!(told(&headers), [Some("60"), None]);
    limiter.block(&organization("o"), Endpoint::CALL, Duration::ZERO).await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(send(&capped, call_by("u", "o")).await.status(), StatusCode::OK);
}

/// One request a day, of which eight hours have passed when the second one is refused.
#[tokio::test]
async fn a_limit_by_the_day_tells_the_cap_in_every_field_that_says_when_to_try_again() {
    let policy = Policy::bolna().quota("call", Quota::per_day(1)).build().unwrap();
    let (limiter, clock) = stopped_limiter(policy);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).max_retry_after(HOUR);
    let legacy = layer.clone().retry_after_ms().legacy_headers(LegacyReset::DeltaSeconds);
    let off = layer.clone().dialect(Dialect::Off);
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), StatusCode::OK);
    clock.advance(8 * HOUR + Duration::from_millis(500));
    for layer in [&layer, &legacy, &off] {
        let (headers, body) = refused(layer, call_by("u", "o")).await;
        assert_eq!(field(&headers, "Retry-After"), Some("3600"));
        assert!(body.contains("wait 57600 seconds"), "{body}");
        let head = send(layer, request(Method::HEAD, "/call", "u", "o")).await;
        assert_eq!(told(head.headers()), told(&headers));
        assert_eq!(field(head.headers(), "Content-Length"), Some(&*body.len().to_string()));
    }
    let (headers, _) = refused(&legacy, call_by("u", "o")).await;
    assert_eq!(told(&headers), [Some("3600"), Some("3600000")]);
    assert_eq!(field(&headers, "X-RateLimit-Reset"), Some("57600"));
    assert_eq!(field(&headers, "RateLimit"), Some("\"call\";r=0;t=57600"));
}

#[tokio::test]
async fn several_limits_are_capped_together() {
    let day = LimitBuilder::account("day", Quota::per_day(1));
    let user = LimitBuilder::user("user", Quota::per_hour(1));
    let policy = Policy::bolna().also("call", day).also("call", user).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).max_retry_after(MINUTE);
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), StatusCode::OK);
    for (user, violated) in [("v", 1), ("u", 2), ("v", 1), ("u", 2)] {
        let (headers, body) = refused(&layer, call_by(user, "o")).await;
        assert_eq!(told(&headers), [Some("60"), None]);
        assert!(body.contains("wait 86400 seconds"), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["violated-policies"].as_array().unwrap().len(), violated);
        let limits: Vec<_> = headers.get_all("RateLimit").iter().collect();
        assert!(limits.iter().any(|limit| *limit == "\"day\";r=0;t=86400"), "{limits:?}");
    }
}

#[tokio::test]
async fn a_cap_that_is_no_shorter_than_the_wait_changes_nothing() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).retry_after_ms();
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), StatusCode::OK);
    let as_usual = refused(&layer, call_by("u", "o")).await;
    assert_eq!(told(&as_usual.0), [Some("10"), Some("10000")]);
    for cap in [Duration::from_secs(10), Duration::from_secs(11), HOUR, Duration::MAX] {
        let capped = layer.clone().max_retry_after(cap);
        assert_eq!(refused(&capped, call_by("u", "o")).await, as_usual, "{cap:?}");
    }
}

#[tokio::test]
async fn a_cap_is_in_whole_seconds_and_at_least_one() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).retry_after_ms();
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), StatusCode::OK);
    for (cap, fields) in [
        (Duration::ZERO, ["1", "1000"]),
        (Duration::from_nanos(1), ["1", "1000"]),
        (Duration::from_millis(1999), ["1", "1000"]),
        (Duration::from_secs(2), ["2", "2000"]),
        (Duration::from_millis(9999), ["9", "9000"]),
    ] {
        let capped = layer.clone().max_retry_after(cap);
        let (headers, _) = refused(&capped, call_by("u", "o")).await;
        assert_eq!(told(&headers), fields.map(Some), "{cap:?}");
    }
}

#[tokio::test]
async fn a_renderer_sees_the_wait_that_is_told_and_can_look_up_the_true_one() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.block(&organization("o"), Endpoint::CALL, HOUR).await.unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter).max_retry_after(MINUTE);
    let own = layer.clone().render_refusals(|refusal| {
        assert_eq!(refusal.ruling().retry_after(), Some(HOUR));
        let Reason::Limited(decision) = refusal.reason() else { panic!("{refusal:?}") };
        assert_eq!(decision.retry_after(), Some(HOUR));
        assert!(refusal.detail().contains("3600 seconds"));
        let (wait, millis) = (refusal.wait(), refusal.wait_ms());
        Response::builder().status(429).body(format!("{wait:?} {millis:?}")).unwrap()
    });
    let (headers, body) = refused(&own, call_by("u", "o")).await;
    assert_eq!((told(&headers), &*body), ([Some("60"), None], "Some(60s) Some(60000)"));
    // The closure has the last word.
    let own = layer.render_refusals(|_| {
        Response::builder().status(429).header("Retry-After", "7").body("own").unwrap()
    });
    assert_eq!(told(&refused(&own, call_by("u", "o")).await.0), [Some("7"), None]);
}

#[tokio::test]
async fn a_renderer_sees_the_wait_in_milliseconds_rounded_up() {
    let policy = Policy::bolna().quota("call", Quota::per_minute(1)).build().unwrap();
    let (limiter, clock) = stopped_limiter(policy);
    let own = BolnaRateLimitLayer::with_limiter(limiter).render_refusals(|refusal| {
        Response::builder().status(429).body(format!("{:?}", refusal.wait_ms())).unwrap()
    });
    assert_eq!(send(&own, call_by("u", "o")).await.status(), StatusCode::OK);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(refused(&own, call_by("u", "o")).await.1, "Some(60000)");
    clock.advance(Duration::from_millis(1));
    assert_eq!(refused(&own, call_by("u", "o")).await.1, "Some(59999)");
    let mut nobody = call_by("u", "o");
    nobody.extensions_mut().clear();
    let unidentified = text(send(&own, nobody).await).await;
    assert_eq!(unidentified, "None");
}

#[tokio::test]
async fn refusals_without_a_limit_are_as_ever() {
    let lost = Limiter::with_store(Policy::default(), lost_store()).unwrap();
    for cap in [Duration::ZERO, HOUR] {
        let layer = BolnaRateLimitLayer::with_limiter(lost.clone()).max_retry_after(cap);
        let response: Response<ResponseBody<_>> = send(&layer, call_by("u", "o")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told(response.headers()), [Some("1"), None]);
        let layer = BolnaRateLimitLayer::new().max_retry_after(cap);
        let response = send(&layer, call_by("", "")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(told(response.headers()), [None, None]);
    }
}

/// Sends requests of one caller, each after a pause and through a layer with one of the caps or
/// with none. Checks what each refusal tells.
fn each_refusal_names_the_wait_of_its_layer(
    quota: Quota,
    caps: &[u64],
    requests: Vec<(usize, u8, u64)>,
) -> Result<(), TestCaseError> {
    let policy = Policy::bolna().quota("call", quota).build().unwrap();
    let (limiter, clock) = stopped_limiter(policy);
    let plain = BolnaRateLimitLayer::with_limiter(limiter);
    let mut left = Duration::ZERO;
    for (index, form, millis) in requests {
        let pause = Duration::from_millis(millis);
        clock.advance(pause);
        left = left.saturating_sub(pause);
        let cap = caps.get(index).map(|seconds| Duration::from_secs(*seconds));
        let layer = cap.into_iter().fold(plain.clone(), Layer::max_retry_after);
        let layer = match form {
            0 => layer.retry_after_ms(),
            1 => layer.dialect(Dialect::Off),
            _ => layer,
        };
        let response = now(send(&layer, call_by("u", "o")));
        let is_admitted = response.status() == StatusCode::OK;
        prop_assert_eq!(is_admitted, left.is_zero());
        if is_admitted {
            left = INTERVAL;
            continue;
        }
        let wait = left.min(cap.unwrap_or(Duration::MAX));
        let seconds = |wait: Duration| wait.as_millis().div_ceil(1_000).to_string();
        let fields = [
            Some(seconds(wait)),
            (form == 0).then(|| wait.as_millis().to_string()),
            (form != 1).then(|| format!("\"call\";r=0;t={}", seconds(left))),
        ];
        let sent = ["Retry-After", "retry-after-ms", "RateLimit"]
            .map(|name| field(response.headers(), name).map(str::to_owned));
        prop_assert_eq!(sent, fields);
        let true_wait = format!("wait {} second", seconds(left));
        let body = now(text(response));
        prop_assert!(body.contains(&true_wait), "{} {}", body, true_wait);
    }
    Ok(())
}

proptest! {
    /// Refusals are rendered once and used again, also by other layers.
    #[test]
    fn layers_with_several_caps_on_one_limiter_each_tell_their_own(
        caps in prop::collection::vec(1..40_u64, 1..4),
        requests in prop::collection::vec(
            (0..4_usize, 0..6_u8, prop_oneof![4 => Just(0), 1 => 0..4_000_u64]),
            1..60,
        ),
        limit in 1..10_000_u32,
    ) {
        // A thread renders few texts for reuse, and they are kept for the life of the process. So
        // each run has a thread and a quota of its own.
        let quota = Quota::per(limit, INTERVAL * limit).burst(1).build().unwrap();
        let run = move || each_refusal_names_the_wait_of_its_layer(quota, &caps, requests);
        std::thread::spawn(run).join().unwrap()?;
    }
}
