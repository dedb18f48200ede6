//! The contract of `tower::Service`: readiness, permits, dropped futures, errors.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bolna_rate_limit::layer::{OnStoreFailure, Reason, Refusal};
use bolna_rate_limit::{BolnaRateLimitLayer, Policy};
use http::{Request, Response, StatusCode};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_test::mock;
use tower_test::mock::spawn::Spawn;

use crate::deferred::{Answers, DeferredStore};
use crate::support::{DecideNow, call_by, now, ok, one_call, organization, stopped_limiter, text};

type Inner = mock::Mock<Request<String>, Response<String>>;
type Handle = mock::Handle<Request<String>, Response<String>>;

/// Wraps a mock service, which panics if it is called before it was polled ready.
fn mocked<L: Layer<Inner>>(layer: &L) -> (Spawn<L::Service>, Handle) {
    let (inner, handle) = mock::pair();
    (Spawn::new(layer.layer(inner)), handle)
}

async fn answer(handle: &mut Handle) {
    handle.next_request().await.unwrap().1.send_response(Response::new("inner".to_owned()));
}

#[tokio::test]
async fn readiness_is_the_inner_services() {
    let (mut service, mut handle) = mocked(&BolnaRateLimitLayer::new());
    handle.allow(0);
    assert_pending!(service.poll_ready::<Request<String>>());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready::<Request<String>>());
    handle.send_error(io::Error::other("gone"));
    assert_eq!(assert_ready_err!(service.poll_ready::<Request<String>>()).to_string(), "gone");
}

#[tokio::test]
async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let (mut service, mut handle) = mocked(&BolnaRateLimitLayer::with_limiter(limiter));
    for (organization, status) in [("o", 200), ("o", 429), ("o", 429), ("another", 200)] {
        assert_ready_ok!(service.poll_ready::<Request<String>>());
        let response = service.call(call_by("u", organization));
        if status == 200 {
            answer(&mut handle).await;
        }
        assert_eq!(response.await.unwrap().status(), status);
    }
    let mut requests = spawn(handle.next_request());
    assert_pending!(requests.poll(), "a refused request reached the inner service");
}

