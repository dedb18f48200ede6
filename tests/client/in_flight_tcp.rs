//! Requests in flight over real connections, to a server that says in fields what it allows.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use axum::serve::ListenerExt;
use bolna_rate_limit::Policy;
use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, Permit};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::Quota;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};

use crate::lines::{Busy, Lines};
use crate::support::{Log, patient, usage_of_call};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that has two lines for calls. Each call is in flight until its body has ended.
struct Server {
    address: SocketAddr,
    log: Log,
    lines: Lines,
    _task: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let (log, lines) = (Log::new(), Lines::default());
        let app = Router::new().route("/call", {
            let (log, lines) = (log.clone(), lines.clone());
            post(async move || call(&log, &lines))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Data that the kernel holds back makes the runtime look idle, and virtual time would pass.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let serve = async { axum::serve(listener, app).await.unwrap() };
        Self { address, log, lines, _task: JoinSet::from_iter([serve]) }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        Request::post(format!("http://{}/call", self.address)).body(Full::from("{}")).unwrap()
    }
}

fn call(log: &Log, lines: &Lines) -> Response {
    let taken = lines.now();
    let response = Response::builder()
        .header("ratelimit-policy", "\"call-concurrent\";q=2;qu=\"concurrent-requests\"")
        .header("ratelimit", format!("\"call-concurrent\";r={}", 1_usize.saturating_sub(taken)));
    let (status, body) = if taken < 2 {
        (StatusCode::OK, Body::from_stream(frames(lines.enter())))
    } else {
        (StatusCode::TOO_MANY_REQUESTS, Body::empty())
    };
    log.add("/call".to_owned(), status);
    response.status(status).header("retry-after", "1").body(body).unwrap()
}

/// Three frames, of which each lets other tasks run.
fn frames(busy: Busy) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let busy = Arc::new(busy);
    stream::iter(0..3).then(move |number| {
        let busy = Arc::clone(&busy);
        async move {
            tokio::task::yield_now().await;
            let _busy = busy;
            Ok(Bytes::from(format!("{number}")))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_learned_from_the_first_response_and_kept_to_until_the_bodies_end() {
    for is_http2 in [false, true] {
        let server = Server::start().await;
        let pacer = patient().build().unwrap();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).http2_only(is_http2).build(connector);
        let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(http);
        let first = client.clone().oneshot(server.request()).await.unwrap();
        assert_eq!(usage_of_call(&pacer).concurrency().unwrap().most(), 2);
        let mut calls = JoinSet::new();
        for _ in 0..30 {
            let call = client.clone().oneshot(server.request());
            let call = tokio::spawn(timeout(HOUR, call));
            calls.spawn(async move {
                let response = call.await.unwrap().unwrap().unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                response.into_body().collect().await.unwrap().to_bytes()
            });
        }
        let body = first.into_body().collect().await.unwrap().to_bytes();
        assert!(calls.join_all().await.iter().all(|other| *other == body && body == "012"));
        assert_eq!((server.log.len(), server.log.refused(), server.lines.most()), (31, 0, 2));
        let usage = usage_of_call(&pacer).concurrency().unwrap();
        assert_eq!((usage.in_flight(), usage.waiting()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_in_the_extensions_of_a_response_of_reqwest() {
    let server = Server::start().await;
    let pacer = Pacer::with_policy(Policy::bolna().concurrent("call", 10).build().unwrap());
    let client = ServiceBuilder::new()
        .map_response(|response: http::Response<_>| {
            reqwest::Response::from(response.map(reqwest::Body::wrap))
        })
        .layer(BolnaClientLayer::with_pacer(pacer.clone()))
        .map_request(|request: Request<Bytes>| reqwest::Request::try_from(request).unwrap())
        .map_response(http::Response::<reqwest::Body>::from)
        .service(reqwest::Client::new());
    let response = client.oneshot(server.request().map(|_| Bytes::from("{}"))).await.unwrap();
    let permit = Permit::of(response.extensions()).unwrap();
    assert_eq!(response.text().await.unwrap(), "012");
    let in_flight = || usage_of_call(&pacer).concurrency().unwrap().in_flight();
    assert_eq!(in_flight(), 1);
    drop(permit);
    assert_eq!(in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_of_grpc_are_in_flight_until_their_messages_have_been_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let serve = tonic::transport::Server::builder().add_service(health);
    let _task = JoinSet::from_iter([async { serve.serve_with_incoming(incoming).await.unwrap() }]);

    let limit = LimitBuilder::account("grpc", Quota::concurrent(3));
    let policy = Policy::builder()
        .endpoint(
            "health",
            Quota::per_second(1000),
            ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"],
        )
        .also("health", limit)
        .build()
        .unwrap();
    let pacer = Pacer::with_policy(policy);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    let paced = PaceLayer::new(pacer.clone()).layer(http);
    let origin = format!("http://{address}").parse().unwrap();
    let client = HealthClient::with_origin(paced, origin);
    let in_flight =
        || pacer.peek("/grpc.health.v1.Health/Watch").unwrap().concurrency().unwrap().in_flight();

    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(client.clone().watch(HealthCheckRequest::default()).await.unwrap());
    }
    assert_eq!(in_flight(), 3);
    let mut other = client.clone();
    let check = tokio::spawn(async move { other.check(HealthCheckRequest::default()).await });
    crate::support::settle().await;
    assert!(!check.is_finished(), "three streams are in flight");
    let permit = Permit::of(watches[0].extensions()).unwrap();
    drop(watches.pop());
    let check = timeout(HOUR, check).await.unwrap().unwrap().unwrap();
    assert_eq!(in_flight(), 2);
    drop(watches);
    assert_eq!(in_flight(), 1);
    drop((permit, check));
    assert_eq!(in_flight(), 0);
}

/// What hyper, reqwest and tonic need of a body.
#[test]
fn the_body_is_one_for_every_client() {
    fn check<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static>() {}
    check::<bolna_rate_limit::client::ResponseBody<reqwest::Body>>();
    check::<bolna_rate_limit::client::ResponseBody<hyper::body::Incoming>>();
}
