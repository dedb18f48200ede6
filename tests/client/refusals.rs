//! The body of a refusal: it is read before a retry, and reaches the caller as it came.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body as Answer;
use axum::extract::Request as Incoming;
use axum::serve::ListenerExt;
use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, ResponseBody, RetryPolicy};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::assert_at;

const DAY: Duration = Duration::from_secs(86_400);

/// A body that does what the test says.
#[derive(Clone, Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    /// Whether it knows how much is left.
    is_known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Data(usize),
    Trailers,
    Wait(u64),
    Fail,
}

struct Scripted {
    script: Script,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Script {
    fn new(steps: &[Step], is_known: bool) -> Self {
        Self { steps: steps.iter().copied().collect(), is_known }
    }

    fn into_body(self) -> Scripted {
        Scripted { script: self, sleep: None }
    }

    fn bytes(&self) -> u64 {
        let bytes = self.steps.iter().map(|step| match step {
            Step::Data(bytes) => *bytes,
            _ => 0,
        });
        bytes.sum::<usize>() as u64
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            let Some(step) = self.script.steps.front().copied() else { return Poll::Ready(None) };
            if let Step::Wait(time) = step {
                let time = Duration::from_millis(time);
                let waits = self.sleep.get_or_insert_with(|| Box::pin(sleep(time)));
                ready!(waits.as_mut().poll(cx));
                self.sleep = None;
            }
            self.script.steps.pop_front();
            return Poll::Ready(Some(match step {
                Step::Data(bytes) => Ok(Frame::data(Bytes::from(vec![b'x'; bytes]))),
                Step::Trailers => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "8".parse().unwrap());
                    Ok(Frame::trailers(trailers))
                }
                Step::Fail => Err(io::Error::other("broken")),
                Step::Wait(_) => continue,
            }));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.script.is_known && self.script.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.script.is_known {
            SizeHint::with_exact(self.script.bytes())
        } else {
            SizeHint::default()
        }
    }
}

/// What a reader sees of a body, frame by frame.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Data(Bytes),
    Trailers(HeaderMap),
    Failed(String),
}

/// Reads a body to its end. What the body says about its rest has to be true at each step.
async fn read<B>(body: B) -> Vec<Seen>
where
    B: Body<Data = Bytes, Error = io::Error>,
{
    let mut body = Box::pin(body);
    let (mut seen, mut hints) = (Vec::new(), vec![(0, body.size_hint())]);
    let (mut bytes, mut ended_after) = (0, body.is_end_stream().then_some(0));
    while let Some(frame) = body.frame().await {
        seen.push(match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                bytes += data.len() as u64;
                Seen::Data(data)
            }
            Ok(Err(frame)) => Seen::Trailers(frame.into_trailers().unwrap()),
            Err(error) => Seen::Failed(error.to_string()),
        });
        hints.push((bytes, body.size_hint()));
        if body.is_end_stream() {
            ended_after = ended_after.or(Some(seen.len()));
        }
    }
    let has_failed = seen.iter().any(|seen| matches!(seen, Seen::Failed(_)));
    for (before, hint) in hints {
        assert!(has_failed || hint.lower() <= bytes - before, "{hint:?} of {}", bytes - before);
        assert!(hint.upper().is_none_or(|upper| bytes - before <= upper), "{hint:?}");
    }
    assert!(ended_after.is_none_or(|ended| ended == seen.len()), "{ended_after:?} of {seen:?}");
    seen
}

/// A refusal with that body, as it comes through the client, and when.
async fn refused(script: &Script) -> (Response<ResponseBody<Scripted>>, Duration) {
    let client = PaceLayer::default().layer(service_fn(|_: Request<String>| {
        let mut response = Response::new(script.clone().into_body());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        async { Ok::<_, Infallible>(response) }
    }));
    let started = Instant::now();
    let response = client.oneshot(crate::support::request("/call")).await.unwrap();
    (response, started.elapsed())
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..100).prop_map(Step::Data),
        2 => (10_000_usize..50_000).prop_map(Step::Data),
        1 => Just(Step::Trailers),
        2 => (0_u64..700).prop_map(Step::Wait),
        1 => Just(Step::Fail),
    ]
}

