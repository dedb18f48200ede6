//! Bolna's limits in front of an API written in any language: a reverse proxy made of hyper and
//! tower, without a web framework. It forwards paths unchanged, drops header fields by which a
//! caller could change them, and streams bodies both ways.
//!
//! ```sh
//! python3 -m http.server 8000 --bind 127.0.0.1 &
//! cargo run --example hyper_proxy
//! # ...
//! # listening on http://127.0.0.1:3001
//! ```
//!
//! `UPSTREAM` (default `http://127.0.0.1:8000`) and `LISTEN` (default `127.0.0.1:3001`) set other
//! addresses. Then, in another terminal:
//!
//! ```sh
//! # Python answers, over either version of HTTP.
//! curl -si -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3001/ \
//!     | grep -i '^http\|^server\|^ratelimit:'
//! # HTTP/1.1 200 OK
//! # server: SimpleHTTP/...
//! # ratelimit: "default";r=999;t=60
//! curl -si --http2-prior-knowledge -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3001/ \
//!     | grep -i '^http'
//! # HTTP/2 200
//!
//! # 1000 in a row: Python answers 404 to the first 500 and to one more every 120 ms, and the proxy
//! # answers 429 to the rest.
//! curl -s -o /dev/null -w '%{http_code}\n' -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3001/v2/agent/17?[1-1000]' | sort | uniq -c
//! # ~500 404
//! # ~500 429
//!
//! # Without credentials.
//! curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:3001/
//! # 401
//!
//! # Once Python is stopped.
//! kill "$(pgrep -f 'http.server 8000')"
//! curl -s -w '%{http_code}\n' -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3001/
//! # bad gateway
//! # 502
//! ```

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::time::Duration;

use bolna_rate_limit::{Account, BolnaRateLimitLayer};
use bytes::Bytes;
use http::header::{
    self, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let upstream = env::var("UPSTREAM").unwrap_or_else(|_| "http://127.0.0.1:8000".to_owned());
    let upstream =
        upstream.strip_prefix("http://").ok_or("UPSTREAM must be like http://host:port")?;
    let upstream = upstream.parse::<Authority>()?;
    let listener =
        TcpListener::bind(env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3001".to_owned()))
            .await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, upstream).await
}

/// Limits and forwards what comes over all connections. It does not return.
pub(crate) async fn serve(listener: TcpListener, upstream: Authority) -> ! {
    let client = Client::builder(TokioExecutor::new()).build_http();
    // Made once and cloned for each connection, so that all connections count together.
    let service = ServiceBuilder::new()
        .map_request(authenticate)
        .layer(BolnaRateLimitLayer::new())
        .service_fn(move |request| forward(client.clone(), upstream.clone(), request));

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

/// A DEMO: it believes any token, `Bearer <user>` or `Bearer <user>@<organization>`. In your
/// application, look the API key up and insert the account that the key belongs to.
fn authenticate(mut request: Request<Incoming>) -> Request<Incoming> {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        let (user, organization) = token.split_once('@').unwrap_or((token, ""));
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    request
}

/// Forwards a request. Its path and query stay unchanged, so that the upstream gets the path that
/// the limiter has decided about.
async fn forward(
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Incoming, Full<Bytes>>>, Infallible> {
    let mut target = request.uri().clone().into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(upstream);
    target.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(target).expect("it has all three parts");
    *request.version_mut() = Version::HTTP_11; // whatever version the caller speaks
    request.headers_mut().remove(HOST); // the client sets it from the target
    strip_hop_by_hop(request.headers_mut());
    strip_path_fields(request.headers_mut());

    Ok(match client.request(request).await {
        Ok(mut response) => {
            strip_hop_by_hop(response.headers_mut());
            *response.version_mut() = Version::default(); // not the upstream's
            response.map(Either::Left)
        }
        Err(error) => {
            eprintln!("upstream: {error:?}");
            let mut response = Response::new(Either::Right(Full::from("bad gateway\n")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

/// Removes the header fields that concern one connection only (RFC 9110, section 7.6.1).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112, section 6.3: it has no meaning then, and must not be forwarded.
        headers.remove(CONTENT_LENGTH);
    }
    let connection: Vec<_> =
        headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).collect();
    let named = connection.join(",");
    for name in named.split(',').filter_map(|name| name.trim().parse::<HeaderName>().ok()) {
        headers.remove(name);
    }
    for name in [CONNECTION, header::TE, header::TRAILER, TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Removes the header fields by which servers let a proxy change the path. The limiter has decided
/// about the path of the request, so a caller must not send another one beside it.
///
/// If a proxy of yours in front of this one sets such a field, and replaces what callers send, keep
/// that field.
fn strip_path_fields(headers: &mut HeaderMap) {
    let fields: Vec<_> = headers.iter().filter(|(name, value)| changes_path(name, value)).collect();
    let names: Vec<_> = fields.into_iter().map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a server may take its path, or a part of it, from a header field.
fn changes_path(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    // CGI and WSGI can't tell `X_Original_URL` from `X-Original-URL`, and gunicorn cuts off what
    // `SCRIPT_NAME` says. nginx drops such names, too.
    if name.contains('_') {
        return true;
    }
    match name {
        // The path, and the part of it that the application cuts off, in variables of CGI.
        "path-info" | "request-uri" | "script-name" | "x-script-name"
        // The part of the path that Apache NiFi, and some applications in Java, cut off.
        | "x-forwarded-context" | "x-proxycontextpath" => true,
        // These are no paths, but some applications put their URL together as a text, and route by
        // the path of `http://` + `a/call?` + `/x`.
        "forwarded" | "x-forwarded-host" | "x-forwarded-port" | "x-forwarded-proto"
        | "x-forwarded-scheme" | "x-forwarded-server" | "x-original-host" => {
            value.as_bytes().iter().any(|byte| b"/\\?#".contains(byte))
        }
        _ => {
            let words = name.strip_prefix("x-").and_then(|name| name.rsplit_once('-'));
            words.is_some_and(|(kind, what)| {
                KINDS_OF_PATH.contains(&kind) && ["path", "prefix", "uri", "url"].contains(&what)
            })
        }
    }
}

/// Fields like `X-Original-URL` hold the path from before a rewrite, or a part of it that a proxy
/// has cut off. These are the words between `X-` and `-URL`, `-URI`, `-Path` or `-Prefix`. Each
/// comment says which software sets the field, and which routes by it.
const KINDS_OF_PATH: [&str; 13] = [
    // Set by IIS and Envoy. Zend, Laminas, Drupal and old releases of Symfony route by it.
    "original",
    "envoy-original",
    // Set by Azure.
    "ms-original",
    "waws-unencoded",
    // Set by ISAPI_Rewrite. The same frameworks route by it, and so does Yii.
    "rewrite",
    // Werkzeug, Spring and ASP.NET Core take `X-Forwarded-Prefix` for what a proxy has cut off.
    // Traefik, Caddy and Kong set the others.
    "forwarded",
    // Set by Traefik.
    "replaced",
    // Set and read by Next.js.
    "invoke",
    "matched",
    // Set by Home Assistant.
    "ingress",
    // Not set by a known server. Some applications route by it because their proxy was configured
    // to set it.
    "override",
    "real",
    "request",
];
