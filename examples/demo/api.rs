//! The API: four routes like Bolna's behind the limiter, and little capacity behind them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, PolicyError, Quota};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// What Bolna allows.
pub(crate) const CALLS_A_MINUTE: u32 = 500;
/// Between which numbers the page can set it.
pub(crate) const LEAST_CALLS: u32 = 60;
pub(crate) const MOST_CALLS: u32 = 1000;

/// What the API can do: some 200 requests a second. What exceeds that waits in line, whether it is
/// the attacker's or the customer's.
const WORKERS: usize = 4;
const WORK: Duration = Duration::from_millis(20);

/// Bolna's limits, with another number of calls a minute.
pub(crate) fn policy(calls: u32) -> Result<Policy, PolicyError> {
    Policy::bolna().quota("call", Quota::per_minute(calls)).build()
}

pub(crate) fn router(limiter: Limiter) -> Router {
    Router::new()
        .route("/call", post(work))
        .route("/v2/agent/{agent_id}", get(work))
        .route("/v2/agent/{agent_id}/executions", get(work))
        .fallback(work)
        .with_state(Arc::new(Semaphore::new(WORKERS)))
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(from_fn(authenticate))
}

/// Takes one of the workers for a while.
async fn work(State(workers): State<Arc<Semaphore>>) -> &'static str {
    let worker = workers.acquire().await;
    sleep(WORK).await;
    drop(worker);
    "done\n"
}

/// A DEMO: the token is believed, and is the name of the organization. In your application, look
/// the API key up and insert the account that the key belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(name) = token.and_then(|token| token.strip_prefix("Bearer ")) {
        let account = account(name);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}

/// The account of a caller of that name.
pub(crate) fn account(name: &str) -> Account {
    Account::user(name).in_organization(name)
}
