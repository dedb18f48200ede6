//! Refused uploads over real connections, behind hyper and behind axum.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bolna_rate_limit::store::{AnyStore, MemoryStore};
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy};
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::ServiceBuilder;

use super::distant::Distance;
use crate::deferred::lost_store;
use crate::support::organization;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const SIZES: [usize; 4] = [200, 30_000, 200_000, 1 << 20];

/// Why requests are refused. The statuses are 429, 429, 401, 503 and 413.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Limited,
    Blocked,
    Unidentified,
    StoreFailed,
    TooCostly,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Limited, Self::Blocked, Self::Unidentified, Self::StoreFailed, Self::TooCostly];

    const fn status(self) -> u16 {
        match self {
            Self::Limited | Self::Blocked => 429,
            Self::Unidentified => 401,
            Self::StoreFailed => 503,
            Self::TooCostly => 413,
        }
    }

    /// A layer that refuses every request.
    async fn layer(self) -> BolnaRateLimitLayer<AnyStore> {
        let store = match self {
            Self::StoreFailed => lost_store().into(),
            _ => AnyStore::from(MemoryStore::new()),
        };
        // A day, so that no unit comes back while the test runs.
        let quota = bolna_rate_limit::Quota::per_day(1);
        let policy = Policy::builder().default_quota(quota).build().unwrap();
        let limiter = Limiter::with_store(policy, store).unwrap();
        let default = bolna_rate_limit::Endpoint::DEFAULT;
        match self {
            Self::Limited => {
                limiter.check(&organization("o").into(), "/").unwrap().await.unwrap();
            }
            Self::Blocked => {
                limiter.block(&organization("o"), default, Duration::from_secs(9)).await.unwrap();
            }
            _ => {}
        }
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        match self {
            Self::TooCostly => layer.cost(LimitName::from(default), |_| 2),
            _ => layer,
        }
    }
}

/// A server on a port of its own, which ends with the test.
struct Server {
    address: SocketAddr,
    _task: JoinSet<()>,
}

fn identify<B>(kind: Kind) -> impl Fn(Request<B>) -> Request<B> + Clone {
    move |mut request| {
        if !matches!(kind, Kind::Unidentified) {
            request.extensions_mut().insert(Account::user("u").in_organization("o"));
        }
        request
    }
}

async fn hyper_that_refuses(kind: Kind) -> Server {
    let service = ServiceBuilder::new()
        .map_request(identify::<Incoming>(kind))
        .layer(kind.layer().await)
        .service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::from("called"))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            connections.spawn(async move {
                // An error means that the client has closed the connection.
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    };
    Server { address, _task: JoinSet::from_iter([serve]) }
}

