//! Requests over real connections: axum's server and a bare hyper server, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::middleware::map_request;
use axum::routing::{get, post};
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Policy};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use sfv::{List, Parser};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceBuilder;

use crate::support::stopped_limiter;

/// A server on a port of its own. It ends with the test.
struct Server {
    address: SocketAddr,
    _task: JoinSet<()>,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    Http1,
    Http2,
}

/// One connection of a client.
enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

type Layer = BolnaRateLimitLayer<MemoryStore<ManualClock>>;

fn layer() -> Layer {
    let policy = Policy::bolna().exempt(["/healthz"]).build().unwrap();
    BolnaRateLimitLayer::with_limiter(stopped_limiter(policy).0)
}

/// Identifies the caller by `Authorization: Bearer user@organization`, without verifying it.
fn authenticate<B>(mut request: Request<B>) -> Request<B> {
    let bearer = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if let Some((user, organization)) = bearer.and_then(|bearer| bearer.split_once('@')) {
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    request
}

async fn axum_server() -> Server {
    axum_server_behind(layer()).await
}

async fn axum_server_behind(layer: Layer) -> Server {
    let app = Router::new()
        .route("/call", post(async || "called"))
        .route("/v2/agent/{agent_id}/executions", get(async || "[]"))
        .route("/healthz", get(async || "healthy"))
        .layer(layer)
        .layer(map_request(async |request| authenticate::<axum::body::Body>(request)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async { axum::serve(listener, app).await.unwrap() };
    Server { address, _task: JoinSet::from_iter([serve]) }
}

async fn hyper_server() -> Server {
    let service = ServiceBuilder::new()
        .map_request(authenticate::<Incoming>)
        .layer(layer())
        .service_fn(async |request: Request<Incoming>| {
            let body = if request.method() == Method::HEAD { "" } else { "called" };
            Ok::<_, Infallible>(Response::new(Full::from(body)))
        });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                // An error means that the client has closed the connection.
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    };
    Server { address, _task: JoinSet::from_iter([serve]) }
}

impl Connection {
    async fn open(server: &Server, version: Version) -> Self {
        let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
        match version {
            Version::Http1 => {
                let (send, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                Self::Http1(send)
            }
            Version::Http2 => {
                let (send, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(connection);
                Self::Http2(send)
            }
        }
    }

    async fn send(&mut self, method: Method, path: &str, bearer: Option<&str>) -> Response<Bytes> {
        let mut request =
            Request::builder().method(method).uri(format!("http://limited.example{path}"));
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let mut request = request.body(Empty::new()).unwrap();
        let response = match self {
            Self::Http1(send) => {
                *request.uri_mut() = path.parse().unwrap();
                request.headers_mut().insert("host", "limited.example".parse().unwrap());
                send.ready().await.unwrap();
                send.send_request(request).await.unwrap()
            }
            Self::Http2(send) => {
                send.ready().await.unwrap();
                send.send_request(request).await.unwrap()
            }
        };
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    async fn call(&mut self, bearer: &str) -> Response<Bytes> {
        self.send(Method::POST, "/call", Some(bearer)).await
    }
}

fn rate_limit(response: &Response<Bytes>, name: &str) -> String {
    let list: List = Parser::new(response.headers()[name].as_bytes()).parse().unwrap();
    assert_eq!(list.len(), 1);
    response.headers()[name].to_str().unwrap().to_owned()
}

/// Two users of one organization on two connections, then another organization, then the first one
/// at another endpoint.
async fn an_organization_is_limited_across_users_and_connections(server: Server, version: Version) {
    let mut ana = Connection::open(&server, version).await;
    let mut ben = Connection::open(&server, version).await;
    for sent in 0..250 {
        for (connection, bearer) in [(&mut ana, "ana@acme"), (&mut ben, "ben@acme")] {
            let response = connection.call(bearer).await;
            assert_eq!(response.status(), StatusCode::OK, "{version:?}, round {sent}");
            assert_eq!(response.body(), "called");
        }
    }
    for (connection, bearer) in [(&mut ana, "ana@acme"), (&mut ben, "ben@acme")] {
        let refused = connection.call(bearer).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(rate_limit(&refused, "ratelimit"), "\"call\";r=0;t=1");
        assert_eq!(rate_limit(&refused, "ratelimit-policy"), "\"call\";q=500;w=60");
        assert_eq!(refused.headers()["retry-after"], "1");
        let body: Value = serde_json::from_slice(refused.body()).unwrap();
        assert_eq!(body["error"], 429);
        assert_eq!(refused.headers()["content-length"], refused.body().len().to_string());
    }
    let other = ben.call("ben@globex").await;
    assert_eq!(
        (other.status(), rate_limit(&other, "ratelimit")),
        (StatusCode::OK, "\"call\";r=499;t=60".to_owned())
    );
    let elsewhere = ana.send(Method::GET, "/v2/agent/1/executions", Some("ana@acme")).await;
    assert_eq!(rate_limit(&elsewhere, "ratelimit"), "\"executions\";r=499;t=60");

    let respelled = ana.send(Method::POST, "/x/..;/%63all", Some("ana@acme")).await;
    assert_eq!(respelled.status(), StatusCode::TOO_MANY_REQUESTS);
    let head = ana.send(Method::HEAD, "/call", Some("ana@acme")).await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::TOO_MANY_REQUESTS, 0));
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 0);
    let stranger = ana.send(Method::POST, "/call", None).await;
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let exempt = ana.send(Method::GET, "/healthz", None).await;
    assert_eq!((exempt.status(), exempt.headers().get("ratelimit")), (StatusCode::OK, None));
}

#[tokio::test]
async fn behind_axum_over_http1() {
    an_organization_is_limited_across_users_and_connections(axum_server().await, Version::Http1)
        .await;
}

#[tokio::test]
async fn behind_axum_over_http2() {
    an_organization_is_limited_across_users_and_connections(axum_server().await, Version::Http2)
        .await;
}

#[tokio::test]
async fn behind_hyper_over_http1() {
    an_organization_is_limited_across_users_and_connections(hyper_server().await, Version::Http1)
        .await;
}

#[tokio::test]
async fn behind_hyper_over_http2() {
    an_organization_is_limited_across_users_and_connections(hyper_server().await, Version::Http2)
        .await;
}

#[tokio::test]
async fn connections_that_send_at_once_are_together_admitted_as_often_as_the_burst_allows() {
    let server = axum_server().await;
    let mut connections = JoinSet::new();
    for number in 0..16 {
        let mut connection = Connection::open(
            &server,
            if number % 2 == 0 { Version::Http1 } else { Version::Http2 },
        )
        .await;
        connections.spawn(async move {
            let mut admitted = 0;
            for _ in 0..50 {
                admitted += u32::from(
                    connection.call(&format!("u{number}@acme")).await.status() == StatusCode::OK,
                );
            }
            admitted
        });
    }
    assert_eq!(connections.join_all().await.into_iter().sum::<u32>(), 500);
}

#[tokio::test]
async fn what_a_router_does_not_know_is_counted_all_the_same() {
    let server = axum_server().await;
    let mut connection = Connection::open(&server, Version::Http1).await;
    let missing = connection.send(Method::GET, "/missing", Some("ana@acme")).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(rate_limit(&missing, "ratelimit"), "\"default\";r=999;t=60");
}

#[tokio::test]
async fn the_longest_targets_that_hyper_takes_are_answered() {
    let server = hyper_server().await;
    let mut connection = Connection::open(&server, Version::Http1).await;
    let odd = format!("/{}", "%2e%2e/;".repeat(7_500));
    let response = connection.send(Method::GET, &odd, Some("ana@acme")).await;
    // It is named by the endpoint of the path as it is written.
    assert_eq!(rate_limit(&response, "ratelimit"), "\"default\";r=999;t=60");
    let long = format!("/v2/agent/{}", "x".repeat(60_000));
    let response = connection.send(Method::GET, &long, Some("ana@acme")).await;
    assert_eq!(rate_limit(&response, "ratelimit"), "\"agent\";r=499;t=60");
}

#[tokio::test]
async fn one_caller_gets_the_limit_however_it_spells_the_path() {
    let server = hyper_server().await;
    let mut connection = Connection::open(&server, Version::Http1).await;
    let mut calls = 0;
    for path in [
        "/call",
        "/v2/agent/x/executions%3f/../../../../../call",
        "/v2/agent/x%3f/../../../../call",
        "/%63all",
    ] {
        for _ in 0..600 {
            let response = connection.send(Method::POST, path, Some("ana@acme")).await;
            calls += usize::from(response.status() == StatusCode::OK);
        }
    }
    assert_eq!(calls, 500);
}

#[tokio::test]
async fn in_shadow_mode_nobody_can_tell_that_there_is_a_limiter_until_it_is_enforced() {
    let layer = layer();
    let limiter = layer.limiter().clone();
    limiter.set_enforcement(Enforcement::SHADOW);
    let server = axum_server_behind(layer).await;
    for version in [Version::Http1, Version::Http2] {
        let mut connection = Connection::open(&server, version).await;
        for _ in 0..600 {
            let response = connection.call("ana@acme").await;
            assert_eq!(
                (response.status(), &**response.body()),
                (StatusCode::OK, &b"called"[..]),
                "{version:?}"
            );
            assert!(
                !response.headers().keys().any(|name| name.as_str().contains("ratelimit")),
                "{version:?}"
            );
        }
        let unidentified = connection.send(Method::POST, "/call", None).await;
        assert_eq!(unidentified.status(), StatusCode::UNAUTHORIZED, "{version:?}");
    }
    limiter.set_enforcement(Enforcement::FULL);
    let mut connection = Connection::open(&server, Version::Http1).await;
    assert_eq!(connection.call("ana@acme").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        connection.send(Method::POST, "/call", None).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn several_limits_are_reported_and_enforced_over_many_connections() {
    let policy = Policy::bolna().user_share("call", 10).build().unwrap();
    let server =
        axum_server_behind(BolnaRateLimitLayer::with_limiter(stopped_limiter(policy).0)).await;
    let mut connections = JoinSet::new();
    for number in 0..16 {
        let version = if number % 2 == 0 { Version::Http1 } else { Version::Http2 };
        let mut connection = Connection::open(&server, version).await;
        connections.spawn(async move {
            // Two connections of each of eight users.
            let bearer = format!("u{}@acme", number / 2);
            let mut admitted = 0;
            for _ in 0..40 {
                admitted += u32::from(connection.call(&bearer).await.status() == StatusCode::OK);
            }
            admitted
        });
    }
    // Each user gets 50 of the 500, and the organization has the rest left.
    assert_eq!(connections.join_all().await.into_iter().sum::<u32>(), 400);
    for version in [Version::Http1, Version::Http2] {
        let mut connection = Connection::open(&server, version).await;
        let refused = connection.call("u0@acme").await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        // The field lines are members of one list (RFC 9110, section 5.3).
        let mut members = Vec::new();
        for line in refused.headers().get_all("ratelimit") {
            let list: List = Parser::new(line.as_bytes()).parse().unwrap();
            members.extend(list);
        }
        assert_eq!(members.len(), 2);
        let lines: Vec<_> = refused.headers().get_all("ratelimit").iter().collect();
        assert_eq!(lines, ["\"call\";r=100;t=12", "\"call-user\";r=0;t=2"]);
        assert_eq!(refused.headers()["retry-after"], "2");
        let body: Value = serde_json::from_slice(refused.body()).unwrap();
        assert_eq!(body["violated-policies"], serde_json::json!(["call-user"]));
    }
}
