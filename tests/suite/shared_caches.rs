//! Responses that a shared cache may store, and the figures of a caller.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::layer::{Dialect, LegacyReset};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Policy, Quota};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use tower::{Layer, ServiceExt};

use crate::support::{call_by, ok, one_call, organization, send, stopped_limiter};

/// The fields of a response, in which the inner service has set these.
async fn fields_beside(
    layer: BolnaRateLimitLayer,
    status: StatusCode,
    fields: &[(&str, &str)],
) -> HeaderMap {
    let inner = tower::service_fn(async |_: Request<String>| {
        let mut response = Response::new(String::new());
        *response.status_mut() = status;
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        Ok::<_, Infallible>(response)
    });
    let response = layer.layer(inner).oneshot(call_by("u", "o")).await.unwrap();
    assert_eq!(response.status(), status);
    response.into_parts().0.headers
}

const FIGURES: [&str; 5] = [
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
];

/// Whether the response has the figures of the caller: all of them, or none.
#[track_caller]
fn has_figures(fields: &HeaderMap) -> bool {
    let has = FIGURES.map(|name| fields.contains_key(name));
    assert!(has == [true; 5] || has == [false; 5], "{fields:?}");
    has[0]
}

fn layer() -> BolnaRateLimitLayer {
    BolnaRateLimitLayer::new().legacy_headers(LegacyReset::DeltaSeconds)
}

fn date(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time = UNIX_EPOCH + Duration::from_secs(now.saturating_add_signed(from_now));
    httpdate::fmt_http_date(time)
}

/// Checks what becomes of the figures beside these fields, with the setting and without it.
async fn check(status: StatusCode, fields: &[(&str, &str)], are_sent: bool) {
    let with = fields_beside(layer().fields_in_shared_caches(false), status, fields).await;
    assert_eq!(has_figures(&with), are_sent, "{status} {fields:?}");
    for (name, value) in fields {
        assert!(with.get_all(*name).iter().any(|it| it == value), "{name} is left as it is");
    }
    assert!(has_figures(&fields_beside(layer(), status, fields).await));
    let on = layer().fields_in_shared_caches(false).fields_in_shared_caches(true);
    assert!(has_figures(&fields_beside(on, status, fields).await));
}

#[tokio::test]
async fn a_response_that_shared_caches_may_store_has_no_figures_of_a_caller() {
    for value in [
        "public",
        "Public",
        "PUBLIC, MAX-AGE=60",
        "max-age=60",
        "max-age = 60",
        "max-age=\"60\"",
        "max-age=99999999999999999999",
        "max-age=1.5",
        "max-age",
        "max-age=0, s-maxage=60",
        "s-maxage=60",
        "S-MaxAge=0",
        "public, no-cache",
        "no-cache, max-age=60",
        "no-cache=\"set-cookie\", max-age=60",
        "max-age=0, stale-while-revalidate=30",
        "max-age=0, stale-if-error=30",
        // Only these fields are private, and a cache may store the rest.
        "private=\"set-cookie\", max-age=60",
        "private=\"set-cookie, no-store\", max-age=60",
        "private=\"a\\\", no-store, \", max-age=60",
        // A cache that knows `must-understand` does not heed `no-store`.
        "must-understand, no-store, max-age=60",
        "x=\"private, no-store\", max-age=60",
        "x-private, xno-store,,max-age=60,",
        "community=\"UCI\",max-age=60",
        "public;a=1",
        "max-age=60;a=\"private\"",
    ] {
        check(StatusCode::OK, &[("Cache-Control", value)], false).await;
        check(StatusCode::NOT_FOUND, &[("Cache-Control", value)], false).await;
    }
    for lines in [["max-age=60", "must-revalidate"], ["must-revalidate", "max-age=60"]] {
        check(StatusCode::OK, &lines.map(|line| ("Cache-Control", line)), false).await;
    }
}

#[tokio::test]
async fn a_response_that_no_shared_cache_may_store_has_the_figures() {
    for value in [
        "",
        "no-store",
        "No-Store",
        "private",
        "PRIVATE, max-age=60",
        "private,max-age=60",
        "public, private",
        "public, no-store",
        "no-store, s-maxage=60",
        "must-understand, private, max-age=60",
        "max-age=60, private, no-cache=\"set-cookie\"",
        "private=\"set-cookie\"",
        "no-cache",
        "no-cache=\"public\"",
        "x=\"a, public, b\"",
        "x=\"\\\", public, \"",
        "x=\"\\\\\", private, public",
        "max-age=0",
        "max-age=00",
        "max-age=\"0\"",
        "max-age=0, must-revalidate",
        "max-age=0, stale-while-revalidate=0",
        "republic, max-ages=60",
        ";public",
    ] {
        check(StatusCode::OK, &[("Cache-Control", value)], true).await;
    }
    check(StatusCode::OK, &[], true).await;
    for lines in [["max-age=60", "private"], ["no-store", "public"]] {
        check(StatusCode::OK, &lines.map(|line| ("Cache-Control", line)), true).await;
    }
}

#[tokio::test]
async fn a_date_until_which_a_response_is_fresh_counts_unless_cache_control_says_otherwise() {
    let (past, future) = (date(-3600), date(3600));
    let old = "Sunday, 06-Nov-94 08:49:37 GMT";
    for (fields, are_sent) in [
        (vec![("Expires", &*future)], false),
        (vec![("Expires", &past)], true),
        (vec![("Expires", old)], true),
        (vec![("Expires", "0")], true),
        (vec![("Expires", "-1")], true),
        (vec![("Expires", "soon")], true),
        // The response's own time counts.
        (vec![("Expires", "Sun, 06 Nov 1994 08:49:38 GMT"), ("Date", old)], false),
        (vec![("Expires", &future), ("Date", &future)], true),
        (vec![("Expires", &future), ("Cache-Control", "max-age=0")], true),
        (vec![("Expires", &past), ("Cache-Control", "max-age=60")], false),
        (vec![("Expires", &future), ("Cache-Control", "private")], true),
        (vec![("Expires", &future), ("Cache-Control", "no-store")], true),
        (vec![("Expires", &future), ("Cache-Control", "no-transform")], false),
    ] {
        check(StatusCode::OK, &fields, are_sent).await;
    }
}

