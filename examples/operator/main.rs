//! What operators and support need, as a router behind authentication: why a customer was refused
//! an hour ago, what it has left now, which callers are refused most, refunds, blocks, and changing
//! limits under load. Every change answers with the new state. Callers can look at their own usage.
//!
//! ```sh
//! OPERATOR_TOKEN=change-me cargo run --example operator
//! # listening on http://127.0.0.1:3000 for callers, on http://127.0.0.1:3001 for operators
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! # As a caller: 600 calls, of which some 250 are admitted, and how many are left
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-600]' | sort | uniq -c
//! # ~250 200
//! # ~350 429
//! curl -s -w '\n' -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/usage
//! # [...,"left":~250,"limit":"call","of":500,...]
//!
//! # As an operator, on another port. The answers are JSON: ` | jq` makes them easier to read
//! operator() {
//!     curl -s -w '\n' -H 'Authorization: Bearer change-me' \
//!         -H 'Content-Type: application/json' "$@"
//! }
//!
//! # "Why was acme refused an hour ago?" By which limit, how often, when last; and what is left now
//! operator http://127.0.0.1:3001/organization/acme
//! # {"account":"organization acme","left_now":[...],...,"refusals":...}
//!
//! # ... of one of its users
//! operator 'http://127.0.0.1:3001/organization/acme?user=ana'
//! # {"account":"organization acme","left_now":[...,"limit":"call-user",...],...}
//!
//! # Which callers are refused most, and by which limit?
//! operator http://127.0.0.1:3001/refused
//! # {...,"refused_most":[{...,"limit":"call-user",...,"refusals":~350,"user":"ana",...}]}
//!
//! # Give 100 calls back, fill the buckets, block calls for an hour, and lift the block
//! operator http://127.0.0.1:3001/organization/acme/call/refund -d '{"requests": 100}'
//! # {...,"left":~350,"limit":"call",...}
//! operator 'http://127.0.0.1:3001/organization/acme/call/reset?user=ana' -X POST
//! # {...,"left":500,"limit":"call",...,"left":250,"limit":"call-user",...}
//! operator http://127.0.0.1:3001/organization/acme/call/block -d '{"seconds": 3600}'
//! # {...{"blocked_for_seconds":...,"left":0,"limit":"call",...}
//! operator http://127.0.0.1:3001/organization/acme/call/reset -X POST
//! # {...,"left":500,"limit":"call",...}
//!
//! # Block one user of it
//! operator 'http://127.0.0.1:3001/organization/acme/call/block?user=ana' -d '{"seconds": 3600}'
//! # {...,"left":500,"limit":"call",...,"left":0,"limit":"call-user",...}
//! operator 'http://127.0.0.1:3001/organization/acme/call/reset?user=ana' -X POST
//! # {...,"left":250,"limit":"call-user",...}
//!
//! # Half the calls for all callers: first as a candidate beside the active policy. Of 500 calls of
//! # one user the active policy refuses a half, and the candidate three quarters. Then the new
//! # policy is enforced on every fourth caller, and then on all
//! operator http://127.0.0.1:3001/candidate -d '{"call_per_minute": 250}'
//! # {"limits":[...,"call, 250 requests per minute for each account",...],"report":[...]}
//! curl -s -o /dev/null -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-500]'
//! operator http://127.0.0.1:3001/candidate
//! # {...,"endpoint":"call",...,"refused by both":~250,"refused by the candidate only":~125},...}
//! operator http://127.0.0.1:3001/enforcement -d '{"percent": 25}'
//! # {"enforcement":"25 %","percent":25}
//! operator http://127.0.0.1:3001/policy -d '{"call_per_minute": 250}'
//! # {"limits":[...,"call, 250 requests per minute for each account",...]}
//! operator http://127.0.0.1:3001/enforcement -d '{"percent": 100}'
//! # {"enforcement":"full","percent":100}
//! operator http://127.0.0.1:3001/candidate -X DELETE
//! # {"limits":null,"report":[]}
//! operator http://127.0.0.1:3001/refused -X DELETE
//! # {"blocked_and_still_sending":[],"refused_most":[]}
//! ```

pub(crate) mod callers;
mod problem;
mod requests;
mod views;

use std::env;
use std::error::Error;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::observe::MostRefused;
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::{AnyStore, MemoryStore};
use bolna_rate_limit::{Enforcement, Limiter, Policy, PolicyError};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use problem::Problem;
use requests::{Block, Body, Customer, Limits, Quotas, Refund, Share};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // An empty token counts as none, because it would protect nothing.
    let token = env::var("OPERATOR_TOKEN").ok().filter(|token| !token.is_empty());
    let token = token.ok_or("set OPERATOR_TOKEN to the token of operators")?;
    let desk = Desk::new(MemoryStore::new().into(), MostRefused::new(200))?;
    desk.limiter.on_event(|event| eprintln!("{event}"));

    let callers = TcpListener::bind("127.0.0.1:3000").await?;
    let operators = TcpListener::bind("127.0.0.1:3001").await?;
    println!(
        "listening on http://{} for callers, on http://{} for operators",
        callers.local_addr()?,
        operators.local_addr()?
    );
    let for_callers = callers::router(desk.limiter.clone());
    let for_operators = router(desk, token);
    tokio::try_join!(async { axum::serve(callers, for_callers).await }, async {
        axum::serve(operators, for_operators).await
    })?;
    Ok(())
}

