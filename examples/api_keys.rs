//! API keys: the account is looked up by the hash of the key. Keys can't be guessed at full speed,
//! because requests without a known key are limited by the address that they come from.
//!
//! ```sh
//! cargo run --example api_keys
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! # Two keys of one organization share its bucket.
//! curl -si -X POST -H 'X-Api-Key: bn-demo-ana' http://127.0.0.1:3000/call | grep ratelimit:
//! # ratelimit: "call";r=499;t=60
//! curl -si -X POST -H 'X-Api-Key: bn-demo-ben' http://127.0.0.1:3000/call | grep ratelimit:
//! # ratelimit: "call";r=498;t=60
//!
//! # A guess is answered 401, and after 30 guesses from one address within a minute 429.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'X-Api-Key: guess' \
//!     'http://127.0.0.1:3000/call?[1-40]' | sort | uniq -c
//! # ~30 401
//! # ~10 429
//!
//! # Callers with a key are not affected. This is how a key gets into the table:
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'X-Api-Key: bn-demo-ana' \
//!     http://127.0.0.1:3000/call
//! # 200
//! printf bn-demo-ana | sha256sum
//! # ac08ac7bb1991cb15d2709d94ce4465365d98d014fec6717b7bfc9983ef2bb2b  -
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use bolna_rate_limit::layer::ClientAddress;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// The SHA-256 of each key, with its user and organization. In your application this is a table of
/// a database. The hash needs no salt and may be fast, because keys are long and random; passwords
/// would need another one.
const TABLE: [(&str, &str, &str); 2] = [
    ("ac08ac7bb1991cb15d2709d94ce4465365d98d014fec6717b7bfc9983ef2bb2b", "ana", "acme"),
    ("4256190c7245a754da7509bbf9e10a90715f2ace13f0055e4a078d7795b27d4f", "ben", "acme"),
];

type Keys = Arc<HashMap<String, Account>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let account = |(hash, user, organization): (&str, &str, &str)| {
        (hash.to_owned(), Account::user(user).in_organization(organization))
    };
    let keys: Keys = Arc::new(TABLE.map(account).into());

    let policy = Policy::bolna().unidentified_quota(Quota::per_minute(30)).build()?;
    // Behind a proxy that sets `X-Forwarded-For`, add `.x_forwarded_for(1)`, or else all requests
    // come from the proxy.
    let address = ClientAddress::of_peer(|head| {
        head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    });
    let app = Router::new()
        .route("/call", post("queued\n"))
        .layer(BolnaRateLimitLayer::with_policy(policy).client_address(address))
        .layer(from_fn_with_state(keys, authenticate));

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    // The address of each connection goes into the extensions of its requests.
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// Must not answer 401 itself: the limiter does, and counts the guesses.
async fn authenticate(State(keys): State<Keys>, mut request: Request, next: Next) -> Response {
    if let Some(key) = request.headers().get("x-api-key") {
        let hash = format!("{:x}", Sha256::digest(key.as_bytes()));
        if let Some(account) = keys.get(&hash).cloned() {
            request.extensions_mut().insert(account);
        }
    }
    next.run(request).await
}
