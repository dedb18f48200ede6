//! The other end: a client that keeps to the limits, and behaves when it is refused.
//!
//! Bolna's page on its rate limits (of 7 February 2026) tells the API's callers to spread their requests, to back off when they are
//! refused, to watch their usage and to limit themselves. This does it for them, by the same [`Policy`](crate::Policy) that the server
//! keeps:
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
//! Each endpoint of the policy has a pace: bursts as its quota allows, or [evenly](PacerBuilder::evenly) one request each
//! [`emission_interval`](crate::Quota::emission_interval). A request that can't be sent yet waits for its turn, in the order of arrival.
//! How many may wait, and for how long, is [bounded](PacerBuilder::max_wait): a request that could not be sent in time fails at once
//! with a [`WaitError`], which says how long it would have taken. A future that is dropped gives its place up. While it waits, a
//! request holds nothing of the service behind, neither a permit nor a connection.
//!
//! Where somebody waits, one task with one timer runs for the endpoint, on the runtime of the first who does; it ends when nobody waits
//! any more. There is none otherwise.
//!
//! # What is learnt from responses
//! Others may spend from the same bucket: colleagues, and other processes with the key. Their spending shows in `RateLimit` and
//! `RateLimit-Policy` ([draft 11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/) and those before it), or
//! in `X-RateLimit-*`: what the server says is left is believed, and so is a quota that is stricter than the policy's. A client that is
//! alone loses nothing by it, and no field makes it send more than its policy allows.
//!
//! A 429 pauses its endpoint for everybody for as long as it says in `Retry-After` (seconds or a date) or `retry-after-ms`, for a second
//! if it says nothing sensible, and for an hour at most; longer each time, up to a minute, while the server refuses whatever is sent
//! after the pause. Then requests go on one by one.
//!
//! # What is sent again
//! A request that was refused with 429 has had no effect, so it is sent again whatever its method, before those that come for the first
//! time. [`RetryPolicy`] says how often and until when, and keeps to a budget; after that the refusal is handed back as it came. It is a
//! [`tower::retry::Policy`], and can be used [alone](RetryPolicy).
//!
//! # How much is left
//! [`Pacer::usage`] tells for each endpoint what is left, who waits and for how long, and what was sent and refused. With the feature
//! `metrics`, `Metrics` tells it to any recorder.
//!
//! # What it takes for granted
//! * One [`Pacer`] is one principal: one API key, or all keys of one organization. Give each customer's key its own.
//! * The service behind talks to one API: paths are looked at, hosts are not.
//! * A tokio runtime with timers. A request that has to wait, or to be sent again, panics without one. The runtime of the first
//!   who waits serves all others: where a client is shared by several runtimes, each has to be kept running while anybody waits.

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
pub use retry::{CloneBodies, CloneBody, RetryDelay, RetryPolicy, RetryPolicyBuilder, RetryPolicyError, SendOnce};
pub use service::BolnaClient;
pub use usage::Usage;