async fn axum_that_refuses(kind: Kind) -> Server {
    let app = Router::new().fallback(async || "called").layer(kind.layer().await).layer(
        axum::middleware::map_request({
            let identify = identify::<Body>(kind);
            move |request| std::future::ready(identify(request))
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async { axum::serve(listener, app).await.unwrap() };
    Server { address, _task: JoinSet::from_iter([serve]) }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunked,
}

/// A connection of a client that sends its whole request before it reads, as many do.
struct WritesFirst(BufReader<TcpStream>);

impl WritesFirst {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request, with a pause between its head and its body. Returns the status.
    async fn post(&mut self, size: usize, framing: Framing, pause: Duration) -> io::Result<u16> {
        let length = match framing {
            Framing::Length => format!("content-length: {size}"),
            Framing::Chunked => "transfer-encoding: chunked".to_owned(),
        };
        let head = format!("POST /x HTTP/1.1\r\nhost: limited.example\r\n{length}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await?;
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let body = vec![b'x'; size];
        match framing {
            Framing::Length => self.0.write_all(&body).await?,
            Framing::Chunked => {
                for chunk in body.chunks(16_000) {
                    let length = format!("{:x}\r\n", chunk.len());
                    self.0.write_all(length.as_bytes()).await?;
                    self.0.write_all(chunk).await?;
                    self.0.write_all(b"\r\n").await?;
                }
                self.0.write_all(b"0\r\n\r\n").await?;
            }
        }
        Ok(self.response().await?.status().as_u16())
    }

    async fn response(&mut self) -> io::Result<Response<Vec<u8>>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut response = Response::builder().status(&lines[0][9..12]);
        for line in &lines[1..] {
            let (name, value) = line.split_once(": ").unwrap();
            response = response.header(name, value);
        }
        let mut response = response.body(Vec::new()).unwrap();
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        response.body_mut().resize(length, 0);
        self.0.read_exact(response.body_mut()).await?;
        Ok(response)
    }
}

#[tokio::test]
async fn every_refusal_reaches_a_client_that_sends_first_and_the_connection_goes_on() {
    for kind in Kind::ALL {
        for server in [hyper_that_refuses(kind).await, axum_that_refuses(kind).await] {
            let mut client = WritesFirst::open(server.address).await;
            for size in [0].into_iter().chain(SIZES) {
                for framing in [Framing::Length, Framing::Chunked] {
                    let status = client.post(size, framing, Duration::ZERO).await;
                    assert_eq!(status.unwrap(), kind.status(), "{kind:?}, {size}, {framing:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn refusals_arrive_over_a_round_trip_of_20_ms() {
    let mut clients = JoinSet::new();
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        let server = hyper_that_refuses(kind).await;
        let distance = Distance::to(server.address, ROUND_TRIP).await;
        let address = distance.address;
        servers.push((server, distance));
        for size in SIZES {
            for framing in [Framing::Length, Framing::Chunked] {
                clients.spawn(async move {
                    let mut client = WritesFirst::open(address).await;
                    for _ in 0..3 {
                        let status = client.post(size, framing, Duration::ZERO).await;
                        assert_eq!(status.unwrap(), kind.status(), "{kind:?}, {size}, {framing:?}");
                    }
                });
            }
        }
    }
    assert_eq!(clients.join_all().await.len(), 40);
}

#[tokio::test]
async fn refusals_arrive_if_the_body_comes_after_the_head() {
    let mut clients = JoinSet::new();
    let server = hyper_that_refuses(Kind::Limited).await;
    let address = server.address;
    for framing in [Framing::Length, Framing::Chunked] {
        clients.spawn(async move {
            let mut client = WritesFirst::open(address).await;
            for number in 0..300 {
                let status = client.post(200, framing, Duration::from_millis(3)).await;
                assert_eq!(status.unwrap(), 429, "{framing:?}, request {number}");
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_without_sending_its_body() {
    for server in [hyper_that_refuses(Kind::Limited).await, axum_that_refuses(Kind::Limited).await]
    {
        let mut client = WritesFirst::open(server.address).await;
        let head = "POST /x HTTP/1.1\r\nhost: limited.example\r\ncontent-length: 4\r\n\
                    expect: 100-continue\r\n\r\n";
        client.0.write_all(head.as_bytes()).await.unwrap();
        let response = client.response().await.unwrap();
        assert_eq!(response.status(), 429, "and no 100 before");
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0, "it is closed");
    }
}

#[tokio::test]
async fn an_upload_that_never_ends_is_refused_after_a_megabyte() {
    let server = hyper_that_refuses(Kind::Limited).await;
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut send, connection) = http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let data = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 16_000])));
    let endless = StreamBody::new(futures_util::stream::repeat_with(data));
    let request = Request::post("/x").header(HOST, "limited.example").body(endless).unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[CONNECTION], "close");
    // The server closes the connection while the client is still sending.
    let _ = connection.await.unwrap();
}

#[tokio::test]
async fn a_client_that_breaks_off_or_sends_nonsense_does_the_server_no_harm() {
    let server = hyper_that_refuses(Kind::Limited).await;
    for (length, body) in [
        ("content-length: 4", "fo"),
        ("transfer-encoding: chunked", "4\r\nfo"),
        ("transfer-encoding: chunked", "no length\r\n"),
    ] {
        let mut client = WritesFirst::open(server.address).await;
        let request =
            format!("POST /x HTTP/1.1\r\nhost: limited.example\r\n{length}\r\n\r\n{body}");
        client.0.write_all(request.as_bytes()).await.unwrap();
        client.0.shutdown().await.unwrap();
        // It is refused or not answered at all, and the connection ends.
        let mut answer = Vec::new();
        let _ = client.0.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    let mut client = WritesFirst::open(server.address).await;
    assert_eq!(client.post(200, Framing::Length, Duration::ZERO).await.unwrap(), 429);
}

#[tokio::test]
async fn hundreds_of_uploads_are_refused_on_one_connection_of_http2() {
    let server = hyper_that_refuses(Kind::Limited).await;
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (send, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let mut send = send.clone();
        callers.spawn(async move {
            for number in 0..25 {
                let body = Full::new(Bytes::from(vec![b'x'; 200_000]));
                let request = Request::post("http://limited.example/x").body(body).unwrap();
                send.ready().await.unwrap();
                let response = send.send_request(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{number}");
                assert!(!response.headers().contains_key(CONNECTION));
                let text = response.into_body().collect().await.unwrap().to_bytes();
                assert!(text.starts_with(b"{"));
            }
        });
    }
    assert_eq!(callers.join_all().await.len(), 20);
}
