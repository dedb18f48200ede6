//! One limit for several processes, which is counted on a Redis or Valkey server.
//!
//! ```sh
//! redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no > /dev/null &
//! REDIS_URL=redis://127.0.0.1:6379 LISTEN=127.0.0.1:3000 \
//!     cargo run --example redis --features redis
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! In a second terminal:
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1:6379 LISTEN=127.0.0.1:3001 \
//!     cargo run --example redis --features redis
//! # listening on http://127.0.0.1:3001
//! ```
//!
//! And in a third one:
//!
//! ```sh
//! # 300 calls to each of the two processes, 600 in all: together they admit what one would.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:[3000-3001]/call?[1-300]' | sort | uniq -c
//! # ~500 200
//! # ~100 429
//!
//! # The server need not be up. Without it each process admits its half of the limit, and charges
//! # the server for that when it is back.
//! redis-cli -p 6379 shutdown nosave
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer eve@other' \
//!     'http://127.0.0.1:3000/call?[1-300]' | sort | uniq -c
//! # ~250 200
//! # ~50 429
//! ```

use std::env;
use std::error::Error;

use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    // How many processes share the limit: each admits its share of it while the server is lost.
    let store = RedisStore::builder(url).expected_replicas(2).start_degraded().connect().await?;
    let policy = Policy::bolna().exempt(["/healthz"]).build()?;
    let limiter = Limiter::with_store(policy, store)?;
    // Prints a line when the server is lost and when it is back.
    limiter.on_event(|event| eprintln!("{event}"));

    let app = Router::new()
        .route("/v2/agent/{agent_id}/executions", get(executions))
        .route("/v2/agent/{agent_id}", get(agent).put(agent).patch(agent).delete(agent))
        .route("/v2/agent/all", get(agents))
        .route("/call", post(call))
        .route("/user/me", get("you\n"))
        .route("/healthz", get("ok"))
        .fallback((StatusCode::NOT_FOUND, "not found\n"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(from_fn(authenticate));

    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// A DEMO: it believes any token, `Bearer <user>` or `Bearer <user>@<organization>`.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = token.and_then(|token| token.strip_prefix("Bearer ")) {
        let (user, organization) = token.split_once('@').unwrap_or((token, ""));
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
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
