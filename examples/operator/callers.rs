//! The API itself, for callers.

use axum::extract::{Extension, FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bolna_rate_limit::store::AnyStore;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Decision, Limiter, Ruling};
use serde_json::{Value, json};

use super::{Answered, Problem, bearer, views};

/// Callers can look at their own usage; these requests are not counted.
pub(crate) fn router(limiter: Limiter<AnyStore>) -> Router {
    Router::new()
        .route("/call", post(call))
        .route("/usage", get(own_usage))
        .with_state(limiter.clone())
        .layer(BolnaRateLimitLayer::with_limiter(limiter).ruling_in_extensions())
        .layer(from_fn(authenticate))
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
        decision.map(Self).ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, none))
    }
}

async fn own_usage(
    State(limiter): State<Limiter<AnyStore>>,
    account: Option<Extension<Account>>,
) -> Answered {
    let Some(Extension(account)) = account else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "show who you are"));
    };
    Ok(Json(views::usage(&limiter, &account).await?))
}

/// A DEMO: it believes any token. In your application, look the API key up and insert the account
/// that the key belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let account = bearer(request.headers()).map(|token| match token.split_once('@') {
        Some((user, organization)) => Account::user(user).in_organization(organization),
        None => Account::user(token),
    });
    if let Some(account) = account.filter(|account| account.principal().is_some()) {
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}
