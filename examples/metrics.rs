//! Metrics for Prometheus, which `examples/dashboard.json` shows in Grafana; limits that are
//! enforced on a share of the principals only; and a candidate policy, which is counted and refuses
//! no request.
//!
//! ```sh
//! ENFORCE=50 CANDIDATE_CALLS=250 cargo run --example metrics --features metrics
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! `ENFORCE` is the percentage of the principals on which the limits are enforced (all without it).
//! `CANDIDATE_CALLS` is how many calls a minute the candidate admits. Then, in another terminal:
//!
//! ```sh
//! # globex is among the half on which the limits are enforced, and acme is not.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer eve@globex' \
//!     'http://127.0.0.1:3000/call?[1-600]' | sort | uniq -c
//! # ~500 200
//! # ~100 429
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]' | sort | uniq -c
//! # 600 200
//!
//! # What the limits refuse, and would refuse; and what the candidate would refuse of the requests
//! # that the active policy allows.
//! curl -s http://127.0.0.1:3000/metrics | grep '^bolna.*decisions_total.*"limited"' | sort
//! # bolna_rate_limit_candidate_decisions_total{...,enforced="allowed"} ~500
//! # bolna_rate_limit_candidate_decisions_total{...,enforced="limited"} ~200
//! # bolna_rate_limit_decisions_total{endpoint="call",outcome="limited",mode="enforced"} ~100
//! # bolna_rate_limit_decisions_total{endpoint="call",outcome="limited",mode="shadow"} ~100
//! # bolna_rate_limit_limit_decisions_total{limit="call",...,mode="enforced"} ~100
//! # bolna_rate_limit_limit_decisions_total{limit="call",...,mode="shadow"} ~100
//! ```
//!
//! Several processes can count on one Redis server, and serve a page each:
//!
//! ```sh
//! redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no > /dev/null &
//! REDIS_URL=redis://127.0.0.1:6379 LISTEN=127.0.0.1:3001 \
//!     cargo run --example metrics --features metrics,redis
//! # listening on http://127.0.0.1:3001
//! ```

use std::env;
use std::error::Error;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Path, Request};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::layer::ClientAddress;
use bolna_rate_limit::observe::Metrics;
use bolna_rate_limit::store::{AnyStore, MemoryStore};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Requests without an account are limited too, by their address.
    let policy =
        Policy::bolna().unidentified_quota(Quota::per_minute(30)).exempt(["/healthz"]).build()?;
    let limiter = Limiter::with_store(policy, store().await?)?;
    if let Ok(percent) = env::var("ENFORCE") {
        limiter.set_enforcement(Enforcement::percent(percent.parse()?)?);
    }
    if let Ok(calls) = env::var("CANDIDATE_CALLS") {
        let candidate = Policy::bolna().quota("call", Quota::per_minute(calls.parse()?)).build()?;
        limiter.set_candidate(candidate)?;
    }
    let app = app(limiter)?.into_make_service_with_connect_info::<SocketAddr>();

    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Counts in this process, or on the server that `REDIS_URL` names.
async fn store() -> Result<AnyStore, Box<dyn Error>> {
    match env::var("REDIS_URL") {
        #[cfg(feature = "redis")]
        Ok(url) => {
            let store = bolna_rate_limit::store::RedisStore::builder(url).expected_replicas(2);
            Ok(store.start_degraded().connect().await?.into())
        }
        #[cfg(not(feature = "redis"))]
        Ok(_) => Err("REDIS_URL is set, but this was built without --features redis".into()),
        Err(_) => Ok(MemoryStore::new().into()),
    }
}

/// The application, with limits, behind authentication, and the page that Prometheus fetches.
///
/// That page is neither limited nor behind authentication, so make sure that it can't be reached
/// from the outside.
pub(crate) fn app(limiter: Limiter<AnyStore>) -> Result<Router, Box<dyn Error>> {
    let recorder = PrometheusBuilder::new().install_recorder()?;
    // After the recorder is installed, because what is counted before that is lost.
    let metrics = Metrics::new();
    limiter.observe(metrics.clone());
    limiter.on_event(|event| eprintln!("{event}"));
    let reported = limiter.clone();
    let page = move || async move {
        metrics.refresh(&reported.report());
        recorder.run_upkeep();
        recorder.render()
    };
    let address = ClientAddress::of_peer(|head| {
        head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    });
    Ok(Router::new()
        .route("/v2/agent/{agent_id}/executions", get(executions))
        .route("/v2/agent/{agent_id}", get(agent).put(agent).patch(agent).delete(agent))
        .route("/v2/agent/all", get(agents))
        .route("/call", post(call))
        .route("/user/me", get("you\n"))
        .route("/healthz", get("ok"))
        .fallback((StatusCode::NOT_FOUND, "not found\n"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter).client_address(address))
        .layer(from_fn(authenticate))
        // Added after the layers, so that they do not cover it.
        .route("/metrics", get(page)))
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
