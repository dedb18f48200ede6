//! Requests in flight over real connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::middleware::map_request;
use axum::routing::{get, post};
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
use bytes::Bytes;
use futures_util::stream;
use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::stopped_limiter;

pub(super) type Limited = Limiter<MemoryStore<ManualClock>>;

/// A server on a port of its own. It ends with the test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) limiter: Limited,
    _task: JoinSet<()>,
}

impl Server {
    /// The routes, behind a limiter that allows one request in flight of the only account.
    pub(super) async fn start(routes: Router) -> Self {
        let quota = || Quota::per_second(1_000_000).burst(1_000_000);
        let policy = Policy::bolna()
            .quota("call", quota())
            .default_quota(quota())
            .concurrent("call", 1)
            .concurrent("default", 1)
            .build()
            .unwrap();
        let (limiter, _clock) = stopped_limiter(policy);
        let app = routes
            .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
            .layer(map_request(authenticate));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async { axum::serve(listener, app).await.unwrap() };
        Self { address, limiter, _task: JoinSet::from_iter([serve]) }
    }

    /// Sends requests until one is not refused.
    async fn insist(&self, version: Version) -> Response<Incoming> {
        let mut connection = Connection::open(self, version).await;
        for _ in 0..100_000 {
            let response = connection.send(Method::POST, "/call").await;
            if response.status() != StatusCode::TOO_MANY_REQUESTS {
                return response;
            }
            response.into_body().collect().await.unwrap();
        }
        panic!("the place was not freed")
    }
}

async fn authenticate(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Account::user("u").in_organization("o"));
    request
}

#[derive(Clone, Copy, Debug)]
enum Version {
    Http1,
    Http2,
}

const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// One connection of a client. When it is dropped, the connection breaks.
struct Connection {
    sender: Sender,
    _task: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    async fn open(server: &Server, version: Version) -> Self {
        let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
        match version {
            Version::Http1 => {
                let (send, connection) = http1::handshake(stream).await.unwrap();
                let task = JoinSet::from_iter([async { drop(connection.await) }]);
                Self { sender: Sender::Http1(send), _task: task }
            }
            Version::Http2 => {
                let (send, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                let task = JoinSet::from_iter([async { drop(connection.await) }]);
                Self { sender: Sender::Http2(send), _task: task }
            }
        }
    }

    async fn send(&mut self, method: Method, path: &str) -> Response<Incoming> {
        let request = Request::builder().method(method);
        match &mut self.sender {
            Sender::Http1(send) => {
                let request = request.uri(path).header("host", "limited.example");
                send.ready().await.unwrap();
                send.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
            }
            Sender::Http2(send) => {
                let request = request.uri(format!("http://limited.example{path}"));
                send.ready().await.unwrap();
                send.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
            }
        }
    }
}

async fn text(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Parts of a body that the test sends one by one.
#[derive(Clone, Default)]
struct Parts(Arc<Mutex<Option<mpsc::UnboundedSender<Bytes>>>>);

impl Parts {
    fn body(&self) -> Body {
        let (send, receive) = mpsc::unbounded_channel();
        *self.0.lock().unwrap() = Some(send);
        Body::from_stream(stream::unfold(receive, async |mut receive| {
            Some((Ok::<_, Infallible>(receive.recv().await?), receive))
        }))
    }

    fn send(&self, part: &'static str) {
        self.0.lock().unwrap().as_ref().unwrap().send(Bytes::from(part)).unwrap();
    }

    fn end(&self) {
        self.0.lock().unwrap().take().unwrap();
    }

    fn routes(&self) -> Router {
        let parts = self.clone();
        Router::new().route("/call", post(async move || parts.body()))
    }
}

async fn assert_refused(response: Response<Incoming>, limit: &str) {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    let problem: Value = serde_json::from_slice(&text(response).await).unwrap();
    assert_eq!(problem["violated-policies"], Value::from(vec![limit]));
}

#[tokio::test]
async fn one_request_too_many_is_refused_until_the_body_of_another_has_been_read() {
    for version in VERSIONS {
        let parts = Parts::default();
        let server = Server::start(parts.routes()).await;
        let mut first = Connection::open(&server, version).await;
        let mut second = Connection::open(&server, version).await;
        let response = first.send(Method::POST, "/call").await;
        assert_eq!(response.status(), StatusCode::OK);
        parts.send("some of it");
        for _ in 0..3 {
            let refused = second.send(Method::POST, "/call").await;
            assert_refused(refused, "call-concurrent").await;
        }
        parts.end();
        assert_eq!(text(response).await, "some of it");
        let response = second.send(Method::POST, "/call").await;
        assert_eq!(response.status(), StatusCode::OK, "{version:?}");
        parts.end();
        text(response).await;
        assert_eq!(server.limiter.report().in_flight, 0);
    }
}

/// On several threads, the client may have read the end before the server's task goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_each_response_is_never_one_request_too_many() {
    let routes = Router::new()
        .route("/call", post(async || "called"))
        .route("/empty", get(async || StatusCode::NO_CONTENT))
        .route("/long", get(async || "long".repeat(100_000)));
    let server = Server::start(routes).await;
    for version in VERSIONS {
        let mut connection = Connection::open(&server, version).await;
        for round in 0..300 {
            for (method, path) in [
                (Method::POST, "/call"),
                (Method::GET, "/empty"),
                (Method::HEAD, "/long"),
                (Method::GET, "/long"),
            ] {
                let response = connection.send(method.clone(), path).await;
                let what = format!("{version:?}, {round}, {method} {path}");
                assert!(response.status().is_success(), "{what}");
                text(response).await;
            }
        }
    }
}

/// A body without an end, in large parts.
fn endless() -> Body {
    let part = Bytes::from(vec![b'x'; 1 << 16]);
    Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(part.clone())))
}

