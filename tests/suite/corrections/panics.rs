//! A panic anywhere between the admission of a request and the end of its response.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bolna_rate_limit::observe::{Event, Observation, Observer};
use bolna_rate_limit::store::{
    Answer, Charge, Command, Immediate, MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio_test::task::spawn;
use tower::{Layer, Service};

use super::{Left, left, ten_calls_three_at_once};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, stopped_limiter};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    Identify,
    Cost,
    Observer,
    Call,
    Poll,
    RefundOn,
    Settle,
    Body,
}

const POINTS: [Point; 8] = [
    Point::Identify,
    Point::Cost,
    Point::Observer,
    Point::Call,
    Point::Poll,
    Point::RefundOn,
    Point::Settle,
    Point::Body,
];

impl Point {
    fn at(self, point: Self) {
        assert!(self != point, "at {point:?}");
    }

    /// How many of ten units are left after a panic at this point.
    const fn units(self, refund_dropped: bool) -> u32 {
        match self {
            // The request was not charged yet.
            Self::Identify | Self::Cost => 10,
            // The response is there, or its future is not made yet. So nothing is dropped that
            // could be refunded.
            Self::Body | Self::Observer => 9,
            Self::Call | Self::Poll | Self::RefundOn | Self::Settle => {
                if refund_dropped {
                    10
                } else {
                    9
                }
            }
        }
    }
}

impl Observer for Point {
    fn on_decision(&self, _: &Observation<'_>) {
        self.at(Self::Observer);
    }
}

#[derive(Clone, Copy, Debug)]
struct Inner(Point);

impl Service<Request<String>> for Inner {
    type Response = Response<Self>;
    type Error = Infallible;
    type Future = Self;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self {
        self.0.at(Point::Call);
        *self
    }
}

impl Future for Inner {
    type Output = Result<Response<Self>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.at(Point::Poll);
        Poll::Ready(Ok(Response::new(*self)))
    }
}

impl Body for Inner {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.at(Point::Body);
        Poll::Ready(None)
    }
}

fn layer<St: Store>(
    limiter: &Limiter<St>,
    point: Point,
    refund_dropped: bool,
) -> BolnaRateLimitLayer<St> {
    limiter.observe(point);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .identify(move |head| {
            point.at(Point::Identify);
            head.extensions.get::<Account>().cloned()
        })
        .cost(Endpoint::CALL, move |_| {
            point.at(Point::Cost);
            1
        })
        .refund_on(move |_| {
            point.at(Point::RefundOn);
            false
        })
        .settle(Endpoint::CALL, move |_| {
            point.at(Point::Settle);
            1
        });
    if refund_dropped { layer.refund_dropped() } else { layer }
}

#[test]
fn a_panic_at_any_point_leaves_nothing_in_flight() {
    for (point, dropped) in POINTS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
        let mut service = layer(&limiter, point, dropped).layer(Inner(point));
        let request = AssertUnwindSafe(|| {
            let mut response = spawn(service.call(call_by("u", "o")));
            let Poll::Ready(Ok(response)) = response.poll() else { panic!("it is ready") };
            let mut body = spawn(response.into_body());
            let _ = body.enter(|context, body| body.poll_frame(context));
        });
        let panic = catch_unwind(request).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert_eq!(*text, format!("at {point:?}"));
        let expected = Left { units: point.units(dropped), places: 0 };
        assert_eq!(left(&limiter), expected, "{point:?}, {dropped}");
    }
}

#[test]
fn a_panic_at_any_point_after_a_wait_for_the_store_leaves_nothing_in_flight() {
    for (point, dropped) in POINTS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let limiter = DeferredStore::limiter(ten_calls_three_at_once());
        let mut service = layer(&limiter, point, dropped).layer(Inner(point));
        let request = AssertUnwindSafe(|| {
            let mut response = spawn(service.call(call_by("u", "o")));
            assert!(response.poll().is_pending());
            limiter.store().now_answers(Answers::Decision);
            let Poll::Ready(Ok(response)) = response.poll() else { panic!("it is ready") };
            let mut body = spawn(response.into_body());
            let _ = body.enter(|context, body| body.poll_frame(context));
        });
        assert!(catch_unwind(request).is_err());
        let expected = Left { units: point.units(dropped), places: 0 };
        assert_eq!(left(&limiter), expected, "{point:?}, {dropped}");
    }
}

/// A store of a user that can't take corrections, since it has no `submit` of its own.
#[derive(Debug)]
struct Uncorrected(MemoryStore<ManualClock>);

impl Store for Uncorrected {
    type Check = Immediate;

    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        self.0.check(charge)
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match command {
            Command::Peek(_) => self.0.command(command).await,
            _ => std::future::pending().await,
        }
    }
}

#[test]
fn a_lost_correction_is_reported_once_even_if_the_observer_panics() {
    let store = Uncorrected(MemoryStore::with_clock(ManualClock::new()));
    let limiter = Limiter::with_store(ten_calls_three_at_once(), store).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    limiter.on_event(move |event| {
        if let Event::CorrectionFailed { kind, .. } = event {
            send.send(*kind).unwrap();
            panic!("in a listener");
        }
    });
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).refund_dropped();
    for _ in 0..2 {
        // The refund is made while the panic unwinds: a second panic would abort the process.
        let mut service = layer.layer(Inner(Point::Poll));
        let request = AssertUnwindSafe(|| {
            let mut response = spawn(service.call(call_by("u", "o")));
            response.poll().is_ready()
        });
        assert!(catch_unwind(request).is_err());
    }
    assert_eq!(receive.try_iter().collect::<Vec<_>>(), ["unsupported"]);
    assert_eq!(left(&limiter), Left { units: 8, places: 0 });
    assert_eq!((limiter.report().refunds, limiter.report().failed_corrections), (0, 2));
}
