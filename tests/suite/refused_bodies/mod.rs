//! The bodies of refused requests are read, within bounds, before the refusal is sent.

mod distant;
mod over_tcp;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bolna_rate_limit::layer::Refusal;
use bolna_rate_limit::observe::{Observation, Observer};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy};
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_test::mock;
use tower_test::mock::spawn::Spawn;

use crate::deferred::{Answers, DeferredStore};
use crate::support::{DecideNow, now, one_call, organization, stopped_limiter};

/// A body that a client sends piece by piece.
#[derive(Debug)]
struct Upload {
    pieces: VecDeque<Piece>,
    length: Option<u64>,
    /// The bytes that were read.
    read: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Piece {
    Data(&'static [u8]),
    Trailers,
    /// The client does not send any more for now.
    Silence,
    Error,
    /// From here on the same for ever.
    Ever(&'static [u8]),
}

impl Upload {
    fn of(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self { pieces: pieces.into_iter().collect(), length: None, read: Arc::default() }
    }

    fn with_length(self, length: u64) -> Self {
        Self { length: Some(length), ..self }
    }

    fn read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = match self.pieces.front() {
            Some(piece @ (Piece::Ever(_) | Piece::Silence)) => Some(piece.clone()),
            _ => self.pieces.pop_front(),
        };
        Poll::Ready(match piece {
            None => None,
            Some(Piece::Silence) => return Poll::Pending,
            Some(Piece::Error) => Some(Err(io::Error::other("the client is gone"))),
            Some(Piece::Trailers) => Some(Ok(Frame::trailers(http::HeaderMap::new()))),
            Some(Piece::Data(data) | Piece::Ever(data)) => {
                self.read.fetch_add(data.len() as u64, Ordering::SeqCst);
                Some(Ok(Frame::data(Bytes::from_static(data))))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn post<B>(upload: B) -> Request<B> {
    let mut request = Request::post("/call").body(upload).unwrap();
    request.extensions_mut().insert(Account::user("u").in_organization("o"));
    request
}

async fn ok<B>(_: Request<B>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("inner".to_owned()))
}

/// A layer whose only call of ten seconds is taken.
fn spent() -> BolnaRateLimitLayer<impl bolna_rate_limit::store::Store + use<>> {
    let limiter = stopped_limiter(one_call()).0;
    let _ = limiter.decide_now(&organization("o"), "/call");
    BolnaRateLimitLayer::with_limiter(limiter)
}

/// The refusal that is sent at once. `None` if the limiter waits for more of the body.
fn refusal(
    layer: &BolnaRateLimitLayer<impl bolna_rate_limit::store::Store>,
    request: Request<Upload>,
) -> Option<Response<()>> {
    let mut response = Box::pin(layer.layer(tower::service_fn(ok::<Upload>)).oneshot(request));
    match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(response) => {
            let response = response.unwrap().map(|_| ());
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            Some(response)
        }
    }
}

fn closes<B>(response: &Response<B>) -> bool {
    let values: Vec<_> = response.headers().get_all(CONNECTION).iter().collect();
    assert!(values.is_empty() || values == ["close"], "{values:?}");
    !values.is_empty()
}

#[test]
fn a_body_is_read_to_its_end_and_the_connection_stays_open() {
    for pieces in [
        vec![],
        vec![Piece::Data(b"four")],
        vec![Piece::Data(b""), Piece::Data(b"four"), Piece::Data(b"more"), Piece::Trailers],
    ] {
        let upload = Upload::of(pieces.clone());
        let read = upload.read();
        let refused = refusal(&spent(), post(upload)).unwrap();
        assert!(!closes(&refused));
        let bytes =
            |piece: &Piece| if let Piece::Data(data) = piece { data.len() as u64 } else { 0 };
        assert_eq!(read.load(Ordering::SeqCst), pieces.iter().map(bytes).sum::<u64>());
    }
}

#[test]
fn a_refusal_waits_for_the_body_that_is_still_being_sent() {
    let upload = Upload::of([Piece::Data(b"four"), Piece::Silence]).with_length(8);
    assert!(refusal(&spent(), post(upload)).is_none());
    // A body of which nothing is left is not waited for.
    let service = spent().layer(tower::service_fn(ok::<String>));
    assert_eq!(now(service.oneshot(post(String::new()))).unwrap().status(), 429);
}

#[test]
fn reading_stops_at_the_piece_that_passes_the_bound() {
    const KIB: &[u8] = &[b'x'; 1024];
    for (bound, pieces, read, closed) in [
        (None, vec![Piece::Data(KIB); 1024], 1 << 20, false),
        (None, vec![Piece::Data(KIB); 1025], (1 << 20) + 1024, true),
        (None, vec![Piece::Ever(KIB)], (1 << 20) + 1024, true),
        (Some(4), vec![Piece::Data(b"four")], 4, false),
        (Some(3), vec![Piece::Data(b"four"), Piece::Data(b"more")], 4, true),
        (Some(0), vec![Piece::Data(b"four"), Piece::Data(b"more")], 0, true),
        (Some(u64::MAX), vec![Piece::Data(KIB); 5000], 5000 << 10, false),
    ] {
        let upload = Upload::of(pieces);
        let counted = upload.read();
        let layer = spent();
        let layer = match bound {
            Some(bound) => layer.read_refused_bodies(bound),
            None => layer,
        };
        let refused = refusal(&layer, post(upload)).unwrap();
        assert_eq!((counted.load(Ordering::SeqCst), closes(&refused)), (read, closed), "{bound:?}");
    }
    // Frames without data do not go on for ever either.
    let refused = refusal(&spent(), post(Upload::of([Piece::Ever(b"")]))).unwrap();
    assert!(closes(&refused));
}

#[test]
fn nothing_is_read_of_a_body_that_is_known_to_be_too_long() {
    for (length, bound) in [((1 << 20) + 1, 1 << 20), (u64::MAX, 1 << 20), (5, 4), (1, 0)] {
        let upload = Upload::of([Piece::Data(b"four"), Piece::Silence]).with_length(length);
        let read = upload.read();
        let refused = refusal(&spent().read_refused_bodies(bound), post(upload)).unwrap();
        assert!(closes(&refused), "{length} bytes");
        assert_eq!(read.load(Ordering::SeqCst), 0, "{length} bytes");
    }
}

#[test]
fn nothing_is_read_if_the_client_waits_for_100_continue() {
    for (value, waits) in
        [("100-continue", true), ("100-Continue", true), ("x, 100-continue", true), ("x", false)]
    {
        let mut request = post(Upload::of([Piece::Data(b"four")]));
        request.headers_mut().insert(EXPECT, HeaderValue::from_static(value));
        let read = request.body().read();
        let refused = refusal(&spent(), request).unwrap();
        assert_eq!((closes(&refused), read.load(Ordering::SeqCst) == 0), (waits, waits), "{value}");
    }
}

#[test]
fn in_http_1_0_there_is_no_100_continue_to_wait_for() {
    let mut request = post(Upload::of([Piece::Data(b"four")]));
    request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
    *request.version_mut() = Version::HTTP_10;
    let read = request.body().read();
    let refused = refusal(&spent(), request).unwrap();
    assert_eq!((closes(&refused), read.load(Ordering::SeqCst)), (false, 4));
}

#[test]
fn over_http2_and_http3_nothing_is_read_and_the_connection_stays_open() {
    for (version, reads) in [
        (Version::HTTP_10, true),
        (Version::HTTP_11, true),
        (Version::HTTP_2, false),
        (Version::HTTP_3, false),
    ] {
        let mut request = post(Upload::of([Piece::Data(b"four")]));
        *request.version_mut() = version;
        let read = request.body().read();
        let refused = refusal(&spent(), request).unwrap();
        assert!(!closes(&refused), "{version:?}");
        assert_eq!(read.load(Ordering::SeqCst) > 0, reads, "{version:?}");
    }
}

#[test]
fn a_body_that_fails_is_answered() {
    let refused = refusal(&spent(), post(Upload::of([Piece::Data(b"four"), Piece::Error])));
    assert!(closes(&refused.unwrap()));
}

#[test]
fn the_body_of_an_admitted_request_is_left_to_the_inner_service() {
    let upload = Upload::of([Piece::Data(b"four")]);
    let read = upload.read();
    let limiter = stopped_limiter(one_call()).0;
    let inner = tower::service_fn(async |request: Request<Upload>| {
        assert_eq!(request.body().pieces.len(), 1);
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(inner);
    assert_eq!(now(service.oneshot(post(upload))).unwrap().status(), 200);
    assert_eq!(read.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_sending_is_answered_when_the_time_is_over() {
    let layer = spent().read_refused_bodies_for(|| tokio::time::sleep(Duration::from_secs(10)));
    for pieces in [vec![Piece::Silence], vec![Piece::Data(b"four"), Piece::Silence]] {
        let start = Instant::now();
        let service = layer.layer(tower::service_fn(ok::<Upload>));
        let refused = service.oneshot(post(Upload::of(pieces))).await.unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(closes(&refused));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }
    // One that has sent everything is answered before.
    let start = Instant::now();
    let service = layer.layer(tower::service_fn(ok::<Upload>));
    let refused = service.oneshot(post(Upload::of([Piece::Data(b"four")]))).await.unwrap();
    assert_eq!((closes(&refused), start.elapsed()), (false, Duration::ZERO));
}

#[tokio::test]
async fn while_a_body_is_read_the_refused_request_holds_no_permit() {
    let silent = || post(Upload::of([Piece::Data(b"four"), Piece::Silence]));
    let limiter = stopped_limiter(one_call()).0;
    let _ = limiter.decide_now(&organization("o"), "/call");
    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(ConcurrencyLimitLayer::new(1))
        .service_fn(ok::<Upload>);
    let (mut refused, mut next) = (Spawn::new(stack.clone()), Spawn::new(stack));
    assert_ready_ok!(refused.poll_ready::<Request<Upload>>());
    assert_pending!(next.poll_ready::<Request<Upload>>());
    let mut response = spawn(refused.call(silent()));
    assert_ready_ok!(next.poll_ready::<Request<Upload>>());
    assert_pending!(response.poll());

    // With an answer of the store that comes later too.
    let limiter = DeferredStore::limiter(one_call());
    assert!(limiter.check(&organization("o").into(), "/call").is_some(), "takes the only unit");
    let stack = ServiceBuilder::new()
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .layer(ConcurrencyLimitLayer::new(1))
        .service_fn(ok::<Upload>);
    let (mut refused, mut next) = (Spawn::new(stack.clone()), Spawn::new(stack));
    assert_ready_ok!(refused.poll_ready::<Request<Upload>>());
    let mut response = spawn(refused.call(silent()));
    assert_pending!(response.poll());
    assert_pending!(next.poll_ready::<Request<Upload>>());
    limiter.store().now_answers(Answers::Decision);
    assert_pending!(response.poll(), "the body is being read");
    assert_ready_ok!(next.poll_ready::<Request<Upload>>());
}

#[tokio::test]
async fn while_a_body_is_read_the_service_goes_on_with_the_next_request() {
    let by = |organization: &str, upload| {
        let mut request = post(upload);
        request.extensions_mut().insert(Account::user("u").in_organization(organization));
        request
    };
    // It panics if it is called before it was polled ready.
    let (inner, mut handle) = mock::pair::<Request<Upload>, Response<String>>();
    let mut service = Spawn::new(spent().layer(inner));
    assert_ready_ok!(service.poll_ready::<Request<Upload>>());
    let mut refused = spawn(service.call(by("o", Upload::of([Piece::Silence]))));
    assert_pending!(refused.poll());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready::<Request<Upload>>());
    let admitted = service.call(by("another", Upload::of([])));
    let (_, answer) = handle.next_request().await.unwrap();
    answer.send_response(Response::new("inner".to_owned()));
    assert_eq!(admitted.await.unwrap().status(), StatusCode::OK);
    assert_pending!(refused.poll());
    let mut requests = spawn(handle.next_request());
    assert_pending!(requests.poll(), "the refused request did not reach the inner service");
}

#[test]
fn a_dropped_future_drops_the_body() {
    let upload = Upload::of([Piece::Data(b"four"), Piece::Silence]);
    let read = upload.read();
    let mut response =
        Box::pin(spent().layer(tower::service_fn(ok::<Upload>)).oneshot(post(upload)));
    assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!((read.load(Ordering::SeqCst), Arc::strong_count(&read)), (4, 2));
    drop(response);
    assert_eq!(Arc::strong_count(&read), 1);
}

/// An observer that panics.
struct Fragile;

impl Observer for Fragile {
    fn on_decision(&self, _: &Observation<'_>) {
        panic!("the observer's own panic");
    }
}

#[tokio::test]
async fn a_panic_of_the_users_code_leaves_no_permit_taken() {
    let panics = |layer: BolnaRateLimitLayer<_>| {
        let stack = ServiceBuilder::new()
            .layer(layer)
            .layer(ConcurrencyLimitLayer::new(1))
            .service_fn(ok::<String>);
        let (mut service, mut next) = (Spawn::new(stack.clone()), Spawn::new(stack));
        assert_ready_ok!(service.poll_ready::<Request<String>>());
        assert_pending!(next.poll_ready::<Request<String>>());
        let call = catch_unwind(AssertUnwindSafe(|| drop(service.call(post(String::new())))));
        assert!(call.is_err());
        assert_ready_ok!(next.poll_ready::<Request<String>>());
        // And the service itself can be used again.
        drop(next);
        assert_ready_ok!(service.poll_ready::<Request<String>>());
    };
    let layer = || {
        let limiter = stopped_limiter(Policy::default()).0;
        limiter.set_policy(one_call()).unwrap();
        let _ = limiter.decide_now(&organization("o"), "/call");
        BolnaRateLimitLayer::with_limiter(limiter)
    };
    panics(
        layer().render_refusals(|_: &Refusal<'_>| -> Response<Bytes> { panic!("the renderer's") }),
    );
    panics(layer().identify(|_| -> Option<Account> { panic!("the closure's") }));
    let observed = layer();
    observed.limiter().observe(Fragile);
    panics(observed);
}

#[test]
fn a_refusal_and_a_request_that_can_take_no_more_fields_are_no_harm() {
    let name = |number: usize| HeaderName::try_from(format!("x-{number}")).unwrap();
    let full = move || {
        let mut headers = http::HeaderMap::new();
        while headers.try_insert(name(headers.len()), HeaderValue::from_static("v")).is_ok() {}
        assert!(headers.len() >= 24_000, "{}", headers.len());
        headers
    };
    let layer = spent().render_refusals(move |refusal: &Refusal<'_>| {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = refusal.status();
        *response.headers_mut() = full();
        response
    });
    // It is to be closed, and there is no room to say so.
    let mut request = post(Upload::of([Piece::Error]));
    for number in 0..24_000 {
        request.headers_mut().insert(name(number), HeaderValue::from_static("v"));
    }
    assert!(!closes(&refusal(&layer, request).unwrap()));
}
