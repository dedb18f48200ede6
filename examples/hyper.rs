//! In front of a service of hyper's own, without a framework, over HTTP/1 and HTTP/2.
//!
//! ```sh
//! cargo run --example hyper
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! curl -i -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/call
//! # HTTP/1.1 200 OK
//! # ...
//! # ratelimit: "call";r=499;t=60
//! # ...
//!
//! # All connections, of either version, count together.
//! curl -i --http2-prior-knowledge -X POST -H 'Authorization: Bearer ben@acme' \
//!     http://127.0.0.1:3000/call
//! # HTTP/2 200
//! # ...
//! # ratelimit: "call";r=498;t=60
//! # ...
//!
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST http://127.0.0.1:3000/call
//! # 401
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use bolna_rate_limit::{Account, BolnaRateLimitLayer};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Made once and cloned for each connection, so that all connections count together.
    let service = ServiceBuilder::new()
        .map_request(authenticate)
        .layer(BolnaRateLimitLayer::new())
        .service_fn(handle);

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()); // closes a connection whose head takes over 30 s
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("accept: {error}"); // for example too many open files, which passes
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (server, service) = (server.clone(), TowerToHyperService::new(service.clone()));
        tokio::spawn(async move {
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// A DEMO: it believes any token, `Bearer <user>` or `Bearer <user>@<organization>`.
fn authenticate(mut request: Request<Incoming>) -> Request<Incoming> {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        let (user, organization) = token.split_once('@').unwrap_or((token, ""));
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    request
}

async fn handle(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("queued\n")))
}
