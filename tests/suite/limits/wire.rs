//! Several limits over the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::layer::LegacyReset;
use bolna_rate_limit::observe::{Observation, Observer};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{
    BolnaRateLimitLayer, Decision, Endpoint, Enforcement, Limiter, Policy, Principal, Quota,
};
use http::{HeaderMap, Method, StatusCode};

use super::{admitted, member, ten_four_fifteen};
use crate::support::{call_by, now, request, send, stopped_limiter, text};

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn an_admitted_response_reports_every_limit() {
    let policy = Policy::bolna()
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(100)))
        .build()
        .unwrap();
    let layer = BolnaRateLimitLayer::with_policy(policy);
    for remaining in [99, 98] {
        let response = send(&layer, call_by("u-1", "o-1")).await;
        let headers = response.headers();
        assert_eq!(
            lines(headers, "ratelimit-policy"),
            ["\"call\";q=500;w=60", "\"call-user\";q=100;w=60"]
        );
        let of_call = format!("\"call\";r={};t=60", remaining + 400);
        let of_user =
            format!("\"call-user\";r={remaining};t={}", (remaining * 60_u32).div_ceil(100));
        assert_eq!(lines(headers, "ratelimit"), [of_call, of_user]);
    }
}

#[tokio::test]
async fn a_refusal_reports_every_limit_and_names_those_that_refuse() {
    let (limiter, clock) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    admitted(&limiter, &member("u-1", "o-1"));
    let refused = send(&layer, call_by("u-1", "o-1")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = refused.headers().clone();
    assert_eq!(headers["retry-after"], "15");
    assert_eq!(
        lines(&headers, "ratelimit"),
        ["\"call\";r=6;t=36", "\"call-user\";r=0;t=15", "\"call-all\";r=11;t=44"]
    );
    let body: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(body["violated-policies"], serde_json::json!(["call-user"]));
    assert_eq!(
        body["detail"],
        "The quota of 4 requests per minute for each user, call-user, is used up. It refills at \
         that rate; wait 15 seconds."
    );
    assert_eq!(body["message"], "Rate limit of 4 requests per minute exceeded for call-user");

    // Another user of the organization drains it. Then both limits refuse the first one.
    admitted(&limiter, &member("u-2", "o-1"));
    admitted(&limiter, &member("u-3", "o-1"));
    clock.advance(Duration::from_secs(5));
    let refused = send(&layer, request(Method::GET, "/call", "u-1", "o-1")).await;
    assert_eq!(refused.headers()["retry-after"], "10", "the longest wait");
    assert_eq!(
        lines(refused.headers(), "ratelimit"),
        ["\"call\";r=0;t=1", "\"call-user\";r=0;t=10", "\"call-all\";r=6;t=24"]
    );
    let body: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(body["violated-policies"], serde_json::json!(["call", "call-user"]));
}

#[tokio::test]
async fn a_limit_for_everyone_is_not_taken_for_the_endpoints_own_of_the_same_name() {
    let everyone = LimitBuilder::everyone("fast", Quota::per_minute(1));
    let plan = Policy::builder().endpoint("fast", Quota::per_minute(9), ["/call"]).build().unwrap();
    let (limiter, _) = stopped_limiter(Policy::bolna().also("call", everyone).build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let account = member("u-1", "o-1").with_policy(plan);
    assert_eq!(admitted(&limiter, &account), 1);
    // As usual, and with older fields, whose refusals are written in another place.
    for layer in [layer.clone(), layer.legacy_headers(LegacyReset::DeltaSeconds)] {
        let mut request = call_by("u-1", "o-1");
        request.extensions_mut().insert(account.clone());
        let refused = text(send(&layer, request).await).await;
        let says = "The quota of 1 request per minute for all accounts together, fast, is used up.";
        assert!(refused.contains(says), "{refused}");
    }
}

#[tokio::test]
async fn the_refusal_of_a_blocked_user_names_the_endpoint() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let hour = Duration::from_secs(3600);
    now(limiter.block_user(member("u-1", "o-1"), Endpoint::CALL, hour)).unwrap();
    let refused = send(&layer, call_by("u-1", "o-1")).await;
    assert_eq!(refused.headers()["retry-after"], "3600");
    let body: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(body["message"], "Requests for call are blocked");
    assert_eq!(body.get("violated-policies"), None);
}

#[tokio::test]
async fn a_head_request_gets_the_same_fields_and_no_body() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    admitted(&limiter, &member("u-1", "o-1"));
    let get = send(&layer, request(Method::GET, "/call", "u-1", "o-1")).await;
    let head = send(&layer, request(Method::HEAD, "/call", "u-1", "o-1")).await;
    assert_eq!(lines(head.headers(), "ratelimit"), lines(get.headers(), "ratelimit"));
    assert_eq!(head.headers()["content-length"], text(get).await.len().to_string());
    assert_eq!(text(head).await, "");
}

