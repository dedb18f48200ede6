//! A guard against guessed keys: only failures are charged, by address. Over TCP, with axum.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bolna_rate_limit::layer::{ClientAddress, OnUnidentified};
use bolna_rate_limit::store::{Charge, Command, Entry, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Kind, Limit, LimitName, Principal, Scope};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter, Policy, Quota};
use bytes::Bytes;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{peeked, stopped_limiter};

type Limited = Limiter<MemoryStore<ManualClock>>;
type Layer = BolnaRateLimitLayer<MemoryStore<ManualClock>>;

/// A server that answers 401 unless the key is `right`, behind a guard.
struct Server {
    address: SocketAddr,
    limiter: Limited,
    _task: JoinSet<()>,
}

async fn authenticate(mut request: Request, next: Next) -> Response {
    match request.headers().get(AUTHORIZATION) {
        Some(key) if key == "right" => {
            request.extensions_mut().insert(Account::user("u"));
            next.run(request).await
        }
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

impl Server {
    async fn start(policy: Policy, guard: impl FnOnce(Layer) -> Layer) -> Self {
        let (limiter, _clock) = stopped_limiter(policy);
        let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
            .refund_on(|head| head.status != StatusCode::UNAUTHORIZED);
        let app = Router::new()
            .route("/", get(async || "welcome"))
            .layer(from_fn(authenticate))
            .layer(guard(layer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let serve = async { axum::serve(listener, app).await.unwrap() };
        Self { address, limiter, _task: JoinSet::from_iter([serve]) }
    }

    async fn connect(&self) -> SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (send, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        send
    }
}

async fn try_key(connection: &mut SendRequest<Empty<Bytes>>, key: &str) -> StatusCode {
    let request = http::Request::get("/").header("host", "limited.example");
    let request = request.header(AUTHORIZATION, key).body(Empty::new()).unwrap();
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

/// The example of `refund_on`, with a smaller burst.
fn by_address(layer: Layer) -> Layer {
    layer.identify(|head| {
        let ConnectInfo(peer) = head.extensions.get::<ConnectInfo<SocketAddr>>()?;
        Principal::new(Kind::ADDRESS, peer.ip())
    })
}

/// Requests that no one has identified yet, within a limit for each address.
fn unidentified(layer: Layer) -> Layer {
    let peer = ClientAddress::of_peer(|head| {
        Some(head.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip())
    });
    layer.client_address(peer).on_unidentified(OnUnidentified::Admit)
}

/// Good requests cost nothing in the end; five wrong keys are one address's.
async fn assert_guards(server: &Server, left: impl AsyncFn() -> u32) {
    let mut good = server.connect().await;
    for _ in 0..50 {
        assert_eq!(try_key(&mut good, "right").await, StatusCode::OK);
    }
    assert_eq!(left().await, 5);
    for wrong in 1..=5 {
        let mut other = server.connect().await;
        assert_eq!(try_key(&mut other, "wrong").await, StatusCode::UNAUTHORIZED);
        assert_eq!(left().await, 5 - wrong);
    }
    for _ in 0..3 {
        assert_eq!(try_key(&mut good, "wrong").await, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(try_key(&mut good, "right").await, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(server.limiter.report().refunds, 50);
}

#[tokio::test]
async fn failures_are_charged_to_the_address_and_successes_are_not() {
    let quota = Quota::per_day(5);
    let policy = Policy::builder().default_quota(quota).build().unwrap();
    let server = Server::start(policy, by_address).await;
    let address = Principal::new(Kind::ADDRESS, "127.0.0.1").unwrap();
    let left = async || peeked(&server.limiter, &address, Endpoint::DEFAULT).await.remaining();
    assert_guards(&server, left).await;
}

#[tokio::test]
async fn the_guard_works_without_accounts_too() {
    let quota = Quota::per_day(5).build().unwrap();
    let policy = Policy::bolna().unidentified_quota(quota).build().unwrap();
    let server = Server::start(policy, unidentified).await;
    let address = Principal::new(Kind::ADDRESS, "127.0.0.1").unwrap();
    let name = LimitName::new("unidentified").unwrap();
    let entry = Entry::of(Limit::new(name, quota).with_scope(Scope::Address));
    let left = async || {
        let peek = Command::Peek(Charge::of_one(&address, &entry));
        let reply = server.limiter.store().command(peek).await.unwrap();
        reply.into_decisions().unwrap().first().remaining()
    };
    assert_guards(&server, left).await;
}