#[tokio::test]
async fn with_an_answer_that_comes_later_too() {
    let limiter = DeferredStore::limiter(one_call());
    let (mut service, mut handle) = mocked(&BolnaRateLimitLayer::with_limiter(limiter.clone()));
    assert_ready_ok!(service.poll_ready::<Request<String>>());
    let mut response = spawn(service.call(call_by("u", "o")));
    assert_pending!(response.poll());
    limiter.store().now_answers(Answers::Decision);
    assert!(response.is_woken());
    assert_pending!(response.poll(), "the inner service has been called and has not answered");
    answer(&mut handle).await;
    assert!(assert_ready_ok!(response.poll()).headers().contains_key("ratelimit"));

    assert_ready_ok!(service.poll_ready::<Request<String>>());
    assert_eq!(
        service.call(call_by("u", "o")).await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_ready_ok!(service.poll_ready::<Request<String>>());
}

#[tokio::test]
async fn a_refused_request_gives_its_permit_to_the_next_caller() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(ConcurrencyLimitLayer::new(1))
        .service_fn(ok::<String>);
    let (mut refused, mut next) = (Spawn::new(stack.clone()), Spawn::new(stack.clone()));
    stack.oneshot(call_by("u", "o")).await.unwrap();

    assert_ready_ok!(refused.poll_ready::<Request<String>>());
    assert_pending!(next.poll_ready::<Request<String>>(), "the only permit is taken");
    // Neither the service nor the future, which is not polled, keeps the permit.
    let response = refused.call(call_by("u", "o"));
    assert!(next.is_woken());
    assert_ready_ok!(next.poll_ready::<Request<String>>());
    assert_eq!(response.await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_request_that_is_refused_later_gives_its_permit_up_then() {
    let limiter = DeferredStore::limiter(one_call());
    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .layer(ConcurrencyLimitLayer::new(1))
        .service_fn(ok::<String>);
    let (mut first, mut next) = (Spawn::new(stack.clone()), Spawn::new(stack));
    assert!(limiter.check(&organization("o").into(), "/call").is_some(), "takes the only unit");
    assert_ready_ok!(first.poll_ready::<Request<String>>());
    let mut response = spawn(first.call(call_by("u", "o")));
    assert_pending!(response.poll());
    assert_pending!(
        next.poll_ready::<Request<String>>(),
        "the waiting request's service is still ready"
    );
    limiter.store().now_answers(Answers::Decision);
    assert_eq!(assert_ready_ok!(response.poll()).status(), StatusCode::TOO_MANY_REQUESTS);
    assert_ready_ok!(next.poll_ready::<Request<String>>());
}

#[tokio::test]
async fn a_future_dropped_at_any_point_leaves_nothing_taken() {
    let limiter = DeferredStore::limiter(Policy::default());
    let (inner, mut handle) = mock::pair::<Request<String>, Response<String>>();
    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(inner);
    let mut service = Spawn::new(stack.clone());

    // The future is dropped before its first poll, while the store is called, and while the inner
    // service works.
    for point in 0..3 {
        limiter.store().now_answers(Answers::NotYet);
        assert_ready_ok!(service.poll_ready::<Request<String>>(), "before {point}");
        let mut response = spawn(service.call(call_by("u", "o")));
        if point > 0 {
            assert_pending!(response.poll());
            assert_eq!(limiter.store().waiting(), 1);
        }
        if point > 1 {
            limiter.store().now_answers(Answers::Decision);
            assert_pending!(response.poll());
            handle.next_request().await.unwrap();
        }
        let mut next = Spawn::new(stack.clone());
        assert_pending!(next.poll_ready::<Request<String>>());
        drop(response);
        assert_eq!(limiter.store().waiting(), 0);
        assert_ready_ok!(next.poll_ready::<Request<String>>());
    }
    limiter.store().now_answers(Answers::Decision);
    let response = tokio::spawn(stack.oneshot(call_by("u", "o")));
    answer(&mut handle).await;
    let left = response.await.unwrap().unwrap().headers()["ratelimit"].clone();
    assert_eq!(left, "\"call\";r=496;t=60", "each of the four was charged once");
}

#[tokio::test]
async fn a_refused_request_gives_its_place_in_a_buffer_up() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let (inner, mut handle) = mock::pair::<Request<String>, Response<String>>();
    handle.allow(0);
    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .layer(BufferLayer::new(1))
        .service(inner);
    let _ = limiter.decide_now(&organization("o"), "/call");
    // The buffer has one place. A service takes it when it is ready.
    let mut refused = Spawn::new(stack.clone());
    for _ in 0..3 {
        let mut next = Spawn::new(stack.clone());
        assert_ready_ok!(refused.poll_ready::<Request<String>>());
        assert_pending!(next.poll_ready::<Request<String>>());
        assert_eq!(
            refused.call(call_by("u", "o")).await.unwrap().status(),
            StatusCode::TOO_MANY_REQUESTS
        );
        assert_ready_ok!(next.poll_ready::<Request<String>>());
    }
    handle.allow(1);
    let response = tokio::spawn(stack.oneshot(call_by("u", "another")));
    answer(&mut handle).await;
    assert_eq!(response.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_clone_of_a_service_that_has_just_refused_works_too() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let _ = limiter.decide_now(&organization("o"), "/call");
    let (mut service, mut handle) = mocked(&BolnaRateLimitLayer::with_limiter(limiter));
    assert_ready_ok!(service.poll_ready::<Request<String>>());
    let refused = service.call(call_by("u", "o")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let response = tokio::spawn(service.get_ref().clone().oneshot(call_by("u", "another")));
    answer(&mut handle).await;
    assert_eq!(response.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[test]
fn an_inner_service_that_panics_when_it_is_cloned_can_be_cloned_later() {
    struct Fragile(Arc<AtomicBool>);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(!self.0.load(Ordering::SeqCst), "not now");
            Self(Arc::clone(&self.0))
        }
    }
    let broken = Arc::new(AtomicBool::new(false));
    let fragile = Fragile(Arc::clone(&broken));
    let (limiter, _clock) = stopped_limiter(one_call());
    let _ = limiter.decide_now(&organization("o"), "/call");
    let inner = tower::service_fn(move |request: Request<String>| {
        let _ = &fragile;
        ok(request)
    });
    let mut service = Spawn::new(BolnaRateLimitLayer::with_limiter(limiter).layer(inner));
    let refused = now(service.call(call_by("u", "o"))).unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    broken.store(true, Ordering::SeqCst);
    let polled = catch_unwind(AssertUnwindSafe(|| service.poll_ready::<Request<String>>()));
    assert!(polled.is_err());
    broken.store(false, Ordering::SeqCst);
    assert_ready_ok!(service.poll_ready::<Request<String>>());
    assert_eq!(now(service.call(call_by("u", "another"))).unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn errors_of_inner_services_come_through_as_they_are() {
    #[derive(Debug, PartialEq)]
    struct Busy(u32);
    let failing =
        tower::service_fn(async |_: Request<String>| Err::<Response<String>, _>(Busy(17)));
    let service = BolnaRateLimitLayer::new().layer(failing);
    let error: Busy = service.oneshot(call_by("u", "o")).await.unwrap_err();
    assert_eq!(error, Busy(17));

    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::new())
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service_fn(async |_: Request<String>| {
            std::future::pending::<Result<Response<String>, Infallible>>().await
        });
    let mut working = spawn(stack.clone().oneshot(call_by("u", "o")));
    assert_pending!(working.poll());
    let error = stack.oneshot(call_by("u", "o")).await.unwrap_err();
    assert!(error.is::<Overloaded>());
}

#[tokio::test]
async fn an_inner_service_that_panics_poisons_nothing() {
    let inner = tower::service_fn(async |request: Request<String>| {
        assert!(request.uri().path() != "/panic", "the handler's own panic");
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let service = BolnaRateLimitLayer::new().layer(inner);
    let panics = {
        let mut request = call_by("u", "o");
        *request.uri_mut() = "/panic".parse().unwrap();
        AssertUnwindSafe(service.clone().oneshot(request))
    };
    assert!(tokio::spawn(panics.0).await.unwrap_err().is_panic());
    assert_eq!(service.oneshot(call_by("u", "o")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_fails_refuses_unless_the_operator_says_otherwise() {
    let limiter = DeferredStore::limiter(one_call());
    limiter.store().now_answers(Answers::Failure);
    let layer = BolnaRateLimitLayer::with_limiter(limiter);

    let response =
        layer.clone().layer(tower::service_fn(ok)).oneshot(call_by("u", "o")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(!response.headers().contains_key("ratelimit"));
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["error"], 503);

    let told = layer.clone().render_refusals(|refusal: &Refusal<'_>| {
        let Reason::StoreFailed(error) = refusal.reason() else { panic!("{refusal:?}") };
        assert_eq!(std::error::Error::source(error).unwrap().to_string(), "connection refused");
        refusal.problem()
    });
    told.layer(tower::service_fn(ok)).oneshot(call_by("u", "o")).await.unwrap();

    let open = layer.on_store_failure(OnStoreFailure::Admit).layer(tower::service_fn(ok));
    let response = open.oneshot(call_by("u", "o")).await.unwrap();
    assert_eq!((response.status(), response.headers().len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_policy_that_comes_into_force_meanwhile_does_not_judge_a_request_that_is_being_checked() {
    let limiter = DeferredStore::limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    let mut response = spawn(service.oneshot(call_by("u", "o")));
    assert_pending!(response.poll());
    limiter.set_policy(Policy::builder().build().unwrap()).unwrap();
    limiter.store().now_answers(Answers::Decision);
    let Poll::Ready(response) = response.poll() else { panic!("the store has answered") };
    assert_eq!(response.unwrap().headers()["ratelimit-policy"], "\"call\";q=1;w=10");
}
