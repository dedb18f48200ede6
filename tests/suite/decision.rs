//! The decision that a handler can read.

use axum::body::Body;
use axum::routing::post;
use axum::{Extension, Router};
use bolna_rate_limit::layer::{OnStoreFailure, OnUnidentified};
use bolna_rate_limit::store::Store;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Policy, Quota, Ruling};
use http::{Method, Request, Response};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service, ServiceExt};

use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, one_call, request, stopped_limiter, text};

/// The decision that a handler finds in its request.
fn found<B>(request: &Request<B>) -> String {
    let Some(ruling) = request.extensions().get::<Ruling>() else { return "nothing".to_owned() };
    let decision = ruling.decision().unwrap();
    assert!(ruling.is_admitted());
    assert_eq!(decision.name(), ruling.endpoint().unwrap());
    format!("{} {} {}", decision.name(), ruling.is_allowed(), decision.remaining())
}

async fn handler(request: Request<String>) -> Result<Response<String>, std::convert::Infallible> {
    Ok(Response::new(found(&request)))
}

async fn handled<St: Store>(
    layer: &BolnaRateLimitLayer<St>,
    request: Request<String>,
) -> (u16, String) {
    let response = layer.layer(tower::service_fn(handler)).oneshot(request).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

fn answer(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn a_handler_finds_what_was_decided_if_the_operator_says_so() {
    let policy =
        Policy::bolna().quota("call", Quota::per_hour(2)).exempt(["/healthz"]).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let silent = BolnaRateLimitLayer::with_limiter(limiter);
    assert_eq!(handled(&silent, call_by("u", "o")).await, answer(200, "nothing"));
    let layer = silent.ruling_in_extensions();
    assert_eq!(handled(&layer, call_by("u", "o")).await, answer(200, "call true 0"));
    assert_eq!(handled(&layer, call_by("u", "o")).await.0, 429);
    assert_eq!(
        handled(&layer, request(Method::GET, "/healthz", "u", "o")).await,
        answer(200, "nothing")
    );
    let layer = layer.enforcement(Enforcement::SHADOW);
    assert_eq!(handled(&layer, call_by("u", "o")).await, answer(200, "call false 0"));
    let layer = layer.on_unidentified(OnUnidentified::Admit);
    assert_eq!(
        handled(&layer, Request::post("/call").body(String::new()).unwrap()).await,
        answer(200, "nothing")
    );
}

#[tokio::test]
async fn a_handler_finds_what_was_decided_by_an_accounts_plan() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).ruling_in_extensions();
    let plan = Policy::builder()
        .endpoint("calls", Quota::per_hour(9), ["/call"])
        .exempt(["/free"])
        .build()
        .unwrap();
    for (path, expected) in [("/call", "calls true 8"), ("/free", "nothing")] {
        let mut request = Request::post(path).body(String::new()).unwrap();
        request.extensions_mut().insert(Account::user("u").with_policy(plan.clone()));
        assert_eq!(handled(&layer, request).await, answer(200, expected));
    }
}

#[test]
fn a_handler_finds_what_was_decided_later() {
    let limiter = DeferredStore::limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).ruling_in_extensions();
    let mut service = layer.layer(tower::service_fn(handler));
    let mut first = spawn(service.call(call_by("u", "o")));
    assert_pending!(first.poll());
    limiter.store().now_answers(Answers::Decision);
    let response = assert_ready!(first.poll()).unwrap();
    assert_eq!(assert_ready!(spawn(text(response)).poll()), "call true 0");
}

#[tokio::test]
async fn where_the_store_fails_there_is_nothing_to_find() {
    for answers in [Answers::Failure, Answers::FailureAtOnce] {
        let limiter = DeferredStore::limiter(one_call());
        limiter.store().now_answers(answers);
        let layer = BolnaRateLimitLayer::with_limiter(limiter)
            .ruling_in_extensions()
            .on_store_failure(OnStoreFailure::Admit);
        assert_eq!(handled(&layer, call_by("u", "o")).await, answer(200, "nothing"));
    }
}

#[tokio::test]
async fn an_axum_handler_takes_it_as_an_extension() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).ruling_in_extensions();
    let app = Router::new()
        .route(
            "/call",
            post(async |Extension(ruling): Extension<Ruling>| {
                ruling.decision().unwrap().remaining().to_string()
            }),
        )
        .layer(layer);
    let mut request = Request::post("/call").body(Body::empty()).unwrap();
    request.extensions_mut().insert(Account::user("u"));
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(text(response).await.parse(), Ok(499));
}
