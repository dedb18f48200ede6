//! Limits of another API: its own paths and quotas, a paid plan with higher limits, callers that
//! are identified from its own authentication type, and refusals in its own error shape.
//!
//! ```sh
//! cargo run --example custom_policy
//! # listening on http://127.0.0.1:3003
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! # 60 a minute, but only 10 at once: the eleventh is refused, in the error shape below.
//! curl -s -w '%{http_code}\n' -H 'Authorization: Bearer red' 'http://127.0.0.1:3003/search?[1-11]'
//! # found
//! # 200
//! # ...
//! # {"error":{"code":"too_many_requests","detail":...,"limits":["search"],"wait_ms":...}}429
//!
//! # Another path of the same endpoint, so the same bucket: one unit comes back each second.
//! sleep 1; curl -si -H 'Authorization: Bearer red' http://127.0.0.1:3003/v2/books/search
//! # HTTP/1.1 200 OK
//! # ...
//! # ratelimit: "search";r=0;t=1
//! # ...
//!
//! # A team on the enterprise plan.
//! curl -si -H 'Authorization: Bearer blue!' http://127.0.0.1:3003/search | grep ratelimit-policy:
//! # ratelimit-policy: "search";q=200;w=4
//!
//! # 20 an hour, 2 at once: the third is refused.
//! curl -si -H 'Authorization: Bearer red' 'http://127.0.0.1:3003/export/2026/[1-3].csv' \
//!     | grep -i '^http\|^retry'
//! # HTTP/1.1 200 OK
//! # HTTP/1.1 200 OK
//! # HTTP/1.1 429 Too Many Requests
//! # retry-after: 180
//!
//! # Without a token, in the same error shape.
//! curl -s -w '\n%{http_code}\n' http://127.0.0.1:3003/search
//! # {"error":{"code":"not_signed_in","detail":...,"limits":[],"wait_ms":null}}
//! # 401
//!
//! # All other paths share 600 a minute. Health checks are not counted and need no account.
//! curl -si -H 'Authorization: Bearer red' http://127.0.0.1:3003/ | grep ratelimit:
//! # ratelimit: "default";r=599;t=60
//! curl -s http://127.0.0.1:3003/healthz
//! # ok
//! ```

use std::env;
use std::error::Error;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use bolna_rate_limit::layer::{Identify, Reason, Refusal};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Principal, Quota};
use serde_json::json;
use tokio::net::TcpListener;

/// What this service's authentication knows about a caller. It knows nothing of rate limits.
#[derive(Clone)]
struct Claims {
    team: String,
    enterprise: bool,
}

/// Makes an account of the claims, for the limiter.
struct ByTeam {
    enterprise: Policy,
}

impl Identify for ByTeam {
    fn account(&self, head: &Parts) -> Option<Account> {
        let claims = head.extensions.get::<Claims>()?;
        let account = Account::from(Principal::organization(&claims.team)?);
        Some(if claims.enterprise { account.with_policy(self.enterprise.clone()) } else { account })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Both plans have the same paths. A policy is built once, at start-up, and a mistake in it is
    // an error there.
    let plans = Policy::builder()
        .endpoint("search", Quota::per_minute(60).burst(10), ["/search", "/v2/{collection}/search"])
        .endpoint("export", Quota::per_hour(20).burst(2), ["/export/{*file}"])
        .default_quota(Quota::per_minute(600))
        .exempt(["/healthz"]);
    let standard = plans.clone().build()?;
    let enterprise = plans.quota("search", Quota::per_second(50).burst(200)).build()?;

    let limits = BolnaRateLimitLayer::with_policy(standard)
        .identify_with(ByTeam { enterprise })
        .render_refusals(render_refusal);
    let app = Router::new()
        .route("/search", get("found\n"))
        .route("/v2/{collection}/search", get("found\n"))
        .route("/export/{*file}", get("a,b\n"))
        .route("/", get("welcome\n"))
        .route("/healthz", get("ok\n"))
        .layer(limits)
        .layer(from_fn(authenticate));

    let listener =
        TcpListener::bind(env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3003".to_owned()))
            .await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// The service's own error shape. The limiter adds `Retry-After` and the `RateLimit` fields to this
/// response.
fn render_refusal(refusal: &Refusal<'_>) -> Response<String> {
    let code = match refusal.reason() {
        Reason::Limited(_) if refusal.is_blocked() => "blocked",
        Reason::Limited(_) => "too_many_requests",
        Reason::Unidentified => "not_signed_in",
        _ => "refused",
    };
    let error = json!({ "error": {
        "code": code,
        "detail": refusal.detail(),
        "limits": refusal.limits().map(|limit| limit.name().name()).collect::<Vec<_>>(),
        "wait_ms": refusal.wait().map(|wait| wait.as_nanos().div_ceil(1_000_000)),
    }});
    let mut response = Response::new(error.to_string());
    *response.status_mut() = refusal.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A DEMO: it believes any token. The token is `Bearer <team>`, with a `!` at the end for the
/// enterprise plan.
async fn authenticate(mut request: Request, next: Next) -> axum::response::Response {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        let claims = Claims {
            team: token.trim_end_matches('!').to_owned(),
            enterprise: token.ends_with('!'),
        };
        request.extensions_mut().insert(claims);
    }
    next.run(request).await
}