proptest! {
    #[test]
    fn the_last_refusal_reaches_the_caller_as_it_came(
        steps in prop::collection::vec(any_step(), 0..12),
        is_known: bool,
    ) {
        // A reader stops after an error.
        let end = steps.iter().position(|step| *step == Step::Fail).map_or(steps.len(), |at| at + 1);
        let script = Script::new(&steps[..end], is_known);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (response, took) = refused(&script).await;
            assert!(took <= Duration::from_millis(1002), "{took:?}");
            assert_eq!(read(response.into_body()).await, read(script.into_body()).await);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_its_body_for_a_second_at_most() {
    let second = Duration::from_secs(1);
    let slow = |wait| Script::new(&[Step::Data(10), Step::Wait(wait), Step::Data(10)], false);
    for (script, expected) in [
        (slow(400), second * 2 / 5),
        (slow(60_000), second),
        (Script::new(&[], true), Duration::ZERO),
        // It is known to be too long, so that it is no use to read a part of it.
        (Script::new(&[Step::Wait(400), Step::Data(100_000)], true), Duration::ZERO),
        // Where that is not known, it is read until it is too long.
        (Script::new(&[Step::Data(66_000), Step::Wait(400)], false), Duration::ZERO),
    ] {
        let (_, took) = refused(&script).await;
        assert_at(took, expected);
    }
    // Frames without data take memory too.
    let (response, _) = refused(&Script::new(&vec![Step::Data(0); 10_000], false)).await;
    assert!(response.body().get_ref().script.steps.len() > 9000);
}

#[tokio::test(start_paused = true)]
async fn only_the_body_of_a_refusal_is_read() {
    let client = PaceLayer::default().layer(service_fn(|_: Request<String>| async {
        let script = Script::new(&[Step::Wait(500), Step::Data(10)], false);
        Ok::<_, Infallible>(Response::new(script.into_body()))
    }));
    let started = Instant::now();
    let response = client.oneshot(crate::support::request("/call")).await.unwrap();
    assert_at(started.elapsed(), Duration::ZERO);
    assert!(response.into_body().into_inner().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_wrapped_body_of_a_refusal_is_not_handed_out_without_its_beginning() {
    let (response, _) = refused(&Script::new(&[Step::Data(10)], true)).await;
    let body = response.into_body().into_inner().map(|_| ()).unwrap_err();
    assert_eq!(read(body).await, [Seen::Data(Bytes::from_static(b"xxxxxxxxxx"))]);
    let (response, _) = refused(&Script::new(&[], true)).await;
    assert!(response.into_body().into_inner().is_ok(), "nothing was read");
}

/// A client outside of a runtime can't wait, and gets what is there.
#[test]
fn a_refusal_needs_no_runtime() {
    let waits = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, io::Error>>());
    let waits = std::sync::Mutex::new(Some(waits));
    let client = PaceLayer::default().layer(service_fn(|_: Request<String>| {
        let mut response = Response::new(waits.lock().unwrap().take().unwrap());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        async { Ok::<_, Infallible>(response) }
    }));
    let mut call = tokio_test::task::spawn(client.oneshot(crate::support::request("/call")));
    assert!(call.poll().is_ready());
}

/// How many connections a client makes that is refused twenty times, with a body of that many
/// bytes, in pieces.
async fn connections(bytes: usize) -> usize {
    let requests = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(move |_: Incoming| {
        let number = requests.fetch_add(1, Ordering::Relaxed);
        async move {
            if number >= 20 {
                return Response::new(Answer::from("done"));
            }
            let pieces =
                (0..bytes / 1000).map(|_| Ok::<_, io::Error>(Bytes::from(vec![b'x'; 1000])));
            // As from a handler that makes its page little by little.
            let pieces =
                futures_util::StreamExt::then(futures_util::stream::iter(pieces), async |piece| {
                    tokio::task::yield_now().await;
                    piece
                });
            let mut response = Response::new(Answer::from_stream(pieces));
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&connections);
    let listener = listener.tap_io(move |stream| {
        stream.set_nodelay(true).unwrap();
        counts.fetch_add(1, Ordering::Relaxed);
    });
    let _server = JoinSet::from_iter([async { axum::serve(listener, app).await.unwrap() }]);

    let retry = RetryPolicy::builder().attempts(100).total_time(DAY).build().unwrap();
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = BolnaClientLayer::with_pacer(Pacer::new())
        .retry(retry)
        .layer(Client::builder(TokioExecutor::new()).build(connector));
    let call = Request::post(format!("http://{address}/call")).body(Empty::<Bytes>::new());
    let response = client.oneshot(call.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    connections.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn twenty_refusals_with_large_bodies_need_one_connection() {
    assert_eq!(connections(60_000).await, 1);
}
