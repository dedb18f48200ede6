//! Unit tests of an application with limits: a [`ManualClock`] moves only when the test says so.
//! A quota is spent and comes back without waiting, and no test depends on how fast it runs.
//!
//! ```sh
//! cargo test --example testing
//! # ...
//! # test result: ok. 4 passed; ...
//! ```
//!
//! [`ManualClock`]: bolna_rate_limit::values::clock::ManualClock

use std::error::Error;

use axum::Router;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use bolna_rate_limit::store::{AnyStore, MemoryStore};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, PolicyError, Quota};
use tokio::net::TcpListener;

/// What the tests are about: the limits that this application has.
fn policy() -> Result<Policy, PolicyError> {
    Policy::bolna().quota("call", Quota::per_minute(60).burst(10)).exempt(["/healthz"]).build()
}

/// The application around a limiter that is handed in, so that tests can hand in one with a clock
/// of their own. `AnyStore` hides whose clock and which store it is.
fn app(limiter: Limiter<AnyStore>) -> Router {
    Router::new()
        .route("/call", post("queued\n"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(from_fn(authenticate))
}

/// A DEMO: it believes any token, `Bearer <user>@<organization>`.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let names = token.and_then(|token| token.strip_prefix("Bearer ")?.split_once('@'));
    if let Some((user, organization)) = names {
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limiter = Limiter::with_store(policy()?, MemoryStore::new().into())?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(limiter)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::http::header::RETRY_AFTER;
    use bolna_rate_limit::Enforcement;
    use bolna_rate_limit::values::clock::ManualClock;
    use tower::ServiceExt;

    use super::*;

    /// The application with a clock that stands still.
    struct Fixture {
        app: Router,
        limiter: Limiter<AnyStore>,
        clock: ManualClock,
    }

    impl Fixture {
        fn new() -> Self {
            let clock = ManualClock::new();
            let store = MemoryStore::with_clock(clock.clone());
            let limiter = Limiter::with_store(policy().unwrap(), store.into()).unwrap();
            Self { app: app(limiter.clone()), limiter, clock }
        }

        async fn call(&self, token: &str) -> Response {
            let request = Request::post("/call").header(AUTHORIZATION, format!("Bearer {token}"));
            let request = request.body(Body::empty()).unwrap();
            self.app.clone().oneshot(request).await.unwrap()
        }

        /// How many of that many calls are admitted.
        async fn admitted(&self, calls: u32, token: &str) -> u32 {
            let mut admitted = 0;
            for _ in 0..calls {
                admitted += u32::from(self.call(token).await.status() == StatusCode::OK);
            }
            admitted
        }
    }

    #[tokio::test]
    async fn ten_calls_are_admitted_at_once_and_then_one_a_second() {
        let it = Fixture::new();
        assert_eq!(it.admitted(20, "ana@acme").await, 10);
        it.clock.advance(Duration::from_secs(3));
        assert_eq!(it.admitted(20, "ana@acme").await, 3);
    }

    #[tokio::test]
    async fn a_caller_that_waits_as_the_refusal_says_is_admitted() {
        let it = Fixture::new();
        it.admitted(10, "ana@acme").await;
        let refusal = it.call("ana@acme").await;
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        let wait = refusal.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        it.clock.advance(Duration::from_secs(wait));
        assert_eq!(it.call("ana@acme").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn users_share_the_limit_of_their_organization_and_no_others() {
        let it = Fixture::new();
        assert_eq!(it.admitted(10, "ana@acme").await, 10);
        assert_eq!(it.admitted(10, "ben@acme").await, 0);
        assert_eq!(it.admitted(10, "eve@other").await, 10);
    }

    #[tokio::test]
    async fn in_shadow_mode_no_call_is_refused() {
        let it = Fixture::new();
        it.limiter.set_enforcement(Enforcement::SHADOW);
        assert_eq!(it.admitted(20, "ana@acme").await, 20);
    }
}
