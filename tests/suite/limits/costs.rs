//! Requests that cost more than one unit, and checks by the name of an endpoint.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::observe::{Advice, Event};
use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::values::{Costs, LimitName, Outcome};
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, PolicyError, Quota,
};
use http::{Method, Request, StatusCode};

use super::{call, left, member, named};
use crate::support::{now, request, send, stopped_limiter, text};

/// 500 calls and 100 rows a minute; a call costs 20 rows.
fn with_rows() -> PolicyBuilder {
    Policy::bolna().also("call", LimitBuilder::account("rows", Quota::per_minute(100)).cost(20))
}

fn rows() -> LimitName {
    LimitName::new("rows").unwrap()
}

#[test]
fn a_request_is_charged_to_a_limit_of_rows_and_to_one_of_requests() {
    let (limiter, clock) = stopped_limiter(with_rows().build().unwrap());
    let caller = member("u-1", "o-1");
    (0..5).for_each(|_| assert!(call(&limiter, &caller).is_admitted()));
    let refused = call(&limiter, &caller);
    assert!(!refused.is_admitted());
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(12)));
    assert_eq!(left(&limiter, &caller), [("call", 495), ("rows", 0)]);
    clock.advance(Duration::from_secs(11));
    assert_eq!(left(&limiter, &caller)[1], ("rows", 18));
    assert!(!call(&limiter, &caller).is_admitted());
    clock.advance(Duration::from_secs(1));
    assert!(call(&limiter, &caller).is_admitted());
}

