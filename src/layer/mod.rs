//! The Tower side: a layer, the service that it makes, and the service's future and body.
//!
//! ```text
//! BolnaRateLimit::call -> Limiter::decide -> a store -> Ruling -> the response
//!   who, and which path?  under which rule?   count      plain    header fields, 429
//! ```
//!
//! Nothing else of the crate knows `http::Request`, but for the client.

mod body;
mod config;
mod future;
mod identify;
#[expect(
    clippy::module_inception,
    reason = "one file for each of layer, service, future and body, as in tower-http"
)]
mod layer;
mod response;
mod service;

pub use crate::values::{OnStoreFailure, OnUnidentified};
pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use identify::{Identify, IntoAccount};
pub use layer::BolnaRateLimitLayer;
pub use response::{Dialect, LegacyReset, Reason, Refusal};
pub use service::BolnaRateLimit;