/// Bolna's limits, and no user makes more than a half of the calls of its organization.
fn limits() -> PolicyBuilder {
    Policy::bolna().user_share("call", 50).concurrent("call", 20).exempt(["/usage"])
}

/// What the handlers for operators need.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) limiter: Limiter<AnyStore>,
    pub(crate) refused: Arc<MostRefused>,
}

impl Desk {
    pub(crate) fn new(store: AnyStore, refused: MostRefused) -> Result<Self, PolicyError> {
        let (limiter, refused) =
            (Limiter::with_store(limits().build()?, store)?, Arc::new(refused));
        limiter.observe(Arc::clone(&refused));
        Ok(Self { limiter, refused })
    }
}

/// A caller that has the token can do everything in here. Serve it on a port that only operators
/// can reach.
pub(crate) fn router(desk: Desk, token: String) -> Router {
    Router::new()
        .route("/refused", get(most_refused).delete(forget_refused))
        .route("/{kind}/{id}", get(customer))
        .route("/{kind}/{id}/{endpoint}/refund", post(refund))
        .route("/{kind}/{id}/{endpoint}/reset", post(reset))
        .route("/{kind}/{id}/{endpoint}/block", post(block))
        .route("/policy", get(policy).post(set_policy))
        .route("/candidate", get(candidate).post(set_candidate).delete(drop_candidate))
        .route("/enforcement", get(enforcement).post(set_enforcement))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(desk)
        .layer(from_fn_with_state(Arc::from(token), authenticate))
}

async fn authenticate(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    // Compares every byte, so that the time does not show how many bytes are right.
    let differs =
        |shown: &str| shown.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    if bearer(request.headers())
        .is_some_and(|shown| shown.len() == token.len() && differs(shown) == 0)
    {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "show the token of operators");
    ([(WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// The new state, or what was wrong.
type Answered = Result<Json<Value>, Problem>;

async fn most_refused(State(desk): State<Desk>) -> Json<Value> {
    Json(json!({
        "refused_most": views::refusals(&desk.refused.top(20)),
        "blocked_and_still_sending": views::refusals(&desk.refused.top_blocked(20)),
    }))
}

async fn forget_refused(State(desk): State<Desk>) -> Json<Value> {
    desk.refused.clear();
    most_refused(State(desk)).await
}

async fn customer(State(desk): State<Desk>, customer: Customer) -> Answered {
    Ok(Json(views::customer(&desk, &customer).await?))
}

async fn refund(State(desk): State<Desk>, limits: Limits, Body(body): Body<Refund>) -> Answered {
    desk.limiter.refund(&limits.customer.account, limits.endpoint, body.requests).await?;
    customer(State(desk), limits.customer).await
}

async fn reset(State(desk): State<Desk>, limits: Limits) -> Answered {
    desk.limiter.reset(&limits.customer.account, limits.endpoint).await?;
    customer(State(desk), limits.customer).await
}

async fn block(State(desk): State<Desk>, limits: Limits, Body(body): Body<Block>) -> Answered {
    let (account, endpoint, period) = (&limits.customer.account, limits.endpoint, body.period());
    match limits.customer.user {
        Some(_) => desk.limiter.block_user(account, endpoint, period).await?,
        None => desk.limiter.block(account, endpoint, period).await?,
    }
    customer(State(desk), limits.customer).await
}

async fn policy(State(desk): State<Desk>) -> Json<Value> {
    Json(json!({ "limits": views::limits(&desk.limiter.policy()) }))
}

async fn set_policy(State(desk): State<Desk>, Body(quotas): Body<Quotas>) -> Answered {
    desk.limiter.set_policy(quotas.policy()?)?;
    Ok(policy(State(desk)).await)
}

async fn candidate(State(desk): State<Desk>) -> Json<Value> {
    Json(json!({
        "limits": desk.limiter.candidate().map(|candidate| views::limits(&candidate)),
        "report": views::candidate_reports(&desk.limiter.candidate_report()),
    }))
}

async fn set_candidate(State(desk): State<Desk>, Body(quotas): Body<Quotas>) -> Answered {
    desk.limiter.set_candidate(quotas.policy()?)?;
    Ok(candidate(State(desk)).await)
}

async fn drop_candidate(State(desk): State<Desk>) -> Answered {
    desk.limiter.set_candidate(None)?;
    Ok(candidate(State(desk)).await)
}

async fn enforcement(State(desk): State<Desk>) -> Json<Value> {
    let enforcement = desk.limiter.enforcement();
    Json(json!({ "enforcement": enforcement.to_string(), "percent": enforcement.as_percent() }))
}

async fn set_enforcement(State(desk): State<Desk>, Body(share): Body<Share>) -> Answered {
    desk.limiter.set_enforcement(Enforcement::percent(share.percent)?);
    Ok(enforcement(State(desk)).await)
}

/// What there is, for a request to something else.
const ROUTES: [&str; 8] = [
    "GET {account}, which is /organization/{id}, /organization/{id}?user={id} or /user/{id}",
    "POST {account}/{endpoint}/refund {\"requests\": 100}",
    "POST {account}/{endpoint}/reset",
    "POST {account}/{endpoint}/block {\"seconds\": 3600}",
    "GET, DELETE /refused",
    "GET, POST /policy {\"call_per_minute\": 250}",
    "GET, POST, DELETE /candidate {\"call_per_minute\": 250}",
    "GET, POST /enforcement {\"percent\": 25}",
];

async fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such route").with("routes", ROUTES)
}

async fn no_such_method() -> Problem {
    let error = "this route does not have that method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error).with("routes", ROUTES)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
