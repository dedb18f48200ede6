//! The page, its numbers as JSON, and its buttons. Serve it on loopback only: it has no
//! authentication, and its buttons change limits.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use bolna_rate_limit::values::Decision;
use bolna_rate_limit::{Endpoint, Enforcement, Limiter};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api;
use crate::tally::{CALLERS, Tally};
use crate::traffic::Traffic;

/// Calls of the person before the page, at once.
const MOST_AT_ONCE: usize = 100;

/// What the page shows and changes.
#[derive(Clone)]
pub(crate) struct Demo {
    pub(crate) limiter: Limiter,
    pub(crate) tally: Arc<Tally>,
    pub(crate) traffic: Traffic,
    pub(crate) api: SocketAddr,
}

/// Buttons take JSON only, so that no other site can press them: a browser asks first before it
/// sends JSON to a site that is not the page's own.
pub(crate) fn router(demo: Demo) -> Router {
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page.css")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/state", get(state))
        .route("/attack", post(set_attack))
        .route("/enforcement", post(set_enforcement))
        .route("/limit", post(set_limit))
        .route("/calls", post(call))
        .with_state(demo)
}

/// All that the page shows, or why it can't be had.
type Answered = Result<Json<Value>, (StatusCode, String)>;

async fn state(State(demo): State<Demo>) -> Answered {
    let mut callers = Vec::new();
    for (name, counts) in CALLERS.iter().zip(demo.tally.counts()) {
        let usage = demo.limiter.usage(api::account(name)).await.map_err(broken)?;
        let call = demo.limiter.peek(api::account(name), Endpoint::CALL).await.map_err(broken)?;
        let wait = call.and_then(|ruling| ruling.retry_after());
        callers.push(json!({
            "name": name,
            "total": counts,
            "buckets": usage.iter().map(bucket).collect::<Vec<_>>(),
            "next_call_in_ms": wait.map(|wait| wait.as_micros().div_ceil(1000)),
        }));
    }
    let calls = demo.limiter.policy().quota_of(Endpoint::CALL).map(|quota| quota.limit());
    let client = demo.traffic.pacer().peek("/call");
    Ok(Json(json!({
        "api": demo.api.to_string(),
        "attack": demo.traffic.is_attacked(),
        "enforcement": demo.limiter.enforcement().to_string(),
        "calls_per_minute": calls,
        "callers": callers,
        "client": client.map(|usage| json!({ "sent": usage.sent(), "refused": usage.refused() })),
        "samples": demo.tally.samples(),
    })))
}

fn bucket(decision: &Decision) -> Value {
    json!({
        "limit": decision.name().name(),
        "remaining": decision.remaining(),
        "burst": decision.quota().burst(),
    })
}

#[derive(Deserialize)]
struct Attack {
    on: bool,
}

async fn set_attack(demo: State<Demo>, Json(attack): Json<Attack>) -> Answered {
    demo.traffic.set_attack(attack.on);
    state(demo).await
}

#[derive(Deserialize)]
struct Enforce {
    full: bool,
}

async fn set_enforcement(demo: State<Demo>, Json(enforce): Json<Enforce>) -> Answered {
    let enforcement = if enforce.full { Enforcement::FULL } else { Enforcement::SHADOW };
    demo.limiter.set_enforcement(enforcement);
    state(demo).await
}

#[derive(Deserialize)]
struct Limit {
    calls_per_minute: u32,
}

async fn set_limit(demo: State<Demo>, Json(limit): Json<Limit>) -> Answered {
    let (calls, allowed) = (limit.calls_per_minute, api::LEAST_CALLS..=api::MOST_CALLS);
    if !allowed.contains(&calls) {
        let (least, most) = (allowed.start(), allowed.end());
        return Err(bad(format!("calls_per_minute is {calls}: it must be from {least} to {most}")));
    }
    let policy = api::policy(calls).map_err(broken)?;
    demo.limiter.set_policy(policy).map_err(broken)?;
    state(demo).await
}

#[derive(Deserialize)]
struct Calls {
    calls: usize,
}

async fn call(demo: State<Demo>, Json(Calls { calls }): Json<Calls>) -> Answered {
    if !(1..=MOST_AT_ONCE).contains(&calls) {
        return Err(bad(format!("calls is {calls}: it must be from 1 to {MOST_AT_ONCE}")));
    }
    demo.traffic.call(calls).await;
    state(demo).await
}

fn bad(message: String) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, message)
}

fn broken(error: impl Into<Box<dyn Error>>) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.into().to_string())
}

/// Answers with a file of the page, which is never older than the program.
fn file(content_type: &'static str, text: &'static str) -> MethodRouter<Demo> {
    get(move || async move { ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], text) })
}
