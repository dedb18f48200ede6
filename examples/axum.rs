//! Bolna's limits in front of an axum application. An authentication middleware says who is
//! calling, the layer counts and refuses, and nothing else changes.
//!
//! ```sh
//! cargo run --example axum
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! # 600 calls at once: 500 are admitted, and one more for every 120 ms that it takes to send them.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]' | sort | uniq -c
//! # ~500 200
//! # ~100 429
//!
//! # A refusal says when to come back. Another user of the same organization gets it too.
//! curl -s -o /dev/null -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]'; \
//! curl -i -X POST -H 'Authorization: Bearer ben@acme' http://127.0.0.1:3000/call
//! # HTTP/1.1 429 Too Many Requests
//! # ...
//! # retry-after: 1
//! # ...
//!
//! # Other organizations and other endpoints have buckets of their own.
//! curl -i -X POST -H 'Authorization: Bearer eve@other' http://127.0.0.1:3000/call
//! # HTTP/1.1 200 OK
//! # ...
//! # ratelimit: "call";r=499;t=60
//! # ...
//! curl -i -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/v2/agent/17
//! # HTTP/1.1 200 OK
//! # ...
//! # ratelimit: "agent";r=499;t=60
//! # ...
//!
//! # A path that is not routed is counted as well.
//! curl -i -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/nowhere
//! # HTTP/1.1 404 Not Found
//! # ...
//! # ratelimit: "default";r=999;t=60
//! # ...
//!
//! # Without credentials; and a health check, whose path is exempt.
//! curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:3000/user/me
//! # 401
//! curl -s -w '\n%{http_code}\n' http://127.0.0.1:3000/healthz
//! # ok
//! # 200
//! ```

use std::error::Error;

use axum::extract::{Path, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = Policy::bolna().exempt(["/healthz"]).build()?;
    let app = Router::new()
        .route("/v2/agent/{agent_id}/executions", get(executions))
        .route("/v2/agent/{agent_id}", get(agent).put(agent).patch(agent).delete(agent))
        .route("/v2/agent/all", get(agents))
        .route("/call", post(call))
        .route("/user/me", get("you\n"))
        .route("/healthz", get("ok"))
        // The layers come after everything that they cover. That includes the fallback, so that
        // requests to unknown paths are limited too.
        .fallback((StatusCode::NOT_FOUND, "not found\n"))
        .layer(BolnaRateLimitLayer::with_policy(policy))
        // The last layer is the outermost: it runs first.
        .layer(from_fn(authenticate));

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// A DEMO: it believes any token. In your application, look the API key up and insert the account
/// that the key belongs to. The examples `api_keys` and `jwt` do.
async fn authenticate(mut request: Request, next: Next) -> Response {
    if let Some(account) = claimed_account(request.headers()) {
        request.extensions_mut().insert(account);
    }
    // Without an account the limiter answers 401, except on exempt paths.
    next.run(request).await
}

/// Reads `Authorization: Bearer <user>` or `Bearer <user>@<organization>`. The limiter treats an
/// empty id as none.
fn claimed_account(headers: &HeaderMap) -> Option<Account> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let (user, organization) = token.split_once('@').unwrap_or((token, ""));
    Some(Account::user(user).in_organization(organization))
}

async fn executions(Path(agent_id): Path<String>) -> Json<Value> {
    Json(json!({ "agent_id": agent_id, "executions": [] }))
}

async fn agent(Path(agent_id): Path<String>) -> Json<Value> {
    Json(json!({ "agent_id": agent_id }))
}

async fn agents() -> Json<Value> {
    Json(json!([]))
}

async fn call() -> Json<Value> {
    Json(json!({ "status": "queued" }))
}
