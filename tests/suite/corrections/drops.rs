//! What a request has spent, and whether it is still in flight, after it was dropped at any point
//! between its admission and the end of its response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bolna_rate_limit::layer::ResponseBody;
use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{BolnaRateLimitLayer, Limiter};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service};

use super::{Left, left, ten_calls_three_at_once};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, ok, quiet, stopped_limiter};

const POLLS: usize = 3;
const FRAMES: usize = 2;

/// An inner service that is not ready at its first polls, as its body is not.
#[derive(Clone, Copy, Debug)]
struct Slow {
    fails: bool,
}

#[derive(Debug)]
struct Answering {
    polls: usize,
    fails: bool,
}

/// A body that is not ready before each of its frames.
#[derive(Debug)]
struct SlowBody {
    frames: usize,
    is_ready: bool,
}

impl<B> Service<Request<B>> for Slow {
    type Response = Response<SlowBody>;
    type Error = &'static str;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Answering {
        Answering { polls: POLLS, fails: self.fails }
    }
}

impl Future for Answering {
    type Output = Result<Response<SlowBody>, &'static str>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls > 0 {
            self.polls -= 1;
            return Poll::Pending;
        }
        let body = SlowBody { frames: FRAMES, is_ready: false };
        Poll::Ready(if self.fails { Err("broken") } else { Ok(Response::new(body)) })
    }
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            return Poll::Pending;
        }
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"part")))))
    }
}

/// Which requests are refunded: those that are dropped, and those that fail.
const SETTINGS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn layer<St: Store>(limiter: &Limiter<St>, setting: (bool, bool)) -> BolnaRateLimitLayer<St> {
    let (dropped, errors) = setting;
    let mut layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    if dropped {
        layer = layer.refund_dropped();
    }
    if errors {
        layer = layer.refund_errors();
    }
    layer
}

fn left_if(refunded: bool, places: u64) -> Left {
    Left { units: if refunded { 10 } else { 9 }, places }
}

#[test]
fn a_response_dropped_at_any_poll_frees_its_place_and_is_refunded_by_choice() {
    for setting in SETTINGS {
        for polls in 0..=POLLS {
            let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
            let mut service = layer(&limiter, setting).layer(Slow { fails: false });
            let mut response = spawn(service.call(call_by("u", "o")));
            for _ in 0..polls {
                assert_pending!(response.poll());
            }
            assert_eq!(left(&limiter), Left { units: 9, places: 1 });
            drop(response);
            let what = format!("{setting:?}, after {polls} polls");
            assert_eq!(left(&limiter), left_if(setting.0, 0), "{what}");
        }
    }
}

#[test]
fn a_request_dropped_while_the_store_decides_takes_no_place() {
    for setting in SETTINGS {
        for polls in 0..3 {
            let limiter = DeferredStore::limiter(ten_calls_three_at_once());
            let mut service = layer(&limiter, setting).layer(Slow { fails: false });
            let mut response = spawn(service.call(call_by("u", "o")));
            for _ in 0..polls {
                assert_pending!(response.poll());
            }
            // So that never more are in flight than allowed, whatever the store says.
            assert_eq!(left(&limiter), Left { units: 9, places: 1 });
            drop(response);
            assert_eq!(left(&limiter), Left { units: 9, places: 0 }, "{setting:?}, {polls}");
        }
    }
}

#[test]
fn a_response_after_a_wait_for_the_store_is_like_any_other() {
    for setting in SETTINGS {
        for polls in 0..=POLLS {
            let limiter = DeferredStore::limiter(ten_calls_three_at_once());
            let mut service = layer(&limiter, setting).layer(Slow { fails: false });
            let mut response = spawn(service.call(call_by("u", "o")));
            assert_pending!(response.poll());
            limiter.store().now_answers(Answers::Decision);
            for _ in 0..polls {
                assert_pending!(response.poll());
            }
            drop(response);
            // Before the first poll after the answer, the inner service was not called.
            let refunded = setting.0 && polls > 0;
            assert_eq!(left(&limiter), left_if(refunded, 0), "{setting:?}, {polls}");
        }
    }
}

#[test]
fn a_store_that_fails_leaves_nothing_in_flight() {
    for setting in SETTINGS {
        let limiter = DeferredStore::limiter(ten_calls_three_at_once());
        let mut service = layer(&limiter, setting).layer(Slow { fails: false });
        let mut response = spawn(service.call(call_by("u", "o")));
        assert_pending!(response.poll());
        limiter.store().now_answers(Answers::Failure);
        let response = assert_ready!(response.poll()).unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        limiter.store().now_answers(Answers::Decision);
        assert_eq!(left(&limiter), Left { units: 9, places: 0 });
    }
}

#[test]
fn an_error_of_the_inner_service_is_refunded_by_choice_and_is_no_dropped_request() {
    for setting in SETTINGS {
        let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
        let mut service = layer(&limiter, setting).layer(Slow { fails: true });
        let mut response = spawn(service.call(call_by("u", "o")));
        for _ in 0..POLLS {
            assert_pending!(response.poll());
        }
        assert_eq!(assert_ready!(response.poll()).unwrap_err(), "broken");
        assert_eq!(left(&limiter), left_if(setting.1, 0), "{setting:?}, at once");
        drop(response);
        assert_eq!(left(&limiter), left_if(setting.1, 0), "{setting:?}");
    }
}

type Answered = Response<ResponseBody<SlowBody>>;

