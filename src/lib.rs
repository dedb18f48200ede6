//! Tower middleware that enforces the rate limits of the [Bolna](https://www.bolna.ai) voice-AI API: per organization,
//! exact to the nanosecond, and honest about how long to wait.
//!
//! # In front of axum
//! ```
//! use axum::{Router, middleware::from_fn, routing::post};
//! use bolna_rate_limit::{Account, BolnaRateLimitLayer};
//! # use axum::{extract::Request, middleware::Next, response::Response};
//! # async fn make_call() {}
//!
//! async fn authenticate(mut request: Request, next: Next) -> Response {
//!     // ... once the API key is known to be good:
//!     request.extensions_mut().insert(Account::user("u-17").in_organization("org-4"));
//!     next.run(request).await
//! }
//!
//! let app: Router = Router::new()
//!     .route("/call", post(make_call))
//!     .layer(BolnaRateLimitLayer::new())   // 500/500/500/1000 a minute, in this process
//!     .layer(from_fn(authenticate));       // outermost, so it runs first and inserts the Account
//! ```
//!
//! Put the layer on the outermost router: inside [`nest`], axum has already cut the prefix off the
//! path. The examples `axum`, `hyper_proxy`, `tower_stack` and `custom_policy` run as they are.
//!
//! [`nest`]: https://docs.rs/axum/latest/axum/struct.Router.html#method.nest
//!
//! # What happens to a request
//! 1. **Who pays?** The [`Account`] that authentication inserted into the request's extensions says
//!    so: the organization or else the user, its [`Principal`]. Services with an authentication
//!    type of their own say it with [`Identify`]. A request that nobody can be billed for is
//!    answered 401.
//! 2. **For what?** The path falls into one [`Endpoint`] of the [`Policy`]; methods and queries
//!    never matter. Exempt paths go on at once, and uncounted.
//! 3. **Is there a unit left?** The [store] holds one bucket for each principal and endpoint, and
//!    takes a unit by the endpoint's [`Quota`]. The [`Decision`] says what is left.
//! 4. **Yes:** the inner service is called, and its response carries the `RateLimit` and `RateLimit-Policy` header
//!    fields. **No:** the inner service is not called. The answer is 429 with `Retry-After` and a
//!    [problem document](https://www.rfc-editor.org/rfc/rfc9457); a refused request costs nothing.
//!
//! # What "500 requests per minute" means
//! One unit comes back every 120 ms, and up to 500 can be saved up ([GCRA](Quota)). So a caller who
//! sends at most 500 in every 60 s is never refused, however unevenly; one who hammers gets at most
//! 999 in the first 60 s and 500 a minute from then on. An operator who wants less of a burst sets
//! [`burst`](QuotaBuilder::burst).
//!
//! # Paths that are spelled to escape
//! One request target reaches different handlers behind different servers: axum matches it as it is
//! written, Starlette decodes it, nginx merges slashes and resolves dots, servlet containers cut
//! `;parameters`. A path in which nothing of that kind occurs has one reading, and nearly all have.
//! Any other path is read in every way that these servers have, and billed to the first named
//! endpoint among its readings, in the order of the policy. So `/%63all`, `//call`, `/x/..;/call`
//! and `/call%00.png` are all billed to `call`, whatever stands behind the limiter. An odd path of
//! more than 512 bytes, or with more than 64 readings, is billed to the policy's first endpoint
//! without being understood.
//!
//! # Without Tower
//! [`Limiter`] is the engine: [`check_now`](Limiter::check_now) decides, [`peek`](Limiter::peek)
//! looks, [`reset`](Limiter::reset) forgives, [`set_policy`](Limiter::set_policy) changes limits
//! under load. A layer and all of its clones share one.
//!
//! # Several replicas
//! With the feature `redis`, `store::RedisStore` counts on a Redis or Valkey server, on a primary
//! that Sentinels watch or, with `redis-cluster`, on a cluster, so that several replicas have one
//! limit. When the server is lost, no request waits for it, and each replica takes its share of the
//! limit. A store of your own can be wrapped in what keeps that one fast and safe:
//! [`store::DenialCache`], [`store::LocalFallback`] and [`store::Breaker`].
//!
//! # The other end
//! With the feature `client`, `client::BolnaClientLayer` goes around an HTTP client: it keeps what
//! is sent within the same policy, so that nothing is refused, believes what responses say of other
//! spenders, and sends again what is refused all the same.
//!
//! # Features
//! | | |
//! |---|---|
//! | none, the default | the limiter that counts in one process; needs no runtime and starts no task or thread |
//! | `redis` | `store::RedisStore`; needs a tokio runtime, and starts a task on it |
//! | `redis-cluster` | ... on a cluster |
//! | `redis-tls` | ... over TLS, with rustls |
//! | `policy-file` | `Policy::read`: a policy from a TOML or JSON file, with errors that name the line |
//! | `client` | `client`: paces and retries outgoing requests; needs a tokio runtime |
//! | `metrics` | `insight::Metrics`, which counts with the `metrics` facade |
//! | `tracing` | `insight::Traces`, which logs with `tracing` |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
pub mod layer;
pub mod limiter;
pub mod observe;
pub mod policy;
pub mod store;
pub mod values;

#[doc(no_inline)]
pub use layer::{BolnaRateLimit, BolnaRateLimitLayer, Dialect, LegacyReset};
pub use limiter::Limiter;
pub use policy::{Account, Policy, PolicyError};
pub use values::clock::{self, ManualClock};
pub use values::{
    Decision, Endpoint, Enforcement, OnStoreFailure, OnUnidentified, Principal, Quota, QuotaError,
    Ruling,
};

/// The README's code is compiled and run with the other documentation tests.
#[cfg(all(doctest, feature = "client", feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
