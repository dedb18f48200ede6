//! The responses as a client sees them.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::layer::{BolnaRateLimit, Dialect, LegacyReset, Reason, Refusal};
use bolna_rate_limit::store::{
    Answer, Charge, Command, Entry, Immediate, MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Limiter, Policy, Principal, Quota, Ruling};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use serde_json::{Value, json};
use sfv::{BareItem, List, ListEntry, Parser};
use tower::{Layer, ServiceExt};

use crate::observers::Witness;
use crate::support::{call_by, ok, one_call, organization, request, stopped_limiter, text};

/// The members of a structured list (RFC 9651): the text of each item and its integer parameters.
fn members(headers: &HeaderMap, name: &str) -> Vec<(String, Vec<(String, i64)>)> {
    let field: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
    let list: List = Parser::new(&field.join(", ")).parse().unwrap();
    list.into_iter()
        .map(|entry| {
            let ListEntry::Item(item) = entry else { panic!("{name} holds an inner list") };
            let BareItem::String(text) = item.bare_item else {
                panic!("{name} holds something else than a string")
            };
            let parameters = item.params.into_iter().map(|(key, value)| {
                let BareItem::Integer(value) = value else {
                    panic!("{name} has a parameter that is no integer")
                };
                (key.as_str().to_owned(), value.into())
            });
            (text.as_str().to_owned(), parameters.collect())
        })
        .collect()
}

fn member(name: &str, parameters: [(&str, i64); 2]) -> (String, Vec<(String, i64)>) {
    (name.to_owned(), parameters.map(|(key, value)| (key.to_owned(), value)).to_vec())
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn an_admitted_request_is_told_what_is_left() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    for remaining in (250..500).rev() {
        let response = service.clone().oneshot(call_by("u", "o")).await.unwrap();
        assert_eq!(members(response.headers(), "RateLimit")[0].1[0], ("r".to_owned(), remaining));
    }
    clock.advance(Duration::from_millis(120));
    let response = service.oneshot(call_by("u", "o")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        members(response.headers(), "RateLimit-Policy"),
        [member("call", [("q", 500), ("w", 60)])]
    );
    assert_eq!(members(response.headers(), "RateLimit"), [member("call", [("r", 250), ("t", 30)])]);
    assert_eq!(field(response.headers(), "Retry-After"), None);
    assert_eq!(text(response).await, "inner");
}

