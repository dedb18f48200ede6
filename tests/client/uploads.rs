//! Uploads to a server that refuses early and closes the connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pacer, RetryPolicy, RetryPolicyBuilder};
use bolna_rate_limit::{Policy, Quota};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::server::{Server as Scripted, response};
use crate::support::usage_of_call;

const MEGABYTE: usize = 1 << 20;

const IDEMPOTENT: [Method; 2] = [Method::PUT, Method::DELETE];
const OTHERS: [Method; 2] = [Method::POST, Method::PATCH];

/// How a server treats a connection.
#[derive(Clone, Copy, Debug)]
enum Treats {
    /// Reads the request to its end and answers it.
    Answers,
    /// Refuses the request after its head, and closes the connection.
    RefusesEarly,
    /// Closes the connection after the head.
    ClosesEarly,
    /// Reads all of the request but its last byte, and closes the connection, which is reset.
    ClosesLate,
    /// Reads the request to its end, and closes the connection.
    ClosesAtTheEnd,
}

/// A server of HTTP/1 that treats its first connection by `treats(0)`, the next one by `treats(1)`,
/// and so on.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(treats: impl Fn(usize) -> Treats + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let number = Arc::clone(&connections);
        let serve = async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let treats = treats(number.fetch_add(1, Ordering::Relaxed));
                // What fails is for the client to find out.
                tasks.spawn(async move { serve(stream, treats).await.unwrap_or_default() });
            }
        };
        Self { address, connections, _task: JoinSet::from_iter([serve]) }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn upload(&self, method: &Method, bytes: usize) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}/call", self.address))
            .body(Full::from(vec![b'x'; bytes]))
            .unwrap()
    }
}

async fn serve(mut stream: TcpStream, treats: Treats) -> io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(at) = request.windows(4).position(|end| end == b"\r\n\r\n") {
            break String::from_utf8_lossy(&request[..at]).to_ascii_lowercase();
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let total = head.len() + 4 + length.map_or(0, |length| length.parse().unwrap());
    let missing = |read: usize| u64::try_from(total.saturating_sub(read)).unwrap();
    let rest = missing(request.len());
    let mut rest_but = async |bytes| {
        let read = &mut (&mut stream).take(rest.saturating_sub(bytes));
        tokio::io::copy(read, &mut tokio::io::sink()).await
    };
    match treats {
        Treats::Answers => {
            rest_but(0).await?;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
        }
        Treats::RefusesEarly => {
            let refusal = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno";
            stream.write_all(refusal).await
        }
        Treats::ClosesEarly => Ok(()),
        Treats::ClosesLate => rest_but(1).await.map(drop),
        Treats::ClosesAtTheEnd => rest_but(0).await.map(drop),
    }
}

