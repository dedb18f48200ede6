//! The contract of `tower::Service`: readiness, permits, dropped futures, errors.

use std::convert::Infallible;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Reason, Refusal, Undecided};
use http::{Request, Response, StatusCode};
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_test::mock;
use tower_test::mock::spawn::Spawn;

use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, ok, one_call, stopped_limiter};

type MockService = mock::Mock<Request<()>, Response<String>>;
type MockHandle = mock::Handle<Request<()>, Response<String>>;

/// A mock panics when it is called without having been polled ready.
fn mocked<L: Layer<MockService>>(layer: &L) -> (Spawn<L::Service>, MockHandle) {
    let (inner, handle) = mock::pair();
    (Spawn::new(layer.layer(inner)), handle)
}

fn one_call_layer() -> BolnaRateLimitLayer<impl bolna_rate_limit::store::Store> {
    BolnaRateLimitLayer::with_limiter(stopped_limiter(one_call()).0)
}

#[tokio::test]
async fn readiness_is_the_inner_services() {
    let (mut service, mut handle) = mocked(&one_call_layer());
    handle.allow(0);
    assert!(service.poll_ready::<Request<()>>().is_pending());
    handle.allow(1);
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));
    handle.send_error(io::Error::other("gone"));
    let error = match service.poll_ready::<Request<()>>() {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error.to_string(), "gone");
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let (mut service, mut handle) = mocked(&one_call_layer());
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));
    let response = service.call(call_by("u", "o"));
    let (_, send) = handle.next_request().await.unwrap();
    send.send_response(Response::new("inner".to_owned()));
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);

    // The refused one is not called, and the next is polled ready before it is.
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));
    assert_eq!(service.call(call_by("u", "o")).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));
    let response = service.call(call_by("u", "another"));
    handle.next_request().await.unwrap().1.send_response(Response::new("inner".to_owned()));
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_answers_later_calls_the_service_that_was_ready() {
    let limiter = DeferredStore::limiter(one_call());
    let (mut service, mut handle) = mocked(&BolnaRateLimitLayer::with_limiter(limiter.clone()));
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));
    let mut response = tokio_test_task(service.call(call_by("u", "o")));
    assert!(response.poll().is_pending());
    limiter.store().now_answers(Answers::Decision);
    assert!(response.is_woken());
    assert!(response.poll().is_pending(), "the inner service has been called and has not answered");
    handle.next_request().await.unwrap().1.send_response(Response::new("inner".to_owned()));
    let Poll::Ready(Ok(response)) = response.poll() else { panic!("the inner service has answered") };
    assert!(response.headers().contains_key("ratelimit"));

    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));
    assert_eq!(service.call(call_by("u", "o")).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
}

fn tokio_test_task<F: Future>(future: F) -> tower_test::mock::spawn::Spawn<F> {
    Spawn::new(future)
}
