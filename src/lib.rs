//! Tower middleware that enforces the rate limits of the [Bolna](https://www.bolna.ai) voice-AI API
//! for each organization, in front of axum, hyper or any other Tower service. Counting is exact,
//! and a refused caller learns how long to wait.
//!
//! # In front of axum
//! ```
//! use axum::extract::Request;
//! use axum::middleware::{Next, from_fn};
//! use axum::response::Response;
//! use axum::{Router, routing::post};
//! use bolna_rate_limit::{Account, BolnaRateLimitLayer};
//!
//! async fn authenticate(mut request: Request, next: Next) -> Response {
//!     // ... once the API key is known to be good:
//!     request.extensions_mut().insert(Account::user("u-17").in_organization("org-4"));
//!     next.run(request).await
//! }
//!
//! fn app() -> Router {
//!     Router::new()
//!         .route("/call", post(async || "called"))
//!         .layer(BolnaRateLimitLayer::new()) // 500/500/500/1000 a minute, in this process
//!         .layer(from_fn(authenticate)) // outermost, so it runs first and inserts the Account
//! }
//! ```
//!
//! The [`guide`] goes on from here, in fifteen chapters: who the caller is, limits, replicas,
//! production, tests, and what to do when something does not work.
//!
//! Put the layer on the outermost router: inside of axum's [`nest`], it would see paths without
//! their prefix. The `examples` folder lists its examples by task in a README: who is the caller
//! (`jwt`, `api_keys`), which limits (`plans`, `custom_policy`, `reload`), where they are counted
//! (`redis`, `restart`), and what is behind the layer (`axum`, `hyper`, `grpc`, `service_fn`).
//!
//! [`nest`]: https://docs.rs/axum/latest/axum/struct.Router.html#method.nest
//!
//! # What happens to a request
//! 1. **Who is billed?** The [`Account`] that authentication has inserted into the request's
//!    extensions names the [`Principal`]: the organization, or else the user. If your
//!    authentication inserts a type of its own, read it with
//!    [`identify`](BolnaRateLimitLayer::identify). A request without an account is *unidentified*
//!    and is refused with 401, or with 429 if its address sends
//!    [too many](policy::PolicyBuilder::unidentified_quota) of them.
//! 2. **Which endpoint?** The [`Policy`] assigns each path to one [`Endpoint`], or to
//!    [several](#paths-that-are-spelled-to-escape). Methods and queries never matter. Requests to
//!    exempt paths are admitted at once and not counted.
//! 3. **Is there a unit left?** The [store] has a bucket for each principal and endpoint. It
//!    charges one unit to the bucket, if there is one, by the endpoint's [`Quota`]. The
//!    [`Decision`] says what is left. An endpoint can have
//!    [further limits](policy::LimitBuilder), of each user, of a day or of everyone together. The
//!    request is charged to all of them, or to none.
//! 4. **If yes,** the inner service is called, and its response gets the header fields `RateLimit`
//!    and `RateLimit-Policy`. **If not,** the inner service is not called. The response is 429 with
//!    `Retry-After` and a [problem document]. A refused request costs nothing.
//!
//! [problem document]: https://www.rfc-editor.org/rfc/rfc9457
//!
//! # What "500 requests per minute" means
//! One unit comes back every 120 ms, and a bucket holds up to 500 units ([GCRA](Quota)). So a
//! caller that sends at most 500 requests in every 60 s is never refused, however it spreads them.
//! A caller that sends as fast as it can is admitted at most 999 times in the first 60 s, and 500
//! times a minute from then on. To admit smaller bursts only, lower the
//! [`burst`](values::QuotaBuilder::burst).
//!
//! # Paths that are spelled to escape
//! Servers read the same path in different ways: axum matches it as it is written, Starlette
//! decodes it, nginx merges slashes and resolves dots, servlet containers cut `;parameters`, and
//! Express ignores capitals. So a caller could try to escape a limit by another spelling of the
//! path.
//!
//! * A *plain* path, as nearly all are, has nothing of that kind, and is read in one way.
//! * An *odd* path is read in every way in which any of some 200 recorded configurations of
//!   servers, or a chain of them, reads it. It is charged to each endpoint that one of the readings
//!   reaches, all or nothing, and a block on one of them refuses it. `/%63all`, `//call`, `/Call`,
//!   `/call.json`, `/x/..;/call` and `/call%00.png` are all charged to `call`, whichever server is
//!   behind the limiter, and to `default`. So another spelling can cost a caller more, never less.
//!   [`Policy::endpoints_of`] says which endpoints they are, and [`policy::Spelling`] lists the
//!   kinds of spelling that a policy can ignore.
//! * A request whose endpoints have more limits than the store can charge at once is refused with
//!   400, in shadow mode too. All stores of this crate charge 16. With a store of your own that
//!   charges one bucket at a time, every path of several endpoints is refused.
//! * An odd path is exempt only if the path as it is written and all its readings are, and nothing
//!   in it is malformed.
//! * A prefix that the application strips before it routes has to be
//!   [named](policy::PolicyBuilder::stripped_prefix).
//!
//! # Requests in flight
//! [`concurrent`](policy::PolicyBuilder::concurrent) limits how many requests to an endpoint an
//! account may have in flight. If such a limit refuses a request, no other limit is charged.
//!
//! # Refunds and settlements
//! How much a request should cost may be known only when its response is there.
//! [`refund_on`](BolnaRateLimitLayer::refund_on) and [`settle`](BolnaRateLimitLayer::settle) look
//! at the head of the response. A handler can do both by an [`Admission`](limiter::Admission), which may outlive the
//! response.
//!
//! # In production
//! A [`Limiter`] decides for a layer, and can be shared by several of them. Keep a clone of it to
//! operate the service:
//!
//! * Start in shadow mode or with a share of the principals, with [`Enforcement`], and compare a
//!   [candidate](Limiter::set_candidate) with the active policy.
//! * Change limits while requests run: [`set_policy`](Limiter::set_policy). Buckets keep their
//!   state.
//! * Look after a single caller: [`peek`](Limiter::peek) at a bucket, [`reset`](Limiter::reset) it,
//!   [`refund`](Limiter::refund) units, or [`block`](Limiter::block) the caller.
//! * Add observers for metrics, logs and advice about a wrong setup: [`observe`].
//!
//! Without Tower, [`check`](Limiter::check) and [`check_now`](Limiter::check_now) decide about a
//! request, and [`check_endpoint`](Limiter::check_endpoint) about other work, such as the messages
//! of a WebSocket. Use [`admit`](Limiter::admit) instead if the work should count as in flight
//! while it lasts, or may be refunded.
//!
//! # Several replicas
//! With the feature `redis`, `store::RedisStore` counts on a Redis or Valkey server, so that
//! several replicas share one limit. It can be a single server, a primary that Sentinels watch, or
//! a cluster. When the server is lost, no request waits for longer than a deadline of 25 ms by
//! default, and each replica enforces its share of the limit by itself. What it admits meanwhile it
//! charges to the server when that is back.
//!
//! A [store](store::Store) of your own can be wrapped in the same parts: [`store::Breaker`],
//! [`store::LocalFallback`] and [`store::DenialCache`].
//!
//! # The client
//! With the feature `client`, `client::BolnaClientLayer` wraps an HTTP client. It keeps outgoing
//! requests within the same policy, so that the server need not refuse them. It learns from
//! responses how many units other clients have spent, and it retries requests that are refused all
//! the same.
//!
//! # Features
//! By default no feature is on. The limiter then counts in this process, needs no runtime, and
//! starts no tasks or threads. Features only add:
//!
//! * `redis`: `store::RedisStore`. It starts tasks on the current tokio runtime, or a thread.
//! * `redis-tls`: the same over TLS, with rustls. Includes `redis`.
//! * `policy-file`: `Policy::read`, which reads a policy from a TOML or JSON file. Its errors name
//!   the line.
//! * `client`: the module `client`. It needs a tokio runtime.
//! * `serde`: plain data such as [principals](Principal), [quotas](Quota), [decisions](Decision)
//!   and [reports](observe::Report) can be serialized, and some of it read back.
//! * `metrics`: `observe::Metrics`, which counts with the `metrics` facade.
//! * `tracing`: `observe::Log`, which logs with `tracing`; with `client`, the client logs too.
//!
//! # How the source is laid out
//! The crate has six folders, and the client beside them. Each folder uses only those before it in
//! this list; the client uses [`values`], [`policy`] and [`observe`].
//!
//! 1. [`values`]: plain data, such as principals, quotas and decisions.
//! 2. [`policy`]: from paths to endpoints and quotas; accounts.
//! 3. [`store`]: where buckets are.
//! 4. [`observe`]: observers, metrics, logs and advice.
//! 5. [`limiter`]: decides about requests, without HTTP.
//! 6. [`layer`]: the Tower middleware.
//!
//! The page [`design`] explains it to maintainers.

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
