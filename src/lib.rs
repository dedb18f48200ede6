//! Rate limits for axum, hyper, tonic or any other Tower service: those of the
//! [Bolna](https://www.bolna.ai) voice-AI API, or [your own](guide::limits#any-api). They are
//! exact, for each organization and [across replicas](guide::replicas), and a refused caller learns
//! how long to wait.
//!
//! ```
//! use axum::extract::Request;
//! use axum::middleware::{Next, from_fn};
//! use axum::response::Response;
//! use axum::{Router, routing::post};
//! use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy};
//!
//! async fn authenticate(mut request: Request, next: Next) -> Response {
//!     // ... once the API key is known to be good:
//!     request.extensions_mut().insert(Account::user("u-17").in_organization("org-4"));
//!     next.run(request).await
//! }
//!
//! fn app() -> Router {
//!     let limits = Policy::default(); // Bolna's: 500/500/500/1000 a minute
//!     Router::new()
//!         .route("/call", post(async || "called"))
//!         .layer(BolnaRateLimitLayer::with_policy(limits)) // counts in this process
//!         .layer(from_fn(authenticate)) // outermost, so it runs first
//! }
//! ```
//!
//! Three names are enough to begin with:
//!
//! * [`BolnaRateLimitLayer`] goes around the outermost router or service.
//! * [`Account`] says who is calling. Your authentication inserts it into the request's extensions.
//! * [`Policy`] says which paths are limited together, and to what.
//!
//! # What happens to a request
//!
#![doc = include_str!("guide/flow.svg")]
//!
//! The [`Principal`] is who is billed: the organization, or else the user. An [`Endpoint`] is a
//! group of paths with limits of their own, and a [`Quota`] is how many requests may come in a
//! period, and at once. A [`Decision`] says what a limit has left, and a [`Ruling`] what came of
//! the request. Methods and queries never matter. A refused request costs nothing, and no spelling
//! of a path [escapes its limit](guide::security).
//!
//! # Where to read on
//! | question | answer |
//! |---|---|
//! | How do I begin? Where does the layer belong? | [start](guide::start) |
//! | Who is calling? | [callers](guide::callers), [`Account`], [`Identify`](layer::Identify) |
//! | What does "500 per minute" mean? How do I change it? | [limits](guide::limits), [`Policy`] |
//! | What does the caller see? | [responses](guide::responses), [`Refusal`](layer::Refusal) |
//! | How do replicas share a limit? | [replicas](guide::replicas), [`store`] |
//! | How do I try, change and watch limits? | [production](guide::production), [`Limiter`] |
//! | How do I keep my client from being refused? | [client](guide::client) |
//! | How do I test my application? | [testing](guide::testing), [`Limiter::with_clock`] |
//! | What is wrong? | [troubleshooting](guide::troubleshooting) |
//!
//! The [`guide`] lists all chapters, and the README of the folder `examples` all examples by task.
//! Without Tower, [`Limiter::check`] decides about a request, or [`Limiter::check_now`] at once if
//! its store is in this process.
//!
//! # Features
//! No feature is on by default. The default build counts in this process, needs no runtime, and
//! starts no tasks or threads.
//!
//! * `full`: all of the following.
//! * `redis`: `store::RedisStore` counts on Redis or Valkey, so that replicas share a limit.
//!   `redis-tls`: over TLS, with rustls.
//! * `client`: the module `client`, which paces and retries outgoing requests by the same policy.
//! * `policy-file`: `Policy::read` reads a policy from a TOML or JSON file.
//! * `metrics`: `observe::Metrics`, and with `client` `client::Metrics`, count with the `metrics`
//!   facade.
//! * `tracing`: `observe::Log` logs with `tracing`; with `client`, the client logs too.
//! * `serde`: plain data such as [principals](Principal), [decisions](Decision) and
//!   [reports](observe::Report) can be serialized, and some of it read back.
//!
//! # How the source is laid out
//! Each folder uses only those before it: [`values`], [`policy`], [`store`], [`observe`],
//! [`limiter`], [`layer`]. The client uses the first two and `observe`. The page [`design`]
//! explains them to maintainers.

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

#[doc(inline)]
pub use layer::{BolnaRateLimit, BolnaRateLimitLayer};
#[doc(inline)]
pub use limiter::Limiter;
#[doc(inline)]
pub use policy::{Account, Policy, PolicyError};
#[doc(inline)]
pub use values::{Decision, Endpoint, Enforcement, Principal, Quota, Ruling};

/// For maintainers: where things are, which way a request goes, and why things are so.
#[cfg(doc)]
#[doc = include_str!("../DESIGN.md")]
pub mod design {}

// Its code is tested with all features. With fewer, links to what is missing are plain text.
#[cfg(any(
    all(doc, not(doctest)),
    all(
        doctest,
        feature = "client",
        feature = "metrics",
        feature = "policy-file",
        feature = "redis-tls",
        feature = "serde",
        feature = "tracing"
    )
))]
#[cfg_attr(
    not(all(feature = "client", feature = "metrics", feature = "policy-file", feature = "redis")),
    allow(rustdoc::broken_intra_doc_links)
)]
pub mod guide;

/// The README's code is compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
