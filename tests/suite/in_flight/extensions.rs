//! The admission in the extensions of a request.

use std::convert::Infallible;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Policy};
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};

use super::{calls_at_once, left, member};
use crate::support::{call_by, now, stopped_limiter, text};

/// A handler that gives its request's units back, if it can.
async fn refund(request: Request<String>) -> Result<Response<String>, Infallible> {
    let admission = request.extensions().get::<Admission>();
    admission.iter().for_each(|admission| admission.refund());
    Ok(Response::new(admission.map_or("no admission", |_| "refunded").to_owned()))
}

#[test]
fn a_request_in_flight_has_an_admission_without_a_setting() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(1));
    let service = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(service_fn(refund));
    let response = now(service.oneshot(call_by("u", "o"))).unwrap();
    assert_eq!(response.headers()["ratelimit"], "\"call\";r=499;t=60");
    assert_eq!(left(&limiter, &member("u", "o"), Endpoint::CALL.name()), 500);
}

#[test]
fn a_request_that_only_a_candidate_counts_as_in_flight_has_no_admission() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.set_candidate(calls_at_once(1)).unwrap();
    let service = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(service_fn(refund));
    let response = now(service.oneshot(call_by("u", "o"))).unwrap();
    assert_eq!(limiter.report().in_flight, 1);
    assert_eq!(now(text(response)), "no admission");
    assert_eq!(limiter.report().in_flight, 0);
}