#[tokio::test]
async fn a_closure_on_the_head_says_what_a_request_costs() {
    let limiter = Limiter::new(with_rows().build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .cost(rows(), |head| head.headers.get("x-rows")?.to_str().ok()?.parse::<u32>().ok());
    let call = |rows: Option<&str>| {
        let mut call = request(Method::POST, "/call", "u-1", "o-1");
        if let Some(rows) = rows {
            call.headers_mut().insert("x-rows", rows.parse().unwrap());
        }
        call
    };
    let mut expected = 100;
    // Without a number it is the policy's cost, and 0 is treated as 1.
    for (rows, cost) in [(Some("30"), 30), (None, 20), (Some("?"), 20), (Some("0"), 1)] {
        assert_eq!(send(&layer, call(rows)).await.status(), StatusCode::OK);
        expected -= cost;
        assert_eq!(left(&limiter, &member("u-1", "o-1"))[1], ("rows", expected));
    }
    let refused = send(&layer, call(Some("30"))).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    // 1 row is missing, which takes 0.6 s.
    assert_eq!(refused.headers()["retry-after"], "1");
    let fields: Vec<_> = refused.headers().get_all("ratelimit").iter().collect();
    assert_eq!(fields, ["\"call\";r=496;t=60", "\"rows\";r=29;t=1"]);
    let body = text(refused).await;
    assert!(body.contains(
        "\"detail\":\"The quota of 100 requests per minute for each account, rows, has 29 units left, \
         and the request costs 30."
    ), "{body}");
    // Requests that do not have the limit are not concerned.
    let other = request(Method::GET, "/user/me", "u-1", "o-1");
    assert_eq!(send(&layer, other).await.headers()["ratelimit"], "\"default\";r=999;t=60");
}

#[tokio::test]
async fn a_request_that_can_never_be_allowed_is_refused_with_413_and_diagnosed() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let limiter = Limiter::new(with_rows().build().unwrap());
    limiter.on_event({
        let events = Arc::clone(&events);
        move |event| events.lock().unwrap().push(event.clone())
    });
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).cost(rows(), |_| 101);
    let call = || request(Method::POST, "/call", "u-1", "o-1");
    for _ in 0..2 {
        let refused = send(&layer, call()).await;
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused.headers().get("retry-after"), None);
        assert_eq!(refused.headers().get("ratelimit"), None);
        assert_eq!(
            text(refused).await,
            "{\"type\":\"about:blank\",\"title\":\"Payload Too Large\",\"status\":413,\
             \"detail\":\"The request costs 101 units of the limit rows, which never has more than \
             100. Waiting does not help; ask for less at once.\",\"error\":413,\
             \"message\":\"The request costs 101 of rows, and at most 100 are allowed at once\"}"
        );
    }
    assert_eq!(left(&limiter, &member("u-1", "o-1")), [("call", 500), ("rows", 100)]);
    let advice = events.lock().unwrap().clone();
    assert!(
        matches!(&advice[..], [Event::Advice(Advice::CostAboveBurst { limit, cost: 101, .. })]
            if limit.name() == rows()),
        "once: {advice:?}"
    );
    assert!(advice[0].to_string().starts_with("BRL009: a request costs 101 units of rows"));

    let other = layer.clone().too_costly_status(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(send(&other, call()).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    // In shadow mode it is admitted.
    let shadow = layer.enforcement(Enforcement::SHADOW);
    assert_eq!(send(&shadow, call()).await.status(), StatusCode::OK);
}

#[test]
fn a_cost_above_the_burst_of_a_shadow_limit_does_not_stop_the_other_limits() {
    let policy = with_rows().enforce("rows", Enforcement::SHADOW).build().unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let events = Arc::new(Mutex::new(Vec::new()));
    limiter.on_event({
        let events = Arc::clone(&events);
        move |event| events.lock().unwrap().push(event.name())
    });
    let caller = member("u-1", "o-1");
    let costs = Costs::default().of(rows(), 101);
    let ruling = limiter.check_endpoint_now(&caller, Endpoint::CALL, costs).unwrap();
    assert!(ruling.is_admitted());
    assert_eq!(left(&limiter, &caller), [("call", 499), ("rows", 100)]);
    assert_eq!(*events.lock().unwrap(), ["BRL009"]);
}

#[test]
fn work_that_is_not_a_request_is_checked_by_the_name_of_an_endpoint() {
    let (limiter, _) = stopped_limiter(with_rows().build().unwrap());
    let caller = member("u-1", "o-1");
    // As much as three requests, of every limit.
    let ruling = limiter.check_endpoint_now(&caller, Endpoint::CALL, 3).unwrap();
    let left: Vec<_> = ruling.decisions().iter().map(named).collect();
    assert_eq!(left, [("call", 497), ("rows", 40)]);
    let ruling = limiter.check_endpoint_now(&caller, Endpoint::CALL, 3).unwrap();
    assert!(!ruling.is_admitted());
    let costs = Costs::times(3).of(rows(), 40);
    assert!(limiter.check_endpoint_now(&caller, Endpoint::CALL, costs).unwrap().is_admitted());
    let ruling = limiter.check_endpoint_now(&caller, Endpoint::CALL, 6).unwrap();
    assert_eq!(ruling.outcome(), Outcome::TooCostly);
    assert_eq!(
        ruling.too_costly_for().map(|(limit, cost)| (limit.name(), cost)),
        Some((rows(), 120))
    );
    // A misspelt name must not open the gate.
    let unknown = Endpoint::new("calls").unwrap();
    assert_eq!(limiter.check_endpoint_now(&caller, unknown, 1), None);
    let error = now(limiter.check_endpoint(&caller, unknown, 1).wait()).unwrap_err();
    assert_eq!(error.kind(), "no_endpoint");
    // Nor must an account without ids.
    let unidentified = limiter.check_endpoint_now(&Account::user(""), Endpoint::CALL, 1).unwrap();
    assert!(!unidentified.is_admitted());
}

#[test]
fn a_peek_foretells_a_check_of_the_same_costs() {
    let (limiter, _) = stopped_limiter(with_rows().build().unwrap());
    let caller = member("u-1", "o-1");
    for (costs, is_admitted) in [(5, true), (6, false)] {
        let peek = now(limiter.peek_costs(&caller, Endpoint::CALL, costs)).unwrap().unwrap();
        assert_eq!(peek.is_admitted(), is_admitted);
    }
    assert_eq!(left(&limiter, &caller), [("call", 500), ("rows", 100)]);
}

#[test]
fn a_cost_that_no_bucket_holds_is_an_error_of_the_policy() {
    for cost in [0, 101] {
        let error = with_rows().cost("rows", cost).build().unwrap_err();
        assert_eq!(error, PolicyErrorOf(cost).into());
        assert_eq!(
            error.to_string(),
            format!(
                "cost of limit \"rows\": it is {cost}, and must be from 1 to the burst, 100, since \
                 the bucket never holds more units"
            )
        );
    }
    assert!(with_rows().cost("rows", 100).build().is_ok());

    struct PolicyErrorOf(u32);

    impl From<PolicyErrorOf> for PolicyError {
        fn from(PolicyErrorOf(cost): PolicyErrorOf) -> Self {
            match with_rows().cost("rows", cost).build() {
                Err(error @ PolicyError::Cost { .. }) => error,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_cost_of_a_limit_that_the_policy_does_not_have_is_reported() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let limiter = Limiter::new(with_rows().build().unwrap());
    limiter.on_event({
        let events = Arc::clone(&events);
        move |event| events.lock().unwrap().push(event.name())
    });
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    let _known = layer.clone().cost(rows(), |_| 1);
    assert!(events.lock().unwrap().is_empty());
    let _misspelt = layer.cost(LimitName::new("row").unwrap(), |_: &http::request::Parts| Some(1));
    assert_eq!(*events.lock().unwrap(), ["BRL010"]);
    let _ = Request::new(());
}
