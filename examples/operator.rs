//! What operators and support need, as a router behind authentication: how much a customer has
//! used, which callers are refused most, refunds, blocks, and changing limits under load. Callers
//! can look at their own usage.
//!
//! ```text
//! OPERATOR_TOKEN=change-me cargo run --example operator
//! ```
//!
//! Then, in another terminal:
//!
//! ```text
//! # As a caller: some calls, and how many are left
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]' | sort | uniq -c
//! curl -s -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/usage
//!
//! # As an operator, on another port: "why was acme refused?"
//! alias operator="curl -s -H 'Authorization: Bearer change-me' \
//!     -H 'Content-Type: application/json'"
//! operator http://127.0.0.1:3001/refused
//! operator http://127.0.0.1:3001/organization/acme
//! # ... and with the limits of one of its users
//! operator 'http://127.0.0.1:3001/organization/acme?user=ana'
//!
//! # Give 100 calls back, fill the buckets, block calls for an hour, and lift the block
//! operator http://127.0.0.1:3001/organization/acme/call/refund -d '{"requests": 100}'
//! operator 'http://127.0.0.1:3001/organization/acme/call/reset?user=ana' -X POST
//! operator http://127.0.0.1:3001/organization/acme/call/block -d '{"seconds": 3600}'
//! operator http://127.0.0.1:3001/organization/acme/call/reset -X POST
//! # Block one user of it
//! operator 'http://127.0.0.1:3001/organization/acme/call/block?user=ana' -d '{"seconds": 3600}'
//! operator 'http://127.0.0.1:3001/organization/acme/call/reset?user=ana' -X POST
//!
//! # Half the calls for all callers: first as a candidate beside the active policy. Of 500 calls of
//! # one user the active policy refuses a half, and the candidate three quarters. Then the new
//! # policy is enforced on every fourth caller, and then on all
//! operator http://127.0.0.1:3001/candidate -d '{"call_per_minute": 250}'
//! curl -s -o /dev/null -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-500]'
//! operator http://127.0.0.1:3001/candidate
//! operator http://127.0.0.1:3001/enforcement -d '{"percent": 25}'
//! operator http://127.0.0.1:3001/policy -d '{"call_per_minute": 250}'
//! operator http://127.0.0.1:3001/enforcement -d '{"percent": 100}'
//! ```

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, FromRequestParts, Path, Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::observe::{MostRefused, Refused};
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::{MemoryStore, StoreError};
use bolna_rate_limit::values::EnforcementError;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Decision, Endpoint, Enforcement, Limiter, Policy, PolicyError,
    Quota, Ruling,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // An empty token counts as none, because it would protect nothing.
    let token = env::var("OPERATOR_TOKEN").ok().filter(|token| !token.is_empty());
    let token = token.ok_or("set OPERATOR_TOKEN to the token of operators")?;
    let refused = Arc::new(MostRefused::new(200));
    let limiter = Limiter::new(limits().build()?);
    limiter.observe(Arc::clone(&refused));
    limiter.on_event(|event| eprintln!("{event}"));

    let callers = TcpListener::bind("127.0.0.1:3000").await?;
    let operators = TcpListener::bind("127.0.0.1:3001").await?;
    println!(
        "callers: http://{}, operators: http://{}",
        callers.local_addr()?,
        operators.local_addr()?
    );
    let for_operators = operator_router(Desk { limiter: limiter.clone(), refused }, token);
    tokio::try_join!(async { axum::serve(callers, caller_router(limiter)).await }, async {
        axum::serve(operators, for_operators).await
    },)?;
    Ok(())
}

/// Bolna's limits, and no user makes more than a half of the calls of its organization.
fn limits() -> PolicyBuilder {
    Policy::bolna().user_share("call", 50).exempt(["/usage"])
}

/// What the handlers for operators need.
#[derive(Clone)]
struct Desk {
    limiter: Limiter<MemoryStore>,
    refused: Arc<MostRefused>,
}

/// A caller that has the token can do everything in here. Serve it on a port that only operators
/// can reach.
fn operator_router(desk: Desk, token: String) -> Router {
    Router::new()
        .route("/refused", get(most_refused).delete(forget_refused))
        .route("/{kind}/{id}", get(usage_of))
        .route("/{kind}/{id}/{endpoint}/refund", post(refund))
        .route("/{kind}/{id}/{endpoint}/reset", post(reset))
        .route("/{kind}/{id}/{endpoint}/block", post(block))
        .route("/policy", get(policy).post(set_policy))
        .route("/candidate", get(candidate).post(set_candidate).delete(drop_candidate))
        .route("/enforcement", get(enforcement).post(set_enforcement))
        .with_state(desk)
        .layer(from_fn_with_state(Arc::from(token), authenticate_operator))
}