#[tokio::test]
async fn limits_in_shadow_mode_are_reported_only_with_fields_in_shadow() {
    let policy = ten_four_fifteen().enforce("call-user", Enforcement::SHADOW).build().unwrap();
    let layer = BolnaRateLimitLayer::with_policy(policy);
    let response = send(&layer, call_by("u-1", "o-1")).await;
    assert_eq!(lines(response.headers(), "ratelimit").len(), 2);
    let response = send(&layer.clone().fields_in_shadow(), call_by("u-1", "o-1")).await;
    assert_eq!(lines(response.headers(), "ratelimit").len(), 3);
    let response = send(&layer.enforcement(Enforcement::SHADOW), call_by("u-1", "o-1")).await;
    assert_eq!(lines(response.headers(), "ratelimit").len(), 0);
}

#[tokio::test]
async fn the_older_fields_report_the_limit_with_the_least_left_or_the_one_that_refuses() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let layer =
        BolnaRateLimitLayer::with_limiter(limiter).legacy_headers(LegacyReset::DeltaSeconds);
    let response = send(&layer, call_by("u-1", "o-1")).await;
    assert_eq!(response.headers()["x-ratelimit-limit"], "4");
    assert_eq!(response.headers()["x-ratelimit-remaining"], "3");
    for _ in 0..3 {
        send(&layer, call_by("u-1", "o-1")).await;
    }
    let response = send(&layer, call_by("u-1", "o-1")).await;
    assert_eq!(
        (response.status(), &response.headers()["x-ratelimit-limit"]),
        (StatusCode::TOO_MANY_REQUESTS, &"4".parse().unwrap())
    );
    assert_eq!(response.headers()["x-ratelimit-reset"], "60");
}

#[tokio::test]
async fn a_renderer_of_refusals_sees_all_limits() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    admitted(&limiter, &member("u-1", "o-1"));
    let layer = BolnaRateLimitLayer::with_limiter(limiter).render_refusals(|refusal| {
        let decisions = refusal.ruling().decisions().iter();
        let left: Vec<_> =
            decisions.map(|it| format!("{}={}", it.name(), it.remaining())).collect();
        http::Response::new(left.join(" "))
    });
    let refused = send(&layer, call_by("u-1", "o-1")).await;
    assert_eq!(lines(refused.headers(), "ratelimit").len(), 3);
    assert_eq!(text(refused).await, "call=6 call-user=0 call-all=11");
}

#[tokio::test]
async fn observers_and_handlers_see_all_limits() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<(Option<Principal>, Vec<bool>)>>);

    impl Observer for Seen {
        fn on_decision(&self, observation: &Observation<'_>) {
            let allowed = observation.ruling.decisions().iter().map(Decision::is_allowed);
            self.0.lock().unwrap().push((observation.user.cloned(), allowed.collect()));
        }
    }

    let seen = Arc::new(Seen::default());
    let limiter = Limiter::new(ten_four_fifteen().build().unwrap());
    limiter.observe(Arc::clone(&seen));
    let layer = BolnaRateLimitLayer::with_limiter(limiter).ruling_in_extensions();
    for _ in 0..5 {
        send(&layer, call_by("u-1", "o-1")).await;
    }
    // One of the limits counts each user, so they see which user of the organization it was.
    let user = Principal::user("u-1");
    let mut expected = vec![(user.clone(), vec![true; 3]); 4];
    expected.push((user, vec![true, false, true]));
    assert_eq!(*seen.0.lock().unwrap(), expected);
    // No limit of this endpoint does.
    seen.0.lock().unwrap().clear();
    send(&layer, request(Method::GET, "/other", "u-1", "o-1")).await;
    assert_eq!(*seen.0.lock().unwrap(), [(None, vec![true])]);
}
