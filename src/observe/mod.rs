//! Observers, which receive what a limiter decides and what happens to it.
//!
//! A limiter reports to its [observers](Observer)
//!
//! * each request that it decides about, as an [`Observation`], and
//! * each [`Event`] that does not concern a single request: limits were changed, the store was
//!   lost, a setting seems wrong ([`Advice`]).
//!
//! Without observers it reports nothing, and requests pay nothing for this. Only in debug builds it
//! [prints advice](crate::Limiter::print_advice) then. There are observers for the common cases:
//!
//! * [`MostRefused`] counts which principals are refused most, by which limit, and when, in bounded
//!   memory.
//! * A closure receives events: [`Limiter::on_event`](crate::Limiter::on_event).
//! * `Metrics` (feature `metrics`) counts with the `metrics` facade.
//! * `Log` (feature `tracing`) logs refusals and events with `tracing`.
//! * A type of your own implements [`Observer`].
//!
//! A [`Report`] holds the numbers of a limiter and its store, on request.
//!
//! Observers belong to the [`Limiter`](crate::Limiter), which several layers may share:
//!
//! ```
//! use std::sync::Arc;
//! use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy, observe::MostRefused};
//!
//! let refused = Arc::new(MostRefused::new(100));
//! let limiter = Limiter::new(Policy::bolna().exempt(["/healthz"]).build()?);
//! limiter.observe(Arc::clone(&refused));
//! limiter.on_event(|event| eprintln!("rate limiter: {event}"));
//! let layer = BolnaRateLimitLayer::with_limiter(limiter);
//! # Ok::<(), bolna_rate_limit::PolicyError>(())
//! ```

mod advice;
mod event;
#[cfg(feature = "tracing")]
mod log;
#[cfg(feature = "metrics")]
mod metrics;
mod most_refused;
mod observation;
mod observer;
mod report;
#[cfg(feature = "tracing")]
mod throttle;

pub use advice::Advice;
pub use event::Event;
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use log::Log;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metrics::Metrics;
pub use most_refused::{MostRefused, Refused};
pub use observation::Observation;
pub use observer::Observer;
pub use report::Report;

pub(crate) use advice::{Examined, Mark, Nothing, Seen};
pub(crate) use observer::{Listener, Observers};