#[tokio::test]
async fn a_client_that_reads_slowly_keeps_its_place_and_one_that_leaves_frees_it() {
    for version in VERSIONS {
        let server = Server::start(Router::new().route("/call", post(async || endless()))).await;
        let mut slow = Connection::open(&server, version).await;
        let mut response = slow.send(Method::POST, "/call").await;
        let mut other = Connection::open(&server, Version::Http1).await;
        for _ in 0..20 {
            assert!(response.body_mut().frame().await.unwrap().unwrap().is_data());
            let refused = other.send(Method::POST, "/call").await;
            assert_refused(refused, "call-concurrent").await;
        }
        drop((response, slow));
        let response = server.insist(Version::Http1).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_broken_connection_frees_its_place_while_nothing_is_sent() {
    for version in VERSIONS {
        let parts = Parts::default();
        let server = Server::start(parts.routes()).await;
        let mut first = Connection::open(&server, version).await;
        let response = first.send(Method::POST, "/call").await;
        assert_eq!(server.limiter.report().in_flight, 1);
        drop((response, first));
        assert_eq!(server.insist(version).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_response_frees_its_place() {
    for version in VERSIONS {
        let (entered, mut enters) = mpsc::unbounded_channel();
        let handler = post(async move || {
            entered.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let server = Server::start(Router::new().route("/call", handler)).await;
        for _ in 0..3 {
            let mut connection = Connection::open(&server, version).await;
            let mut pending = Box::pin(connection.send(Method::POST, "/call"));
            loop {
                // Refused until the one before is gone.
                tokio::select! {
                    response = &mut pending => {
                        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
                        drop(pending);
                        connection = Connection::open(&server, version).await;
                        pending = Box::pin(connection.send(Method::POST, "/call"));
                    }
                    entered = enters.recv() => break entered.unwrap(),
                }
            }
            assert_eq!(server.limiter.report().in_flight, 1);
        }
    }
}