async fn authenticate_operator(
    State(token): State<Arc<str>>,
    request: Request,
    next: Next,
) -> Response {
    // Compares every byte, so that the time does not show how many bytes are right.
    let differs =
        |shown: &str| shown.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    if bearer(request.headers())
        .is_some_and(|shown| shown.len() == token.len() && differs(shown) == 0)
    {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

async fn most_refused(State(desk): State<Desk>) -> Json<Value> {
    let row = |caller: &Refused| {
        let principal = caller.principal.to_string();
        json!({
            "principal": principal, "refusals": caller.refusals, "at_least": caller.at_least
        })
    };
    Json(desk.refused.top(20).iter().map(row).collect())
}

async fn forget_refused(State(desk): State<Desk>) -> StatusCode {
    desk.refused.clear();
    StatusCode::NO_CONTENT
}

async fn usage_of(
    State(desk): State<Desk>,
    Path((kind, id)): Path<(String, String)>,
    Query(within): Query<Within>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(usage(&desk.limiter, &within.account(&kind, &id)?).await?))
}

#[derive(Deserialize)]
struct Refund {
    requests: u32,
}

async fn refund(
    State(desk): State<Desk>,
    Path(limits): Path<LimitsOf>,
    Query(within): Query<Within>,
    Json(body): Json<Refund>,
) -> Done {
    let (account, endpoint) = limits.find(&desk.limiter, &within)?;
    desk.limiter.refund(account, endpoint, body.requests).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset(
    State(desk): State<Desk>,
    Path(limits): Path<LimitsOf>,
    Query(within): Query<Within>,
) -> Done {
    let (account, endpoint) = limits.find(&desk.limiter, &within)?;
    desk.limiter.reset(account, endpoint).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Block {
    seconds: u64,
}

async fn block(
    State(desk): State<Desk>,
    Path(limits): Path<LimitsOf>,
    Query(within): Query<Within>,
    Json(body): Json<Block>,
) -> Done {
    let (account, endpoint) = limits.find(&desk.limiter, &within)?;
    let period = Duration::from_secs(body.seconds);
    match within.user {
        Some(_) => desk.limiter.block_user(account, endpoint, period).await?,
        None => desk.limiter.block(account, endpoint, period).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Limits {
    call_per_minute: u32,
}

impl Limits {
    fn policy(&self) -> Result<Policy, PolicyError> {
        limits().quota("call", Quota::per_minute(self.call_per_minute)).build()
    }
}

async fn policy(State(desk): State<Desk>) -> Json<Value> {
    let limits = desk.limiter.policy().limits();
    Json(limits.iter().map(|limit| json!(limit.to_string())).collect())
}

async fn set_policy(State(desk): State<Desk>, Json(limits): Json<Limits>) -> Done {
    desk.limiter.set_policy(limits.policy()?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn candidate(State(desk): State<Desk>) -> Json<Value> {
    let row = |report: &bolna_rate_limit::limiter::CandidateReport| {
        json!({
            "endpoint": report.endpoint.name(),
            "quota": report.quota.to_string(),
            "admitted by both": report.allowed,
            "refused by both": report.limited,
            "refused by the candidate only": report.newly_limited,
            "admitted by the candidate only": report.newly_allowed,
        })
    };
    Json(desk.limiter.candidate_report().iter().map(row).collect())
}

async fn set_candidate(State(desk): State<Desk>, Json(limits): Json<Limits>) -> Done {
    desk.limiter.set_candidate(limits.policy()?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn drop_candidate(State(desk): State<Desk>) -> Done {
    desk.limiter.set_candidate(None)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Share {
    percent: u8,
}

async fn enforcement(State(desk): State<Desk>) -> String {
    format!("{}\n", desk.limiter.enforcement())
}

async fn set_enforcement(State(desk): State<Desk>, Json(share): Json<Share>) -> Done {
    desk.limiter.set_enforcement(Enforcement::percent(share.percent)?);
    Ok(StatusCode::NO_CONTENT)
}

/// The account and the endpoint that the path of a request names.
#[derive(Deserialize)]
struct LimitsOf {
    kind: String,
    id: String,
    endpoint: String,
}

impl LimitsOf {
    fn find(
        &self,
        limiter: &Limiter<MemoryStore>,
        within: &Within,
    ) -> Result<(Account, Endpoint), Problem> {
        let account = within.account(&self.kind, &self.id)?;
        // Not `Endpoint::new`, which would keep any name that is asked for as long as the process
        // lives.
        let endpoints: Vec<_> =
            limiter.policy().endpoints().map(|(endpoint, _)| endpoint).collect();
        let endpoint = endpoints.into_iter().find(|endpoint| endpoint.name() == self.endpoint);
        Ok((
            account,
            endpoint.ok_or_else(|| {
                Problem(StatusCode::NOT_FOUND, "there is no such endpoint".to_owned())
            })?,
        ))
    }
}

/// The user of the organization, if the request names one.
#[derive(Deserialize)]
struct Within {
    user: Option<String>,
}

impl Within {
    /// If customers have plans, look up the customer's plan, and add `.with_policy(plan)`.
    fn account(&self, kind: &str, id: &str) -> Result<Account, Problem> {
        let account = match kind {
            "organization" => Account::user(self.user.as_deref()).in_organization(id),
            "user" => Account::user(id),
            _ => Account::user(""),
        };
        let rule = "use /organization/{id}, /organization/{id}?user={id} or /user/{id}";
        let known = account.principal().is_some();
        if known { Ok(account) } else { Err(Problem(StatusCode::NOT_FOUND, rule.to_owned())) }
    }
}

type Done = Result<StatusCode, Problem>;

/// Why a request of an operator or a caller failed.
struct Problem(StatusCode, String);

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error.source() {
            Some(reason) if error.is_of_store() => {
                Self(StatusCode::BAD_GATEWAY, format!("{error}: {reason}"))
            }
            // There was something wrong with what was asked for.
            _ => Self(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl From<EnforcementError> for Problem {
    fn from(error: EnforcementError) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// The API itself. Callers can look at their own usage, which is not counted.
fn caller_router(limiter: Limiter<MemoryStore>) -> Router {
    Router::new()
        .route("/call", post(call))
        .route("/usage", get(own_usage))
        .with_state(limiter.clone())
        .layer(BolnaRateLimitLayer::with_limiter(limiter).ruling_in_extensions())
        .layer(from_fn(authenticate_caller))
}

async fn call(Admitted(decision): Admitted) -> Json<Value> {
    Json(json!({ "status": "queued", "calls_left": decision.remaining() }))
}

/// What the limit says about the request, for a handler. `Extension<Ruling>` has it too. This
/// extractor says what is wrong when there is none.
struct Admitted(Decision);

impl<S: Sync> FromRequestParts<S> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let none = "no decision: the path is exempt, or the layer lacks ruling_in_extensions";
        let decision = parts.extensions.get().and_then(Ruling::decision).copied();
        decision
            .map(Self)
            .ok_or_else(|| Problem(StatusCode::INTERNAL_SERVER_ERROR, none.to_owned()))
    }
}

async fn own_usage(
    State(limiter): State<Limiter<MemoryStore>>,
    account: Option<Extension<Account>>,
) -> Result<Json<Value>, Problem> {
    let Some(Extension(account)) = account else {
        return Err(Problem(StatusCode::UNAUTHORIZED, "show who you are".to_owned()));
    };
    Ok(Json(usage(&limiter, &account).await?))
}

/// A DEMO: it believes any token. In your application, look the API key up and insert the account
/// that the key belongs to.
async fn authenticate_caller(mut request: Request, next: Next) -> Response {
    let account = bearer(request.headers()).map(|token| match token.split_once('@') {
        Some((user, organization)) => Account::user(user).in_organization(organization),
        None => Account::user(token),
    });
    if let Some(account) = account.filter(|account| account.principal().is_some()) {
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}

async fn usage(limiter: &Limiter<MemoryStore>, account: &Account) -> Result<Value, StoreError> {
    let usage = limiter.usage(account).await?;
    let row = |left: &Decision| {
        let blocked_for = left.retry_after().filter(|_| left.is_blocked());
        json!({
            "limit": left.name().name(),
            "of_each": left.limit().scope().name(),
            "quota": left.quota().to_string(),
            "left": left.remaining(),
            "of": left.quota().burst(),
            "full_in_seconds": left.reset().as_secs_f64(),
            "blocked_for_seconds": blocked_for.map(|wait| wait.as_secs_f64()),
        })
    };
    Ok(usage.iter().map(row).collect())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