#[tokio::test]
async fn a_refusal_says_why_and_how_long_in_every_form_that_clients_read() {
    let (limiter, clock) = stopped_limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    assert_eq!(service.clone().oneshot(call_by("u", "o")).await.unwrap().status(), StatusCode::OK);
    clock.advance(Duration::from_millis(7001));

    let response = service.oneshot(call_by("u", "o")).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = response.headers();
    assert_eq!(field(headers, "Retry-After"), Some("3"), "2.999 s, rounded up");
    assert_eq!(members(headers, "RateLimit-Policy"), [member("call", [("q", 1), ("w", 10)])]);
    assert_eq!(members(headers, "RateLimit"), [member("call", [("r", 0), ("t", 3)])]);
    assert_eq!(field(headers, "Cache-Control"), Some("no-store"));
    assert_eq!(field(headers, "Content-Type"), Some("application/problem+json"));
    assert_eq!(field(headers, "retry-after-ms"), None);
    assert_eq!(field(headers, "X-RateLimit-Limit"), None);

    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    let words = |member: &str| body[member].as_str().unwrap().to_owned();
    for member in ["detail", "message"] {
        assert!(words(member).contains("1 request per 10 seconds"), "{body}");
    }
    // Clients append the wait to the message, so it is not said twice.
    assert!(words("detail").contains("wait 3 seconds"), "{body}");
    assert!(!words("message").contains("3 seconds"), "{body}");
    let expected = json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": words("detail"),
        "violated-policies": ["call"],
        "error": 429,
        "message": words("message"),
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_caller_who_is_blocked_is_not_told_of_his_quota() {
    let (limiter, clock) = stopped_limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    let caller = organization("o");
    // Refusals by the quota with the same waits are rendered before.
    for millis in [0, 0, 9000] {
        clock.advance(Duration::from_millis(millis));
        let response = service.clone().oneshot(call_by("u", "o")).await.unwrap();
        assert!(!text(response).await.contains("blocked"));
    }
    clock.advance(Duration::from_secs(1));
    for (period, seconds, words) in [
        (Duration::from_nanos(1), 1, "1 second"),
        (Duration::from_secs(10), 10, "10 seconds"),
        (Duration::from_nanos(86_400_000_000_001), 86_401, "86401 seconds"),
        (Duration::MAX, 3_155_760_000, "3155760000 seconds"),
    ] {
        limiter.block(&caller, Endpoint::CALL, period).await.unwrap();
        let response = service.clone().oneshot(call_by("u", "o")).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let headers = response.headers();
        assert_eq!(field(headers, "Retry-After"), Some(&*seconds.to_string()));
        assert_eq!(members(headers, "RateLimit-Policy"), [member("call", [("q", 1), ("w", 10)])]);
        assert_eq!(members(headers, "RateLimit"), [member("call", [("r", 0), ("t", seconds)])]);
        assert_eq!(field(headers, "Cache-Control"), Some("no-store"));
        assert_eq!(field(headers, "Content-Type"), Some("application/problem+json"));
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        let expected = json!({
            "type": "about:blank",
            "title": "Too Many Requests",
            "status": 429,
            "detail":
                format!(
                    "Requests for endpoint call are blocked for now, whatever is left of the \
                     quota. Wait {words}."
                ),
            "error": 429,
            "message": "Requests for call are blocked",
        });
        assert_eq!(body, expected);
    }
    // The bucket has a unit, which can be used as soon as the block is lifted.
    limiter.block(&caller, Endpoint::CALL, Duration::ZERO).await.unwrap();
    assert_eq!(service.clone().oneshot(call_by("u", "o")).await.unwrap().status(), StatusCode::OK);
    // A refusal by the quota names the quota again.
    let response = service.oneshot(call_by("u", "o")).await.unwrap();
    assert!(text(response).await.contains("1 request per 10 seconds"));
}

#[tokio::test]
async fn older_fields_and_renderers_know_of_a_block() {
    let (limiter, _clock) = stopped_limiter(one_call());
    limiter.block(&organization("o"), Endpoint::CALL, Duration::from_millis(90_500)).await.unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter)
        .retry_after_ms()
        .legacy_headers(LegacyReset::DeltaSeconds);
    let service = layer
        .render_refusals(|refusal: &Refusal<'_>| match refusal.reason() {
            Reason::Limited(decision) if decision.is_blocked() => {
                Response::new(Bytes::from_static(b"blocked"))
            }
            _ => refusal.problem(),
        })
        .layer(tower::service_fn(ok));
    let response = service.oneshot(call_by("u", "o")).await.unwrap();
    let names = [
        "Retry-After",
        "retry-after-ms",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    ];
    let sent = names.map(|name| field(response.headers(), name));
    assert_eq!(sent, [Some("91"), Some("90500"), Some("1"), Some("0"), Some("91")]);
    assert_eq!(text(response).await, "blocked");
}

#[tokio::test]
async fn the_last_second_of_a_wait_is_never_rounded_to_nothing() {
    let (limiter, clock) = stopped_limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    let waits = [
        (0, None),
        (1, Some("10")),
        (9_000_000_000, Some("1")),
        (999_999_998, Some("1")),
        (1, None),
    ];
    for (wait, retry_after) in waits {
        clock.advance(Duration::from_nanos(wait));
        let response = service.clone().oneshot(call_by("u", "o")).await.unwrap();
        assert_eq!(field(response.headers(), "Retry-After"), retry_after, "after {wait} ns more");
    }
}

#[tokio::test]
async fn nothing_that_identifies_a_caller_goes_out() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter)
        .legacy_headers(LegacyReset::DeltaSeconds)
        .retry_after_ms();
    let service = layer.layer(tower::service_fn(ok));
    for _ in 0..2 {
        let response = service.clone().oneshot(call_by("u-secret", "o-secret")).await.unwrap();
        let sent = format!("{:?}", response.headers()) + &text(response).await;
        assert!(!sent.contains("secret") && !sent.contains("pk="), "{sent}");
    }
}

#[tokio::test]
async fn an_upstreams_own_fields_stay() {
    async fn limited_too(_: Request<String>) -> Result<Response<String>, Infallible> {
        let fields = [("RateLimit", "\"gpu\";r=7;t=9"), ("RateLimit-Policy", "\"gpu\";q=10;w=60")];
        let response = fields
            .iter()
            .fold(Response::builder(), |response, (name, value)| response.header(*name, *value));
        Ok(response.body(String::new()).unwrap())
    }
    let service = BolnaRateLimitLayer::new().layer(tower::service_fn(limited_too));
    let response = service.oneshot(call_by("u", "o")).await.unwrap();
    let ours = member("call", [("r", 499), ("t", 60)]);
    assert_eq!(
        members(response.headers(), "RateLimit"),
        [member("gpu", [("r", 7), ("t", 9)]), ours]
    );
    let ours = member("call", [("q", 500), ("w", 60)]);
    assert_eq!(
        members(response.headers(), "RateLimit-Policy"),
        [member("gpu", [("q", 10), ("w", 60)]), ours]
    );
}