/// A connection to which a part of a request can be written before it breaks.
struct Breaking {
    stream: TcpStream,
    left: Option<usize>,
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = match self.left {
            None => bytes.len(),
            Some(0) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(left) => left.min(bytes.len()),
        };
        let written = Pin::new(&mut self.stream).poll_write(cx, &bytes[..most]);
        if let (Some(left), Poll::Ready(Ok(written))) = (&mut self.left, &written) {
            *left -= written;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connection for Breaking {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The response or the error of an upload over HTTP/1. The first `breaking` connections break while
/// it is written.
async fn upload(
    server: &Server,
    request: Request<Full<Bytes>>,
    breaking: usize,
    retry: RetryPolicyBuilder,
    pacer: &Pacer,
) -> Result<StatusCode, BoxError> {
    let number = Arc::new(AtomicUsize::new(0));
    let address = server.address;
    let connector = service_fn(move |_: Uri| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let left = (number < breaking).then_some(100_000);
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(Breaking { stream, left }))
        })
    });
    let client = BolnaClientLayer::with_pacer(pacer.clone())
        .retry(retry.build().unwrap())
        .layer(Client::builder(TokioExecutor::new()).build(connector));
    client.oneshot(request).await.map(|response| response.status())
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_broke_is_sent_again_if_the_method_is_idempotent() {
    for method in IDEMPOTENT.iter().chain(&OTHERS) {
        let server = Server::start(|_| Treats::Answers).await;
        let request = server.upload(method, MEGABYTE);
        let result = upload(&server, request, 3, RetryPolicy::builder(), &Pacer::new()).await;
        if IDEMPOTENT.contains(method) {
            assert_eq!(result.unwrap(), StatusCode::OK, "{method}");
            assert_eq!(server.connections(), 4, "{method}");
        } else {
            assert!(result.is_err(), "{method}: {result:?}");
            assert_eq!(server.connections(), 1, "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_upload_that_broke_is_sent_again_by_choice() {
    for method in OTHERS {
        let server = Server::start(|_| Treats::Answers).await;
        let retry = RetryPolicy::builder().retry_broken_uploads();
        let request = server.upload(&method, MEGABYTE);
        let status = upload(&server, request, 3, retry, &Pacer::new()).await.unwrap();
        assert_eq!((status, server.connections()), (StatusCode::OK, 4), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_to_its_end_is_sent_again_only_if_the_method_is_idempotent() {
    for treats in [Treats::ClosesLate, Treats::ClosesAtTheEnd] {
        for method in IDEMPOTENT.iter().chain(&OTHERS) {
            let server =
                Server::start(move |number| if number < 3 { treats } else { Treats::Answers })
                    .await;
            let retry = RetryPolicy::builder().retry_broken_uploads();
            let request = server.upload(method, 1000);
            let result = upload(&server, request, 0, retry, &Pacer::new()).await;
            if IDEMPOTENT.contains(method) {
                assert_eq!(result.unwrap(), StatusCode::OK, "{method}, {treats:?}");
                assert_eq!(server.connections(), 4, "{method}, {treats:?}");
            } else {
                assert!(result.is_err(), "{method}, {treats:?}: {result:?}");
                assert_eq!(server.connections(), 1, "{method}, {treats:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_of_twenty_callers_survive_a_server_that_closes_early() {
    for treats in [Treats::RefusesEarly, Treats::ClosesEarly] {
        let server = Arc::new(
            Server::start(move |number| if number < 20 { treats } else { Treats::Answers }).await,
        );
        let pacer = Pacer::new();
        let mut uploads = JoinSet::new();
        for _ in 0..20 {
            let (server, pacer) = (Arc::clone(&server), pacer.clone());
            uploads.spawn(async move {
                let request = server.upload(&Method::PUT, 10 * MEGABYTE);
                upload(&server, request, 0, RetryPolicy::builder().attempts(100), &pacer)
                    .await
                    .unwrap()
            });
        }
        assert_eq!(uploads.join_all().await, [StatusCode::OK; 20], "{treats:?}");
        assert_eq!(server.connections(), 40, "{treats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_gets_a_request_five_times() {
    let server = Server::start(|_| Treats::ClosesAtTheEnd).await;
    let request = server.upload(&Method::PUT, 1000);
    let error = upload(&server, request, 0, RetryPolicy::builder(), &Pacer::new()).await;
    let error = error.unwrap_err();
    assert!(error.is::<hyper_util::client::legacy::Error>(), "as it came: {error:?}");
    assert_eq!(server.connections(), 5);
}

/// A failed write shows that the server is there, and refuses.
#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_again_and_again_is_sent_again_while_its_time_lasts() {
    let server = Server::start(|_| Treats::Answers).await;
    let request = server.upload(&Method::PUT, MEGABYTE);
    let status = upload(&server, request, 20, RetryPolicy::builder(), &Pacer::new()).await.unwrap();
    assert_eq!((status, server.connections()), (StatusCode::OK, 21));
    let request = server.upload(&Method::PUT, MEGABYTE);
    let retry = RetryPolicy::builder().total_time(Duration::from_secs(2));
    assert!(upload(&server, request, 20, retry, &Pacer::new()).await.is_err());
}

/// Not more often than the policy allows, and within the budget, since the server may have counted
/// the request.
#[tokio::test(start_paused = true)]
async fn an_upload_that_broke_keeps_its_units_and_counts_as_a_retry() {
    let server = Server::start(|_| Treats::Answers).await;
    let quota = Quota::per(100, Duration::from_secs(1_000_000));
    let policy = Policy::bolna().quota("call", quota).build().unwrap();
    let pacer = Pacer::builder().policy(policy).jitter(Duration::ZERO).build().unwrap();
    let before = usage_of_call(&pacer).remaining();
    let request = server.upload(&Method::PUT, MEGABYTE);
    upload(&server, request, 3, RetryPolicy::builder(), &pacer).await.unwrap();
    let usage = usage_of_call(&pacer);
    assert_eq!(before - usage.remaining(), 4);
    assert_eq!((usage.sent(), usage.retried(), usage.unanswered()), (4, 3, 0));

    let budget = tower::retry::budget::TpsBudget::new(Duration::from_secs(10), 0, 0.0);
    let request = server.upload(&Method::PUT, MEGABYTE);
    let retry = RetryPolicy::builder().budget(budget);
    assert!(upload(&server, request, 3, retry, &pacer).await.is_err());
    assert_eq!(usage_of_call(&pacer).sent(), 5);
}

/// Without hyper, and without the rest of the client.
#[tokio::test(start_paused = true)]
async fn an_error_of_a_broken_connection_is_retried_by_the_policy_alone() {
    for (kind, sends) in [
        (io::ErrorKind::BrokenPipe, 2),
        (io::ErrorKind::ConnectionReset, 2),
        (io::ErrorKind::ConnectionAborted, 2),
        (io::ErrorKind::UnexpectedEof, 2),
        (io::ErrorKind::ConnectionRefused, 1),
        (io::ErrorKind::TimedOut, 1),
    ] {
        let server = Scripted::start();
        let client = server.client(RetryPolicy::new(), move |number| match number {
            1 => Err(kind.into()),
            _ => Ok(response(StatusCode::OK, &[], number)),
        });
        let request = Request::put("/call").body(String::new()).unwrap();
        assert_eq!(client.oneshot(request).await.is_ok(), sends == 2, "{kind:?}");
        assert_eq!(server.requests(), sends, "{kind:?}");
    }
}