/// The response to a call, once it is there.
fn answered<St: Store>(limiter: &Limiter<St>, setting: (bool, bool)) -> Answered {
    let mut service = layer(limiter, setting).layer(Slow { fails: false });
    let mut response = spawn(service.call(call_by("u", "o")));
    for _ in 0..POLLS {
        assert_pending!(response.poll());
    }
    assert_ready!(response.poll()).unwrap()
}

/// Polls a body that many times. Returns whether it has ended.
fn poll_body(body: &mut Spawn<ResponseBody<SlowBody>>, polls: usize) -> bool {
    let mut ended = false;
    for _ in 0..polls {
        let frame = body.enter(|context, body| body.poll_frame(context));
        ended = matches!(frame, Poll::Ready(None));
    }
    ended
}

#[test]
fn a_request_is_in_flight_until_its_body_has_ended_or_is_dropped() {
    // Each frame takes two polls, as the end does.
    let to_the_end = 2 * (FRAMES + 1);
    for setting in SETTINGS {
        for polls in 0..=to_the_end {
            let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
            let mut body = spawn(answered(&limiter, setting).into_body());
            let has_ended = poll_body(&mut body, polls);
            assert_eq!(has_ended, polls == to_the_end);
            let places = u64::from(!has_ended);
            assert_eq!(left(&limiter), Left { units: 9, places }, "{setting:?}, {polls}");
            drop(body);
            assert_eq!(left(&limiter), Left { units: 9, places: 0 }, "{setting:?}, {polls}");
        }
    }
}

#[test]
fn is_end_stream_ends_a_request() {
    let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
    let inner = tower::service_fn(ok::<String>);
    let mut service = layer(&limiter, (false, false)).layer(inner);
    let response = assert_ready!(spawn(service.call(call_by("u", "o"))).poll()).unwrap();
    let mut body = spawn(response.into_body());
    assert_eq!(left(&limiter), Left { units: 9, places: 1 });
    let frame = assert_ready!(body.enter(|context, body| body.poll_frame(context)));
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "inner");
    assert_eq!(left(&limiter), Left { units: 9, places: 0 });
    drop(body);
}

#[test]
fn a_response_whose_body_is_not_read_is_in_flight_until_it_is_dropped() {
    let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
    let response = answered(&limiter, (true, true));
    assert_eq!(left(&limiter), Left { units: 9, places: 1 });
    // Nor does it matter what it is replaced by.
    let response = response.map(drop);
    assert_eq!(left(&limiter), Left { units: 9, places: 0 });
    drop(response);
}

#[test]
fn a_request_is_refunded_once_whatever_refunds_it() {
    let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
    let spent = [answered(&limiter, (false, false)), answered(&limiter, (false, false))];
    let kept: Arc<std::sync::Mutex<Vec<Admission>>> = Arc::default();
    let inner = tower::service_fn({
        let kept = Arc::clone(&kept);
        move |request: Request<String>| {
            let admission = request.extensions().get::<Admission>().unwrap().clone();
            admission.refund();
            kept.lock().unwrap().extend([admission.clone(), admission]);
            async { Err::<Response<String>, _>("broken") }
        }
    });
    let mut service = layer(&limiter, (true, true)).refund_on(|_| true).layer(inner);
    assert!(assert_ready!(spawn(service.call(call_by("u", "o"))).poll()).is_err());
    for admission in kept.lock().unwrap().drain(..) {
        admission.refund();
    }
    assert_eq!(left(&limiter), Left { units: 8, places: 2 });
    assert_eq!(limiter.report().refunds, 1);
    drop(spent);
    assert_eq!(left(&limiter), Left { units: 8, places: 0 });
}

#[test]
fn a_handler_that_keeps_the_admission_keeps_the_request_in_flight() {
    for ends in [false, true] {
        let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
        let (send, receive) = std::sync::mpsc::channel();
        let inner = tower::service_fn(move |request: Request<String>| {
            send.send(request.extensions().get::<Admission>().unwrap().clone()).unwrap();
            async { Ok::<_, &str>(Response::new(String::new())) }
        });
        let mut service = layer(&limiter, (true, true)).layer(inner);
        let response = assert_ready!(spawn(service.call(call_by("u", "o"))).poll()).unwrap();
        drop(response);
        assert_eq!(left(&limiter), Left { units: 9, places: 1 });
        let admission = receive.recv().unwrap();
        if ends {
            admission.end();
            assert_eq!(left(&limiter), Left { units: 9, places: 0 });
        }
        // A job that fails an hour later.
        admission.refund();
        drop(admission);
        assert_eq!(left(&limiter), Left { units: 10, places: 0 });
    }
}

#[test]
fn a_refused_request_has_no_place_while_its_refusal_is_kept() {
    let (limiter, _clock) = stopped_limiter(ten_calls_three_at_once());
    let kept: Vec<_> = (0..3).map(|_| answered(&limiter, (true, true))).collect();
    let mut service = layer(&limiter, (true, true)).layer(Slow { fails: false });
    let refused = assert_ready!(spawn(service.call(call_by("u", "o"))).poll()).unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(left(&limiter), Left { units: 7, places: 3 });
    drop(kept);
    assert_eq!(left(&limiter), Left { units: 7, places: 0 });
}

#[test]
fn an_admission_outlives_its_limiter() {
    let clock = ManualClock::new();
    let store = Arc::new(MemoryStore::with_clock(clock));
    let limiter =
        quiet(Limiter::with_store(ten_calls_three_at_once(), Arc::clone(&store)).unwrap());
    let response = answered(&limiter, (false, false));
    drop(limiter);
    assert!(Arc::strong_count(&store) > 1, "the place belongs to the limiter");
    drop(response);
    assert_eq!(Arc::strong_count(&store), 1);
}