#[tokio::test]
async fn nobody_is_a_401_without_rate_limit_fields() {
    let service = BolnaRateLimitLayer::new().layer(tower::service_fn(ok));
    let strangers = [Request::post("/call").body(String::new()).unwrap(), call_by("", "")];
    for request in strangers {
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(field(response.headers(), "WWW-Authenticate"), Some("Bearer realm=\"api\""));
        assert_eq!(field(response.headers(), "Content-Type"), Some("application/problem+json"));
        for name in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
            assert_eq!(field(response.headers(), name), None);
        }
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!((&body["status"], &body["error"]), (&json!(401), &json!(401)));
        assert!(body["message"].is_string());
    }
}

#[tokio::test]
async fn strangers_are_refused_alike_whoever_came_before() {
    let plain = BolnaRateLimitLayer::new().layer(tower::service_fn(ok));
    let rendered = BolnaRateLimitLayer::new()
        .render_refusals(|refusal: &Refusal<'_>| {
            let mut response = Response::new(Bytes::from_static(b"who are you?"));
            *response.status_mut() = refusal.status();
            response
        })
        .layer(tower::service_fn(ok));
    let stranger = |method: Method| {
        Request::builder().method(method).uri("/call").body(String::new()).unwrap()
    };
    for _ in 0..2 {
        let head = plain.clone().oneshot(stranger(Method::HEAD)).await.unwrap();
        assert!(head.body().is_end_stream());
        let length = field(head.headers(), "Content-Length").unwrap().to_owned();
        let other = rendered.clone().oneshot(stranger(Method::GET)).await.unwrap();
        assert_eq!(field(other.headers(), "WWW-Authenticate"), Some("Bearer realm=\"api\""));
        assert_eq!(text(other).await, "who are you?");
        let get = plain.clone().oneshot(stranger(Method::GET)).await.unwrap();
        assert_eq!(field(get.headers(), "Content-Type"), Some("application/problem+json"));
        assert_eq!(text(get).await.len().to_string(), length);
    }
}

#[tokio::test]
async fn a_refused_head_has_the_fields_of_a_get_and_no_content() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    service.clone().oneshot(call_by("u", "o")).await.unwrap();
    let get = service.clone().oneshot(request(Method::GET, "/call", "u", "o")).await.unwrap();
    let head = service.oneshot(request(Method::HEAD, "/call", "u", "o")).await.unwrap();
    assert_eq!(get.status(), head.status());
    for name in ["RateLimit", "RateLimit-Policy", "Retry-After", "Content-Type", "Cache-Control"] {
        assert_eq!(field(head.headers(), name), field(get.headers(), name));
        assert!(head.headers().contains_key(name));
    }
    assert!(head.body().is_end_stream());
    let length = field(head.headers(), "Content-Length").unwrap().to_owned();
    assert_eq!(text(head).await, "");
    assert_eq!(text(get).await.len().to_string(), length);
}

#[tokio::test]
async fn older_fields_are_sent_to_those_who_ask() {
    let (limiter, clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).retry_after_ms();
    let delta =
        layer.clone().legacy_headers(LegacyReset::DeltaSeconds).layer(tower::service_fn(ok));
    let epoch = layer.legacy_headers(LegacyReset::EpochSeconds).layer(tower::service_fn(ok));

    let response = delta.clone().oneshot(call_by("u", "o")).await.unwrap();
    let sent = ["Limit", "Remaining", "Reset"]
        .map(|name| field(response.headers(), &format!("X-RateLimit-{name}")));
    assert_eq!(sent, [Some("1"), Some("0"), Some("10")]);
    assert_eq!(field(response.headers(), "retry-after-ms"), None);

    clock.advance(Duration::from_nanos(8_500_000_001));
    let unix = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = unix();
    let response = epoch.oneshot(call_by("u", "o")).await.unwrap();
    let after = unix();
    assert_eq!(
        field(response.headers(), "retry-after-ms"),
        Some("1500"),
        "1,499.999999 ms, rounded up"
    );
    let reset: u64 = field(response.headers(), "X-RateLimit-Reset").unwrap().parse().unwrap();
    let reset_after = |now: Duration| {
        (now + Duration::from_nanos(1_499_999_999)).as_nanos().div_ceil(1_000_000_000)
    };
    assert!((reset_after(before)..=reset_after(after)).contains(&u128::from(reset)));
}

