//! What a handler does by the admission that it finds in its request.

use std::convert::Infallible;
use std::sync::mpsc;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Policy, Quota};
use http::{Request, Response};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt};

use super::{calls_at_once, left, member};
use crate::support::{call_by, now, percent, send, stopped_limiter};

/// Sends a call through the layer, and returns the admission that its handler finds. The response
/// is dropped.
fn handed_over<L>(layer: &L) -> Admission
where
    L: Layer<BoxCloneService<Request<String>, Response<String>, Infallible>>,
    L::Service: Service<Request<String>, Error = Infallible>,
{
    let (sender, receiver) = mpsc::channel();
    let handler = move |request: Request<String>| {
        sender.send(request.extensions().get::<Admission>().cloned().unwrap()).unwrap();
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    };
    let handler = BoxCloneService::new(tower::service_fn(handler));
    match now(layer.layer(handler).oneshot(call_by("u", "o"))) {
        Ok(response) => drop(response),
    }
    receiver.try_recv().unwrap()
}

/// No other setting is needed.
#[test]
fn the_admission_of_a_request_in_flight_gives_its_units_back_and_corrects_them() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(1));
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let caller = member("u", "o");
    let admission = handed_over(&layer);
    assert_eq!(left(&limiter, &caller, "call"), 499);
    admission.settle(Endpoint::CALL, 10);
    assert_eq!(left(&limiter, &caller, "call"), 490);
    admission.refund();
    assert_eq!(left(&limiter, &caller, "call"), 500);
}

#[test]
fn it_gives_back_what_a_candidate_has_charged_too() {
    let nine = || Policy::bolna().quota("call", Quota::per_day(9));
    let (limiter, _clock) = stopped_limiter(nine().concurrent("call", 1).build().unwrap());
    limiter.set_candidate(nine().build().unwrap()).unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    for _ in 0..20 {
        handed_over(&layer).refund();
    }
    assert_eq!(left(&limiter, &member("u", "o"), "call"), 9);
    let call = limiter.candidate_report().into_iter().find(|it| it.endpoint == Endpoint::CALL);
    assert_eq!(call.unwrap().allowed, 20);
}

#[test]
fn behind_two_layers_the_admission_that_a_handler_keeps_holds_the_places_of_both() {
    let [(outer, _), (inner, _)] = [1, 2].map(|limit| stopped_limiter(calls_at_once(limit)));
    for ends in [false, true] {
        let layers = (
            BolnaRateLimitLayer::with_limiter(outer.clone()),
            BolnaRateLimitLayer::with_limiter(inner.clone()),
        );
        let admission = handed_over(&layers);
        assert_eq!((outer.report().in_flight, inner.report().in_flight), (1, 1));
        if ends {
            admission.end();
            assert_eq!((outer.report().in_flight, inner.report().in_flight), (0, 0));
        }
        drop(admission);
        assert_eq!((outer.report().in_flight, inner.report().in_flight), (0, 0));
    }
}

#[tokio::test]
async fn a_request_without_a_place_has_no_admission_unless_it_is_asked_for() {
    let shadow = calls_at_once(1);
    let (limiter, _clock) = stopped_limiter(shadow);
    limiter.set_enforcement(percent(0));
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let _first = send(&layer, call_by("u", "o")).await;
    let handler = |request: Request<String>| {
        assert!(request.extensions().get::<Admission>().is_none());
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    };
    now(layer.layer(tower::service_fn(handler)).oneshot(call_by("u", "o"))).unwrap();
}
