//! The limiter is outside of authentication.

use axum::Router;
use axum::middleware::map_request;
use axum::routing::post;
use bolna_rate_limit::observe::Advice;
use bolna_rate_limit::{Account, Policy};
use http::Request;

use super::{authenticate, by, calls, only, statuses, unidentified, watched};
use crate::support::{call_by, send};

/// An unidentified request with that header field.
fn with_field(name: &'static str, value: &'static str) -> Request<String> {
    Request::post("/call").header(name, value).body(String::new()).unwrap()
}

/// Asserts that this is the advice: after so many requests, with or without credentials.
#[track_caller]
fn assert_unidentified(advice: &Advice, after: u32, credentials: bool) {
    let Advice::AllUnidentified { requests, has_credentials, .. } = advice else {
        panic!("reported something else: {advice}")
    };
    assert_eq!((*requests, *has_credentials), (after, credentials));
}

#[tokio::test]
async fn no_request_was_ever_identified() {
    let (layer, witness) = watched(Policy::bolna().exempt(["/healthz"]).build().unwrap());
    for number in 0..40 {
        assert!(witness.diagnoses().is_empty() || number == 16, "after {number} requests");
        if number == 16 {
            continue;
        }
        assert_eq!(send(&layer, unidentified("/call")).await.status(), 401);
        assert_eq!(send(&layer, unidentified("/healthz")).await.status(), 200);
        if number == 15 {
            assert_unidentified(&only(&witness), 16, false);
        }
    }
}

#[tokio::test]
async fn a_request_with_credentials_and_without_an_account_is_reported_at_once() {
    for (field, value) in
        [("authorization", "Bearer ana@acme"), ("x-api-key", "k-1"), ("Api-Key", "k-1")]
    {
        for before in [0, 3] {
            let (layer, witness) = watched(Policy::default());
            for _ in 0..before {
                send(&layer, unidentified("/call")).await;
            }
            assert_eq!(witness.diagnoses(), []);
            assert_eq!(send(&layer, with_field(field, value)).await.status(), 401);
            let advice = only(&witness);
            assert_unidentified(&advice, before + 1, true);
            assert!(!advice.to_string().contains(value), "{advice}");
            // Once.
            for _ in 0..40 {
                send(&layer, with_field(field, value)).await;
                send(&layer, unidentified("/call")).await;
            }
            assert_eq!(witness.diagnoses(), []);
        }
    }
}

#[tokio::test]
async fn what_is_no_credential_is_not_reported_at_once() {
    let exempt = Policy::bolna().exempt(["/healthz"]).build().unwrap();
    let (layer, witness) = watched(exempt);
    let mut health_check = with_field("authorization", "Bearer ana@acme");
    *health_check.uri_mut() = "/healthz".parse().unwrap();
    for request in [
        with_field("cookie", "_ga=GA1.2.3"),
        with_field("authorization", ""),
        with_field("user-agent", "curl"),
        health_check,
    ] {
        send(&layer, request).await;
        assert_eq!(witness.diagnoses(), []);
    }
}

#[tokio::test]
async fn wrong_credentials_are_nothing_odd_once_a_request_had_an_account() {
    let policy = || Policy::bolna().exempt(["/status"]).build().unwrap();
    let exempt = by(Request::get("/status").body(String::new()).unwrap(), Account::user("u"));
    for identified in [call_by("u", "o"), exempt] {
        let (layer, witness) = watched(policy());
        send(&layer, identified).await;
        for _ in 0..40 {
            let wrong = with_field("authorization", "Bearer wrong");
            assert_eq!(send(&layer, wrong).await.status(), 401);
        }
        // Not even if the policy is replaced.
        layer.limiter().set_policy(Policy::default()).unwrap();
        send(&layer, with_field("authorization", "Bearer wrong")).await;
        assert_eq!(witness.diagnoses(), []);
    }
}

#[tokio::test]
async fn some_unidentified_requests_are_nothing_odd() {
    for somebody_is_number in [0, 1, 14, 15] {
        let (layer, witness) = watched(Policy::default());
        for number in 0..100 {
            if number == somebody_is_number {
                assert_eq!(send(&layer, call_by("u", "o")).await.status(), 200);
            }
            assert_eq!(send(&layer, unidentified("/call")).await.status(), 401);
        }
        assert_eq!(witness.diagnoses(), []);
    }
}

#[tokio::test]
async fn with_axum_a_limiter_outside_of_authentication_is_told() {
    let app = || Router::new().route("/call", post(async || "called"));
    let (layer, witness) = watched(Policy::default());
    let answered =
        statuses(app().layer(map_request(authenticate)).layer(layer), calls(20, "/call")).await;
    assert!(answered.iter().all(|status| *status == 401));
    assert_unidentified(&only(&witness), 16, false);

    let (layer, witness) = watched(Policy::default());
    let first = with_field("authorization", "Bearer ana@acme");
    let app_of_first = app().layer(map_request(authenticate)).layer(layer);
    assert_eq!(statuses(app_of_first, [first]).await, [401]);
    assert_unidentified(&only(&witness), 1, true);

    let (layer, witness) = watched(Policy::default());
    let answered =
        statuses(app().layer(layer).layer(map_request(authenticate)), calls(20, "/call")).await;
    assert!(answered.iter().all(|status| *status == 200));
    assert_eq!(witness.diagnoses(), []);
}