#[tokio::test]
async fn the_fields_can_be_left_out() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter)
        .dialect(Dialect::Off)
        .layer(tower::service_fn(ok));
    for retry_after in [None, Some("10")] {
        let response = service.clone().oneshot(call_by("u", "o")).await.unwrap();
        assert_eq!(field(response.headers(), "Retry-After"), retry_after);
        assert_eq!(field(response.headers(), "RateLimit"), None);
        assert_eq!(field(response.headers(), "RateLimit-Policy"), None);
    }
}

#[tokio::test]
async fn a_refusal_can_be_rendered_otherwise_and_still_tells_when_to_come_back() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer =
        BolnaRateLimitLayer::with_limiter(limiter).render_refusals(|refusal: &Refusal<'_>| {
            let Reason::Limited(decision) = refusal.reason() else { return refusal.problem() };
            let text = format!(
                "{} {} is over {}",
                refusal.method(),
                refusal.uri().path(),
                decision.quota()
            );
            Response::builder()
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .header("Cache-Control", "private")
                .header("X-Trace", refusal.headers()["x-trace"].clone())
                .body(Bytes::from(text))
                .unwrap()
        });
    let service = layer.layer(tower::service_fn(ok));
    service.clone().oneshot(call_by("u", "o")).await.unwrap();
    let mut request = call_by("u", "o");
    request.headers_mut().insert("x-trace", "t-1".parse().unwrap());
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(response.headers(), "X-Trace"), Some("t-1"));
    assert_eq!(field(response.headers(), "Cache-Control"), Some("private"));
    assert_eq!(field(response.headers(), "Retry-After"), Some("10"));
    assert_eq!(members(response.headers(), "RateLimit").len(), 1);
    assert_eq!(text(response).await, "POST /call is over 1 request per 10 seconds");
    let stranger = service.oneshot(Request::get("/").body(String::new()).unwrap()).await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
}

/// With these a service renders its own error shape, for every reason.
#[tokio::test]
async fn a_refusal_says_what_it_is_without_its_header_fields_and_its_body_being_parsed() {
    let (limiter, clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).render_refusals(|refusal| {
        let problem: Value = serde_json::from_slice(refusal.problem().body()).unwrap();
        assert_eq!(problem["detail"], refusal.detail());
        assert_eq!(problem["message"], refusal.message());
        assert_eq!(problem["status"], refusal.status().as_u16());
        let endpoint = refusal.endpoint().map(|endpoint| endpoint.name());
        let limits: Vec<_> = refusal.limits().map(|limit| limit.name().name()).collect();
        let (is_blocked, wait) = (refusal.is_blocked(), refusal.wait());
        Response::new(format!("{endpoint:?} {limits:?} {is_blocked} {wait:?}"))
    });
    let costly = layer.clone().cost(LimitName::new("call").unwrap(), |_| 2);
    let [service, costly] = [layer, costly].map(|layer| layer.layer(tower::service_fn(ok)));
    let rendered = async |service: &BolnaRateLimit<_, _>, request: Request<String>| {
        text(service.clone().oneshot(request).await.unwrap()).await
    };

    assert_eq!(rendered(&costly, call_by("u", "o")).await, r#"Some("call") ["call"] false None"#);
    assert_eq!(rendered(&service, call_by("u", "o")).await, "inner");
    clock.advance(Duration::from_millis(7001));
    let limited = r#"Some("call") ["call"] false Some(2.999s)"#;
    assert_eq!(rendered(&service, call_by("u", "o")).await, limited);
    limiter.block(&organization("o"), Endpoint::CALL, Duration::from_secs(60)).await.unwrap();
    let blocked = r#"Some("call") ["call"] true Some(60s)"#;
    assert_eq!(rendered(&service, call_by("u", "o")).await, blocked);
    let unidentified = Request::get("/").body(String::new()).unwrap();
    assert_eq!(rendered(&service, unidentified).await, "None [] false None");
}

#[tokio::test]
async fn a_layer_that_is_not_enabled_changes_nothing() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .legacy_headers(LegacyReset::DeltaSeconds)
        .ruling_in_extensions()
        .enabled(false);
    let inner = tower::service_fn(async |request: Request<String>| {
        assert!(request.extensions().get::<Ruling>().is_none());
        ok(request).await
    });
    let not_called = |_: &Parts| -> Option<Principal> { panic!("a request was identified") };
    for layer in [layer.clone(), layer.clone().identify(not_called)] {
        let service = layer.layer(inner);
        let unidentified = Request::post("/call").body(String::new()).unwrap();
        for request in [unidentified, call_by("u", "o"), call_by("u", "o"), call_by("u", "o")] {
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!((response.status(), response.headers().len()), (StatusCode::OK, 0));
            assert_eq!(text(response).await, "inner");
        }
    }
    assert!(witness.told().is_empty() && witness.events().is_empty());

    // Another layer on the same limiter is not affected, and no unit was taken.
    let service = layer.enabled(true).layer(tower::service_fn(ok));
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(service.clone().oneshot(call_by("u", "o")).await.unwrap().status(), status);
    }
}

