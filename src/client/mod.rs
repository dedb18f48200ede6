//! The other end: a client that keeps to the limits, and behaves when it is refused.
//!
//! Bolna's page on its rate limits (of 7 February 2026) tells the API's callers to spread their
//! requests, to back off when they are refused, to watch their usage and to limit themselves. This
//! does it for them, by the same [`Policy`](crate::Policy) that the server keeps:
//!
//! ```
//! use bolna_rate_limit::client::BolnaClientLayer;
//! use bytes::Bytes;
//! use http::{Request, header::AUTHORIZATION};
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//!
//! async fn dial(leads: &[&'static str]) -> Result<(), BoxError> {
//!     let client = ServiceBuilder::new()
//!         .layer(BolnaClientLayer::new())
//!         .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
//!     for lead in leads {
//!         let call = Request::post("http://127.0.0.1:3000/call")
//!             .header(AUTHORIZATION, "Bearer bn-...")
//!             .body(Full::from(*lead))?;
//!         // As many at once as there are tasks with a clone of the client: they keep to the limit together.
//!         let response = client.clone().oneshot(call).await?;
//!         println!("{lead}: {}", response.status());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # How a request waits
//! Each endpoint of the policy has a pace: bursts as its quota allows, or
//! [evenly](PacerBuilder::evenly) one request each
//! [`emission_interval`](crate::Quota::emission_interval). A request that can't be sent yet waits
//! for its turn, in the order of arrival. How many may wait, and for how long, is bounded
//! ([10,000](PacerBuilder::max_waiting) for [5 minutes](PacerBuilder::max_wait) unless you
//! say otherwise): a request that would have to wait for longer fails at once with a [`WaitError`],
//! which says for how long. A future that is dropped gives its place up. While it waits, a request
//! holds nothing of the service behind, neither a permit nor a connection; only when it has its
//! turn, is ready, and others were sent just before, does it stay so, for 250 ms at most.
//!
//! While requests wait for an endpoint, one task with one timer lets them go, on the runtime of the
//! first who waits; when nobody waits any more it ends. A request that need not wait starts none.
//!
//! # What is learnt from responses
//! Others may spend from the same bucket: colleagues, and other processes with the key. Their
//! spending shows in `RateLimit` and `RateLimit-Policy` ([draft 11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/) and those before it), or
//! in `X-RateLimit-Limit`, `-Remaining` and `-Reset`: what the server says is left is believed, and
//! so is a quota that is stricter than the policy's. A client that is alone loses nothing by it,
//! and no field makes it send more than its policy allows.
//!
//! Of several limits, the one that is named as the endpoint counts, or else the one with the fewest
//! left. Any of them that is used up for longer than its next unit takes pauses the endpoint until
//! then.
//!
//! A 429 pauses its endpoint for all callers, for as long as `retry-after-ms` or `Retry-After`
//! (seconds or a date) says, and a random part of one unit's time on top. Without a value that
//! makes sense the pause is a second; if what is sent after a pause is refused too, pauses become
//! twice as long each time, up to a minute. None is longer than an hour. Then requests go one by
//! one.
//!
//! # What is sent again
//! A request that was refused with 429 is taken to have had no effect, as with [this crate's
//! layer](crate::BolnaRateLimitLayer), so it is sent again whatever its method, before those that
//! come for the first time. [`RetryPolicy`] says how often and until when, and keeps to a
//! budget; after that the refusal is handed back as it came. It is a [`tower::retry::Policy`], and
//! can be used [alone](RetryPolicy).
//!
//! # How much is left
//! [`Pacer::usage`] tells for each endpoint what is left, who waits and for how long, and what was
//! sent and refused; [`Pacer::peek`] tells it for a path, before anything is sent there. With the
//! feature `metrics`, `Metrics` tells it to any recorder.
//!
//! # Where to put the layer
//! From the outside in:
//! 1. what makes the request complete, such as its headers, and what follows redirects, which are
//!    requests as well;
//! 2. **this layer**;
//! 3. a concurrency limit, which bounds the connections: a burst of 500 opens 500 of HTTP/1;
//! 4. a timeout, for each attempt: one outside of this layer would run while a request waits for
//!    its turn;
//! 5. the client.
//!
//! # HTTP clients
//! Any service of `http::Request` that can be cloned will do. hyper-util's client speaks https with
//! a connector such as hyper-rustls'; [reqwest](https://docs.rs/reqwest) has types of its own, and converts them:
//!
//! ```
//! use bolna_rate_limit::client::BolnaClientLayer;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use tower::util::BoxCloneSyncService;
//! use tower::{BoxError, ServiceBuilder};
//!
//! type Api = BoxCloneSyncService<Request<Bytes>, reqwest::Response, BoxError>;
//!
//! fn api(client: reqwest::Client) -> Api {
//!     BoxCloneSyncService::new(
//!         ServiceBuilder::new()
//!             .map_response(reqwest::Response::from)
//!             .layer(BolnaClientLayer::new())
//!             .map_request(|request: Request<Bytes>| reqwest::Request::try_from(request).expect("an absolute URI"))
//!             .map_response(Response::<reqwest::Body>::from)
//!             .service(client),
//!     )
//! }
//! ```
//!
//! reqwest follows redirects by itself, and those are not paced.
//!
//! # What it takes for granted
//! * One [`Pacer`] is one principal: one API key, or all keys of one organization. Give each
//!   customer's key its own.
//! * The service behind talks to one API: paths are looked at, hosts are not.
//! * Buckets are full at the beginning. What was spent before the process started shows with the
//!   first response; a burst that is sent until then may be refused, and is sent again.
//! * A tokio runtime with timers. A request that has to wait, or to be sent again, panics without
//!   one. The runtime of the first who waits serves all others: where a client is shared by several
//!   runtimes, each has to be kept running while anybody waits.

mod hints;
mod layer;
#[cfg(feature = "metrics")]
mod metrics;
mod pace;
mod retry;
mod service;
mod usage;

pub use layer::BolnaClientLayer;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metrics::Metrics;
pub use pace::{Pace, PaceFuture, PaceLayer, Pacer, PacerBuilder, PacerError, WaitError};
pub use retry::{
    CloneBodies, CloneBody, RetryDelay, RetryPolicy, RetryPolicyBuilder, RetryPolicyError, SendOnce,
};
pub use service::BolnaClient;
pub use usage::Usage;
