//! Two copies of the limiter charge one request.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::middleware::map_request;
use axum::routing::{any, post};
use bolna_rate_limit::observe::Advice;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Policy, Principal, Quota};
use http::{Method, Request};
use tower::{Layer, Service, ServiceExt};

use super::{MemoryLayer, authenticate, calls, only, statuses, watched};
use crate::deferred::{Answers, DeferredStore};
use crate::observers::Witness;
use crate::support::{call_by, ok, request, send};

/// More requests of one thread than there are from one that is marked to the next.
const MANY: usize = 600;

fn generous() -> Policy {
    let quota = || Quota::per_second(1_000_000).burst(10_000_000);
    Policy::bolna().quota("call", quota()).default_quota(quota()).build().unwrap()
}

#[track_caller]
fn assert_charged_twice(advice: &Advice, twice: Endpoint) {
    let Advice::ChargedTwice { endpoint, .. } = advice else {
        panic!("reported something else: {advice}")
    };
    assert_eq!(*endpoint, twice);
}

/// A router with one layer around `/call` and another one around all.
fn around_call_and_all(inner: MemoryLayer, outer: MemoryLayer) -> Router {
    let call = Router::new().route("/call", post(async || "called")).layer(inner);
    Router::new()
        .merge(call)
        .route("/user/me", any(async || "me"))
        .route("/v2/agent/{agent_id}", any(async || "agent"))
        .layer(outer)
        .layer(map_request(authenticate))
}

#[tokio::test]
async fn a_request_was_charged_twice() {
    let (layer, witness) = watched(Policy::default());
    let mut service = layer.layer(layer.layer(tower::service_fn(ok)));
    for _ in 0..40 {
        let _ = service.ready().await.unwrap().call(call_by("u", "o")).await.unwrap();
    }
    assert_charged_twice(&only(&witness), Endpoint::CALL);
}

/// In production the first requests are health checks.
#[tokio::test]
async fn with_axum_two_copies_are_found_however_late_they_meet() {
    for first in [20, 17, 1016, 5001] {
        let (layer, witness) = watched(generous());
        let app = around_call_and_all(layer.clone(), layer);
        statuses(app.clone(), calls(1, "/v2/agent/1").chain(calls(first, "/user/me"))).await;
        assert_eq!(witness.diagnoses(), []);
        statuses(app, calls(MANY, "/call")).await;
        assert_charged_twice(&only(&witness), Endpoint::CALL);
    }
}

#[tokio::test]
async fn with_axum_two_limiters_of_their_own_are_found_however_late_they_meet() {
    for first in [20, 17, 1016] {
        let (inner, inner_witness) = watched(generous());
        let (outer, outer_witness) = watched(generous());
        let app = around_call_and_all(inner, outer);
        statuses(app.clone(), calls(1, "/v2/agent/1").chain(calls(first, "/user/me"))).await;
        // The inner limiter has seen nothing so far, so the outer one has to mark a late request.
        statuses(app, calls(MANY, "/call")).await;
        assert_charged_twice(&only(&inner_witness), Endpoint::CALL);
        assert_eq!(outer_witness.diagnoses(), []);
    }
}

#[tokio::test]
async fn two_copies_are_found_with_a_store_that_answers_later() {
    let limiter = DeferredStore::limiter(generous());
    limiter.store().now_answers(Answers::Decision);
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    for _ in 0..1016 {
        let _ = send(&layer, call_by("u", "o")).await;
    }
    let mut service = layer.layer(layer.layer(tower::service_fn(ok)));
    for _ in 0..MANY {
        let _ = service.ready().await.unwrap().call(call_by("u", "o")).await.unwrap();
    }
    assert_charged_twice(&only(&witness), Endpoint::CALL);
}

/// Requests change their thread on their way, and others come between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_axum_two_copies_are_found_on_several_threads() {
    let (layer, witness) = watched(generous());
    let called = async |request: Request<Body>| {
        tokio::task::yield_now().await;
        request
    };
    let call = Router::new()
        .route("/call", post(async || "called"))
        .layer(layer.clone())
        .layer(map_request(called));
    let app = Router::new()
        .merge(call)
        .route("/user/me", any(async || "me"))
        .route("/v2/agent/{agent_id}", any(async || "agent"))
        .layer(layer)
        .layer(map_request(authenticate));
    statuses(app.clone(), calls(1, "/v2/agent/1").chain(calls(2000, "/user/me"))).await;
    let send = |mut app: Router| async move {
        for request in calls(500, "/call") {
            let request = request.map(|_| Body::empty());
            let response: Result<_, Infallible> =
                app.as_service().ready().await.unwrap().call(request).await;
            assert_eq!(response.unwrap().status(), 200);
        }
    };
    let callers: Vec<_> = (0..40).map(|_| tokio::spawn(send(app.clone()))).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_charged_twice(&only(&witness), Endpoint::CALL);
}

#[tokio::test]
async fn two_limiters_that_charge_one_request_for_different_things_are_nothing_odd() {
    let policy = |quota| Policy::bolna().quota("call", quota).build().unwrap();
    // A limit per second inside a limit per minute.
    let (outer, outer_witness) = watched(policy(Quota::per_minute(500)));
    let (inner, inner_witness) = watched(policy(Quota::per_second(20)));
    let mut twice = outer.layer(inner.layer(tower::service_fn(ok)));
    // The inner limiter only charges requests that the outer one exempts.
    let (public, public_witness) = watched(Policy::bolna().exempt(["/inner"]).build().unwrap());
    let exempt = Policy::builder().exempt(["/call", "/outer"]).build().unwrap();
    let (private, private_witness) = watched(exempt);
    let mut either = public.layer(private.layer(tower::service_fn(ok)));
    // The limiters bill different principals: the organization, and then the user.
    let (of_users, users_witness) = watched(Policy::default());
    let of_users = of_users.identify(|head| {
        let _ = head.extensions.get::<Account>()?;
        Principal::user("u")
    });
    let (of_organizations, organizations_witness) = watched(Policy::default());
    let mut both = of_organizations.layer(of_users.layer(tower::service_fn(ok)));
    for _ in 0..MANY {
        for path in ["/call", "/outer", "/inner"] {
            let request = || request(Method::POST, path, "u", "o");
            let _ = either.ready().await.unwrap().call(request()).await.unwrap();
            let _ = both.ready().await.unwrap().call(request()).await.unwrap();
        }
        let _ = twice.ready().await.unwrap().call(call_by("u", "o")).await.unwrap();
    }
    for witness in [
        outer_witness,
        inner_witness,
        public_witness,
        private_witness,
        users_witness,
        organizations_witness,
    ] {
        assert_eq!(witness.diagnoses(), []);
    }
}

#[tokio::test]
async fn with_axum_two_limiters_on_nested_routers_are_told() {
    let routes = || Router::new().route("/call", post(async || "called"));
    let (layer, witness) = watched(Policy::default());
    let app = Router::new()
        .merge(routes().layer(layer.clone()))
        .layer(layer)
        .layer(map_request(authenticate));
    let _ = statuses(app, calls(3, "/call")).await;
    assert_charged_twice(&only(&witness), Endpoint::CALL);

    // Two limiters side by side.
    let (layer, witness) = watched(Policy::default());
    let other = Router::new().route("/user/me", any(async || "me")).layer(layer.clone());
    let app =
        Router::new().merge(routes().layer(layer)).merge(other).layer(map_request(authenticate));
    let _ = statuses(app, calls(MANY, "/call").chain(calls(MANY, "/user/me"))).await;
    assert_eq!(witness.diagnoses(), []);
}