/// A store that decides by a quota of its own, as a replica may that is cut off from the others.
#[derive(Debug)]
struct Stricter(MemoryStore<ManualClock>);

impl Store for Stricter {
    type Check = Immediate;

    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        if charge.principal() != &organization("strict") {
            return self.0.check(charge);
        }
        let strict = Quota::per_hour(500).build().unwrap();
        let entry = Entry::new(charge.entries()[0].name(), strict);
        self.0.check(Charge::of_one(charge.principal(), &entry))
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.0.command(command).await
    }
}

#[tokio::test]
async fn what_is_told_is_what_was_measured_by() {
    let store = Stricter(MemoryStore::with_clock(ManualClock::default()));
    let service =
        BolnaRateLimitLayer::with_limiter(Limiter::with_store(Policy::default(), store).unwrap())
            .layer(tower::service_fn(ok));
    for (organization, window, seconds) in
        [("strict", 3600, 3593), ("o", 60, 60), ("strict", 3600, 3586)]
    {
        let response = service.clone().oneshot(call_by("u", organization)).await.unwrap();
        let policy = members(response.headers(), "RateLimit-Policy");
        assert_eq!(policy, [member("call", [("q", 500), ("w", window)])]);
        assert_eq!(
            members(response.headers(), "RateLimit")[0].1[1],
            ("t".to_owned(), seconds),
            "{organization}"
        );
    }
}

#[tokio::test]
async fn a_response_that_can_take_no_more_fields_is_left_as_it_is() {
    fn full() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for number in 0..100_000 {
            let name: HeaderName = format!("x-{number}").parse().unwrap();
            if headers.try_insert(name, HeaderValue::from_static("y")).is_err() {
                break;
            }
        }
        assert!(headers.try_reserve(1).is_err());
        headers
    }
    let crowded = tower::service_fn(async |_: Request<String>| {
        let mut response = Response::new(String::new());
        *response.headers_mut() = full();
        Ok::<_, Infallible>(response)
    });
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer =
        BolnaRateLimitLayer::with_limiter(limiter).render_refusals(|refusal: &Refusal<'_>| {
            let mut response = refusal.problem();
            *response.headers_mut() = full();
            response
        });
    let service = layer.layer(crowded);
    for status in [200, 429] {
        let response =
            service.clone().oneshot(request(Method::HEAD, "/call", "u", "o")).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().len()), (status, full().len()));
    }
}

#[tokio::test]
async fn targets_of_every_form_are_answered() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    for (method, target, endpoint) in [
        (Method::POST, "http://api.example:8080/call?x=/y", "call"),
        (Method::OPTIONS, "*", "default"),
        (Method::CONNECT, "api.example:443", "default"),
        (Method::GET, "http://api.example", "default"),
        (Method::GET, "/v2/agent/%ff%fe/executions", "executions"),
    ] {
        let response = service.clone().oneshot(request(method, target, "u", "o")).await.unwrap();
        assert_eq!(members(response.headers(), "RateLimit")[0].0, endpoint, "{target}");
    }
}

#[tokio::test]
async fn a_large_burst_is_told_as_exactly_as_a_small_one() {
    let policy =
        Policy::bolna().quota("call", Quota::per_minute(1_000_000).burst(100_000)).build().unwrap();
    let limiter = Limiter::new(policy);
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    let response = service.oneshot(call_by("u", "o")).await.unwrap();
    assert_eq!(
        members(response.headers(), "RateLimit-Policy"),
        [member("call", [("q", 100_000), ("w", 6)])]
    );
    assert_eq!(
        members(response.headers(), "RateLimit"),
        [member("call", [("r", 99_999), ("t", 6)])]
    );
}
