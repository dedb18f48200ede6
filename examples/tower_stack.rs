//! The limiter among other layers: which are outside of it, which are inside, and why.
//!
//! ```sh
//! cargo run --example tower_stack
//! # listening on http://127.0.0.1:3002
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! # A preflight has no credentials. It is answered with the CORS fields, and nothing is charged.
//! curl -i -X OPTIONS -H 'Origin: https://app.example' -H 'Access-Control-Request-Method: POST' \
//!     -H 'Access-Control-Request-Headers: authorization' http://127.0.0.1:3002/call
//! # HTTP/1.1 200 OK
//! # ...
//! # access-control-allow-origin: https://app.example
//! # ...
//!
//! # Drain the bucket. The refusal has the CORS fields too, so that the page can read how long to
//! # wait.
//! curl -s -o /dev/null -X POST -H 'Authorization: Bearer ana' \
//!     'http://127.0.0.1:3002/call?[1-600]'; \
//! curl -i -X POST -H 'Authorization: Bearer ana' -H 'Origin: https://app.example' \
//!     http://127.0.0.1:3002/call
//! # HTTP/1.1 429 Too Many Requests
//! # ...
//! # access-control-expose-headers: retry-after,ratelimit,ratelimit-policy
//! # ...
//!
//! # After 2 s.
//! curl -s -o /dev/null -w '%{http_code}\n' -H 'Authorization: Bearer ana' \
//!     http://127.0.0.1:3002/slow
//! # 504
//!
//! # 30 slow requests at once: 8 run, 1 is next and 16 wait, and all of these time out (504); 5 are
//! # shed at once (503).
//! curl -s --no-progress-meter -Z --parallel-max 30 --parallel-immediate -o /dev/null \
//!     -w '%{http_code}\n' -H 'Authorization: Bearer ana' 'http://127.0.0.1:3002/slow?[1-30]' \
//!     | sort | uniq -c
//! # 5 503
//! # 25 504
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{BoxError, Router, ServiceExt};
use bolna_rate_limit::{Account, BolnaRateLimitLayer};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).init();

    let cors = CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
        // Without this, a page can't read these fields.
        .expose_headers([
            RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
        ]);

    // From the outside in. The layers are around the whole router. `Router::layer` would wrap each
    // route on its own, and then each route would have a queue and a concurrency limit of its own.
    let app = ServiceBuilder::new()
        // The layers have changed the type of the body; `axum::serve` needs axum's own.
        .map_response(IntoResponse::into_response)
        // Sees every response, those of other layers included.
        .layer(TraceLayer::new_for_http())
        // Answers preflights, which carry no credentials, before a layer asks for credentials. Adds
        // the CORS fields to refusals as well.
        .layer(cors)
        // Runs before the limiter, which needs the account.
        .layer(from_fn(authenticate))
        // A refused request takes no place and no permit of the layers below.
        .layer(BolnaRateLimitLayer::new())
        // Turns the errors of the layers below into responses. Its service is always ready, so the
        // limiter decides at once even when the layers below are full.
        .layer(HandleErrorLayer::new(overloaded))
        // Refuses a request when the queue is full, instead of waiting for a place.
        .load_shed()
        // Outside the queue, so that the time in the queue counts. Inside the limiter, so a request
        // that times out has been charged.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(2)))
        // The queue: it holds requests that wait for a permit, in order.
        .buffer(16)
        // Directly around the router that it protects.
        .concurrency_limit(8)
        .service(Router::new().route("/call", post("queued\n")).route("/slow", get(slow)));

    let listener =
        TcpListener::bind(env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3002".to_owned()))
            .await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).await?;
    Ok(())
}

/// A DEMO: it believes any token. In your application, look the API key up and insert the account
/// that the key belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(user) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        let account = Account::user(user);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}

async fn overloaded(_: BoxError) -> (StatusCode, [(HeaderName, HeaderValue); 1], &'static str) {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(RETRY_AFTER, HeaderValue::from_static("1"))],
        "overloaded\n",
    )
}

async fn slow() -> &'static str {
    sleep(Duration::from_secs(3)).await;
    "done\n"
}