#[tokio::test]
async fn fields_for_the_caches_of_a_cdn_count_whatever_cache_control_says() {
    for name in ["CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control"] {
        for other in ["no-store", "private", "max-age=0", "no-cache"] {
            let with = |value| [("Cache-Control", other), (name, value)];
            check(StatusCode::OK, &with("max-age=60"), false).await;
            check(StatusCode::OK, &with("max-age=60, stale-if-error=300"), false).await;
            check(StatusCode::OK, &with("no-store"), true).await;
            check(StatusCode::OK, &with("max-age=60, private"), true).await;
            check(StatusCode::OK, &with("max-age=0"), true).await;
            check(StatusCode::OK, &with("content=\"ESI/1.0\""), true).await;
        }
        // It does not forbid what it allows to other caches.
        let both = [("Cache-Control", "max-age=60"), (name, "no-store")];
        check(StatusCode::OK, &both, false).await;
    }
    for name in ["X-Surrogate-Control", "X-Cache-Control-Extra"] {
        check(StatusCode::OK, &[(name, "max-age=60")], true).await;
    }
}

/// The fields of a 304 are written into the stored response.
#[tokio::test]
async fn a_304_has_no_figures_unless_it_says_that_it_is_private() {
    for (value, are_sent) in
        [("max-age=60", false), ("no-cache", false), ("private", true), ("no-store", true)]
    {
        check(StatusCode::NOT_MODIFIED, &[("Cache-Control", value)], are_sent).await;
    }
    check(StatusCode::NOT_MODIFIED, &[("ETag", "\"x\"")], false).await;
    let private = [("Cache-Control", "private"), ("CDN-Cache-Control", "max-age=60")];
    check(StatusCode::NOT_MODIFIED, &private, false).await;
}

#[tokio::test]
async fn it_makes_no_difference_how_many_limits_there_are_or_which_fields_are_on() {
    let user = LimitBuilder::user("call-user", Quota::per_minute(100));
    let several = Policy::bolna().also("call", user).build().unwrap();
    let sent = async |layer: BolnaRateLimitLayer, value| {
        let layer = layer.fields_in_shared_caches(false);
        let fields = [("Cache-Control", value), ("RateLimit", "\"gpu\";r=7;t=9")];
        let headers = fields_beside(layer, StatusCode::OK, &fields).await;
        FIGURES.map(|name| headers.get_all(name).iter().count())
    };
    let with = |policy: &Policy| BolnaRateLimitLayer::with_policy(policy.clone());
    let legacy = |policy| with(policy).legacy_headers(LegacyReset::DeltaSeconds);
    let bolna = Policy::default();
    for (layer, private) in [
        (with(&bolna), [2, 1, 0, 0, 0]),
        (legacy(&bolna), [2, 1, 1, 1, 1]),
        (legacy(&bolna).dialect(Dialect::Off), [1, 0, 1, 1, 1]),
        (with(&bolna).dialect(Dialect::Off), [1, 0, 0, 0, 0]),
        (with(&several), [3, 2, 0, 0, 0]),
        (legacy(&several), [3, 2, 1, 1, 1]),
        (legacy(&several).dialect(Dialect::Off), [1, 0, 1, 1, 1]),
    ] {
        assert_eq!(sent(layer.clone(), "private").await, private);
        // What the inner service has set is its own affair.
        assert_eq!(sent(layer, "public").await, [1, 0, 0, 0, 0]);
    }
}

#[tokio::test]
async fn a_refusal_is_not_stored_and_has_its_fields() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).fields_in_shared_caches(false);
    let legacy = layer.clone().legacy_headers(LegacyReset::DeltaSeconds);
    let own = |value: &'static str| {
        legacy.clone().render_refusals(move |refusal| {
            let mut response = Response::new("own");
            *response.status_mut() = refusal.status();
            response.headers_mut().insert("Cache-Control", value.parse().unwrap());
            response
        })
    };
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), StatusCode::OK);
    for blocked in [false, true] {
        if blocked {
            let period = Duration::from_secs(60);
            limiter.block(&organization("o"), Endpoint::CALL, period).await.unwrap();
        }
        for layer in [&layer, &legacy] {
            let refused = send(layer, call_by("u", "o")).await;
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(refused.headers()["Cache-Control"], "no-store");
            let has = |name: &&str| refused.headers().contains_key(*name);
            assert!(["RateLimit", "RateLimit-Policy", "Retry-After"].iter().all(has));
        }
        assert!(has_figures(send(&legacy, call_by("u", "o")).await.headers()));
        // A closure may let caches store it. Then the figures are left out of it too.
        assert!(has_figures(send(&own("private"), call_by("u", "o")).await.headers()));
        let stored = send(&own("max-age=1"), call_by("u", "o")).await;
        assert!(!has_figures(stored.headers()) && stored.headers().contains_key("Retry-After"));
    }
    // An unidentified request is refused as ever.
    let unidentified = Request::post("/call").body(String::new()).unwrap();
    let refused = layer.layer(tower::service_fn(ok)).oneshot(unidentified).await.unwrap();
    assert_eq!(refused.headers()["Cache-Control"], "no-store");
}
