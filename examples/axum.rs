//! Bolna's limits in front of an axum application. An authentication middleware says who is
//! calling, `Policy::bolna()` says what the limits are, and nothing else changes.
//!
//! ```text
//! cargo run --example axum
//! ```
//!
//! Then, in another terminal:
//!
//! ```text
//! # 200, with the units that are left: RateLimit: "call";r=499;t=60
//! curl -i -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/call
//!
//! # 600 at once: about 501 are answered 200, the rest 429 (a unit comes back every 120 ms)
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]' | sort | uniq -c
//!
//! # 429 also for another user of the same organization; 200 for another organization, and for
//! # another endpoint
//! curl -s -o /dev/null -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]'; \
//! curl -i -X POST -H 'Authorization: Bearer ben@acme' http://127.0.0.1:3000/call; \
//! curl -i -X POST -H 'Authorization: Bearer eve@other' http://127.0.0.1:3000/call; \
//! curl -i -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/v2/agent/17
//!
//! # 404, which is counted too
//! curl -i -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/nowhere
//!
//! # 401 without credentials; 200 for a health check, whose path is exempt
//! curl -i http://127.0.0.1:3000/user/me
//! curl -i http://127.0.0.1:3000/healthz
//!
//! # Keys can't be guessed at full speed: after 30 requests without an account from one address
//! # within a minute, 429 instead of 401
//! curl -s -o /dev/null -w '%{http_code}\n' 'http://127.0.0.1:3000/user/me?[1-40]' | sort | uniq -c
//! ```
//!
//! Two processes with one limit, which is counted on a Redis or Valkey server:
//!
//! ```text
//! REDIS_URL=redis://127.0.0.1:6379 LISTEN=127.0.0.1:3000 cargo run --example axum --features redis
//! REDIS_URL=redis://127.0.0.1:6379 LISTEN=127.0.0.1:3001 cargo run --example axum --features redis
//! ```
//!
//! With metrics for Prometheus, which `examples/dashboard.json` shows in Grafana:
//!
//! ```text
//! cargo run --example axum --features metrics
//! curl -s http://127.0.0.1:3000/metrics
//! ```
//!
//! With limits that are enforced on half of the principals only, and with a candidate policy, which
//! counts what 250 calls a minute would refuse:
//!
//! ```text
//! ENFORCE=50 CANDIDATE_CALLS=250 cargo run --example axum --features metrics
//! ```

use std::env;
use std::error::Error;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Path, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::layer::ClientAddress;
#[cfg(feature = "metrics")]
use bolna_rate_limit::observe::Metrics;
#[cfg(feature = "redis")]
use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::store::{AnyStore, MemoryStore};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
#[cfg(feature = "metrics")]
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Requests without an account are limited too, by their address.
    let policy =
        Policy::bolna().unidentified_quota(Quota::per_minute(30)).exempt(["/healthz"]).build()?;
    let app = app(Limiter::with_store(policy, store().await?)?)?;

    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // The address of each connection goes into the extensions of its requests.
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// Counts on the server that `REDIS_URL` names, which several processes share, or else in this
/// process. Either way it is the same type.
async fn store() -> Result<AnyStore, Box<dyn Error>> {
    match env::var("REDIS_URL") {
        // The server need not be up when this process starts.
        #[cfg(feature = "redis")]
        Ok(url) => {
            let store = RedisStore::builder(url).expected_replicas(2).start_degraded();
            Ok(store.connect().await?.into())
        }
        #[cfg(not(feature = "redis"))]
        Ok(_) => Err("REDIS_URL is set, but this was built without --features redis".into()),
        Err(_) => Ok(MemoryStore::new().into()),
    }
}

/// The application, with limits, behind authentication.
pub(crate) fn app(limiter: Limiter<AnyStore>) -> Result<Router, Box<dyn Error>> {
    // Prints a line when the store is lost, limits are changed, or a setting seems wrong. With the
    // feature `tracing`, the observer `Log` logs the same.
    limiter.on_event(|event| eprintln!("{event}"));
    try_out(&limiter)?;
    let metrics = with_metrics(&limiter)?;
    let app = Router::new()
        .route("/v2/agent/{agent_id}/executions", get(executions))
        .route("/v2/agent/{agent_id}", get(agent).put(agent).patch(agent).delete(agent))
        .route("/v2/agent/all", get(agents))
        .route("/call", post(call))
        .route("/user/me", get(me))
        .route("/healthz", get("ok"))
        // The layers come after everything that they cover. That includes the fallback, so that
        // requests to unknown paths are limited too.
        .fallback(not_found)
        .layer(BolnaRateLimitLayer::with_limiter(limiter).client_address(client_address()))
        // The last layer is the outermost: it runs first.
        .layer(from_fn(authenticate));
    Ok(app.merge(metrics))
}

/// Where requests without an account come from. Behind a proxy that sets `X-Forwarded-For`, add
/// `.x_forwarded_for(1)`, or else they all come from the proxy.
fn client_address() -> ClientAddress {
    ClientAddress::of_peer(|head| {
        head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    })
}

/// Tries limits out before they refuse all callers: enforces them on a share of the principals, and
/// evaluates a candidate policy.
fn try_out(limiter: &Limiter<AnyStore>) -> Result<(), Box<dyn Error>> {
    if let Ok(percent) = env::var("ENFORCE") {
        limiter.set_enforcement(Enforcement::percent(percent.parse()?)?);
    }
    if let Ok(calls) = env::var("CANDIDATE_CALLS") {
        let candidate = Policy::bolna().quota("call", Quota::per_minute(calls.parse()?)).build()?;
        limiter.set_candidate(candidate)?;
    }
    Ok(())
}

/// Counts what the limiter decides, for Prometheus to fetch from `/metrics`.
///
/// That page is neither limited nor behind authentication, so make sure that it can't be reached
/// from the outside.
#[cfg(feature = "metrics")]
fn with_metrics(limiter: &Limiter<AnyStore>) -> Result<Router, Box<dyn Error>> {
    let recorder = PrometheusBuilder::new().install_recorder()?;
    // After the recorder is installed, because what is counted before that is lost.
    let metrics = Metrics::new();
    limiter.observe(metrics.clone());
    let limiter = limiter.clone();
    let page = move || async move {
        metrics.refresh(&limiter.report());
        recorder.run_upkeep();
        recorder.render()
    };
    Ok(Router::new().route("/metrics", get(page)))
}

#[cfg(not(feature = "metrics"))]
fn with_metrics(_: &Limiter<AnyStore>) -> Result<Router, Box<dyn Error>> {
    Ok(Router::new())
}

/// A DEMO: it believes any token. In your application, look the API key up and insert the account
/// that the key belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    if let Some(account) = claimed_account(request.headers()) {
        request.extensions_mut().insert(account);
    }
    // Without an account the limiter answers 401, or 429, except on exempt paths.
    next.run(request).await
}

/// Reads `Authorization: Bearer <user>` or `Bearer <user>@<organization>`. The limiter treats an
/// empty id as none.
fn claimed_account(headers: &HeaderMap) -> Option<Account> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    Some(match token.split_once('@') {
        Some((user, organization)) => Account::user(user).in_organization(organization),
        None => Account::user(token),
    })
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

async fn me() -> &'static str {
    "you\n"
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "not found\n")
}
