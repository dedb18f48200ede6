//! The claims of a signed token (a JSON Web Token, RFC 7519) are the account: no database is asked,
//! and a caller can't change who is billed.
//!
//! ```sh
//! cargo run --example jwt
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Then, in another terminal. With arguments the example signs a token, as the service where your
//! users log in would:
//!
//! ```sh
//! ANA=$(cargo run --example jwt -- sign ana acme 3600)
//! BEN=$(cargo run --example jwt -- sign ben acme 3600)
//!
//! # Both are users of one organization, so they share its bucket.
//! curl -si -X POST -H "Authorization: Bearer $ANA" http://127.0.0.1:3000/call | grep ratelimit:
//! # ratelimit: "call";r=499;t=60
//! curl -si -X POST -H "Authorization: Bearer $BEN" http://127.0.0.1:3000/call | grep ratelimit:
//! # ratelimit: "call";r=498;t=60
//! curl -s -H "Authorization: Bearer $BEN" http://127.0.0.1:3000/user/me
//! # ben of acme
//!
//! # A token that has been changed, and one that has expired, are none.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H "Authorization: Bearer ${ANA}x" \
//!     http://127.0.0.1:3000/call
//! # 401
//! OLD=$(cargo run --example jwt -- sign ana acme -3600)
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H "Authorization: Bearer $OLD" \
//!     http://127.0.0.1:3000/call
//! # 401
//! ```

use std::env;
use std::error::Error;

use axum::extract::{Extension, Request};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, serve};
use bolna_rate_limit::{Account, BolnaRateLimitLayer};
use chrono::TimeDelta;
use jwt_compact::alg::{Hs256, Hs256Key};
use jwt_compact::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// What the tokens say, besides the time at which they expire.
#[derive(Clone, Serialize, Deserialize)]
struct User {
    sub: String,
    org: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [sign, user, organization, seconds] = &arguments[..] {
        assert_eq!(sign, "sign", "usage: jwt [sign USER ORGANIZATION SECONDS]");
        let user = User { sub: user.clone(), org: Some(organization.clone()) };
        let lasts = TimeDelta::try_seconds(seconds.parse()?).ok_or("too many seconds")?;
        let claims = Claims::new(user).set_duration(&TimeOptions::default(), lasts);
        println!("{}", Hs256.token(&Header::empty(), &claims, &key())?);
        return Ok(());
    }

    let app = Router::new()
        .route("/call", post("queued\n"))
        .route("/user/me", get(me))
        // The claims are a type of yours, which knows nothing of limits.
        .layer(BolnaRateLimitLayer::new().identify(|head| {
            let user = head.extensions.get::<User>()?;
            Some(Account::user(&user.sub).in_organization(user.org.as_ref()))
        }))
        .layer(from_fn(authenticate));
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, app).await?;
    Ok(())
}

/// The key of the service that signs. A DEMO: in your application it is a secret, or, better, the
/// tokens are signed with a private key and this is the public one.
fn key() -> Hs256Key {
    Hs256Key::new(env::var("JWT_KEY").unwrap_or_else(|_| "a demonstration".to_owned()))
}

/// A request whose token is missing, wrong or expired goes on without claims. The limiter answers
/// it with 401, or with 429 if you limit such requests by their address.
async fn authenticate(mut request: Request, next: Next) -> Response {
    if let Some(user) = user(&request) {
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

fn user(request: &Request) -> Option<User> {
    let token = request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    // Only the algorithm that is named here is accepted, whatever the token says.
    let token = Hs256.validator(&key()).validate(&UntrustedToken::new(token).ok()?).ok()?;
    let claims: &Claims<User> = token.claims();
    claims.validate_expiration(&TimeOptions::default()).ok()?;
    Some(claims.custom.clone())
}

async fn me(Extension(user): Extension<User>) -> String {
    format!("{} of {}\n", user.sub, user.org.as_deref().unwrap_or("no organization"))
}
