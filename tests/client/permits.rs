//! What a waiting request holds of the inner service, and what happens to the errors of that
//! service.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bolna_rate_limit::client::{PaceLayer, Pacer};
use futures_util::future::{Ready, ready};
use http::{Request, Response};
use tokio::time::timeout;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::{
    Log, assert_at, distant, generous, one_call_in, request, send, send_calls, settle,
    usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);

fn a_call_a_second() -> Pacer {
    Pacer::builder().policy(one_call_in(Duration::from_secs(1))).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_hold_no_permit() {
    let log = Log::new();
    let pacer = a_call_a_second();
    let client = ServiceBuilder::new()
        .layer(PaceLayer::new(pacer.clone()))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(generous(&log));
    let calls: Vec<_> = (0..100).map(|number| send(&client, &format!("/call?{number}"))).collect();
    settle().await;
    assert_eq!(usage_of_call(&pacer).waiting(), 99);
    for _ in 0..10 {
        assert!(send(&client, "/v2/agent/7").await.unwrap().unwrap().is_success());
    }
    assert_eq!(log.elapsed(), Duration::ZERO);
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    assert_at(log.elapsed(), Duration::from_secs(99));
}

#[tokio::test(start_paused = true)]
async fn those_who_are_sent_away_hold_no_permit() {
    let log = Log::new();
    let pacer = Pacer::builder()
        .policy(one_call_in(Duration::from_secs(1)))
        .max_waiting(1)
        .build()
        .unwrap();
    let mut client = ServiceBuilder::new()
        .layer(PaceLayer::new(pacer))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(generous(&log));
    client.ready().await.unwrap().call(request("/call")).await.unwrap();
    let waiting = client.ready().await.unwrap().call(request("/call"));
    let unsent = client.ready().await.unwrap().call(request("/call"));
    assert!(send(&client, "/v2/agent/7").await.unwrap().unwrap().is_success());
    assert!(timeout(HOUR, unsent).await.unwrap().is_err());
    assert!(timeout(HOUR, waiting).await.unwrap().is_ok());
    assert_at(log.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_at_ones_turn_is_waited_for() {
    // Each request takes five seconds, one at a time.
    let log = Log::new();
    let pacer = a_call_a_second();
    let client = ServiceBuilder::new()
        .layer(PaceLayer::new(pacer.clone()))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(distant(generous(&log), |number| {
            Duration::from_secs(if number % 2 == 1 { 5 } else { 0 })
        }));
    let answers = timeout(HOUR, send_calls(&client, 10)).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    for (number, at) in (0..).zip(log.times("")) {
        assert!(
            at >= Duration::from_secs(5) * number
                && at <= Duration::from_secs(5) * number + Duration::from_millis(50)
        );
    }
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.sent(), usage.waiting(), usage.unanswered()), (10, 0, 0));
}

/// An error of the inner service.
#[derive(Debug)]
struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// Is ready that many times, and then fails; or is called that many times, and then fails.
#[derive(Clone)]
struct Fragile {
    ready: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Fragile {
    fn new(ready: usize, calls: usize) -> Self {
        Self { ready: Arc::new(ready.into()), calls: Arc::new(calls.into()) }
    }
}

fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Service<Request<String>> for Fragile {
    type Response = Response<String>;
    type Error = Broken;
    type Future = Ready<Result<Response<String>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(if take(&self.ready) { Ok(()) } else { Err(Broken("not ready")) })
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        ready(if take(&self.calls) {
            Ok(Response::new(String::new()))
        } else {
            Err(Broken("called"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_in_flight_is_no_longer() {
    let log = Log::new();
    let pacer = a_call_a_second();
    let client =
        PaceLayer::new(pacer.clone()).layer(distant(generous(&log), |_| Duration::from_secs(30)));
    let calls = [0; 3].map(|_| send(&client, "/call"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let in_flight = || usage_of_call(&pacer).unanswered();
    assert_eq!(in_flight(), 3);
    for call in calls {
        call.abort();
    }
    settle().await;
    assert_eq!(in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_handed_through() {
    let pacer = a_call_a_second();
    let error = PaceLayer::new(pacer.clone())
        .layer(Fragile::new(9, 0))
        .oneshot(request("/call"))
        .await
        .unwrap_err();
    assert_eq!(error.downcast_ref::<Broken>().unwrap().0, "called");
    // It is unknown whether the server has charged it.
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.sent(), usage.unanswered(), usage.remaining()), (1, 0, 0));

    let error = PaceLayer::new(pacer)
        .layer(Fragile::new(0, 0))
        .oneshot(request("/call"))
        .await
        .unwrap_err();
    assert_eq!(error.downcast_ref::<Broken>().unwrap().0, "not ready");
}

#[tokio::test(start_paused = true)]
async fn an_error_when_the_turn_has_come_is_handed_through_and_takes_no_unit() {
    let log = Log::new();
    let pacer = a_call_a_second();
    // Ready for the first call and for the two that will have to wait, and not when the first of
    // those is dispatched.
    let mut client = PaceLayer::new(pacer.clone()).layer(Fragile::new(3, 9));
    client.ready().await.unwrap().call(request("/call")).await.unwrap();
    let first = client.ready().await.unwrap().call(request("/call"));
    let _second = client.ready().await.unwrap().call(request("/call"));
    let error = timeout(HOUR, first).await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref::<Broken>().unwrap().0, "not ready");
    assert_at(log.elapsed(), Duration::from_secs(1));
    settle().await;
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.sent(), usage.unanswered(), usage.waiting()), (1, 0, 1));
    assert!(usage.wait() > Duration::ZERO, "the unit is reserved for the next request");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_has_ended_with_an_error_holds_nothing() {
    let pacer = a_call_a_second();
    let usage = || usage_of_call(&pacer);
    let mut client = PaceLayer::new(pacer.clone()).layer(Fragile::new(9, 0));
    let mut sent = pin!(client.ready().await.unwrap().call(request("/call")));
    assert!(sent.as_mut().await.is_err());
    assert_eq!(usage().unanswered(), 0);

    let mut client = PaceLayer::new(pacer.clone()).layer(Fragile::new(1, 0));
    let mut let_go = pin!(client.ready().await.unwrap().call(request("/call")));
    assert!(timeout(HOUR, let_go.as_mut()).await.unwrap().is_err());
    assert_eq!(usage().wait(), Duration::ZERO, "the unit is available to the next request");
}
