//! The Tower side: a layer, the service that it makes, and the service's future and body.
//!
//! A request goes through five steps, each of which is a module of the domain; this one wires them:
//!
//! ```text
//! request -> account -> endpoint -> policy -> store -> decision -> response
//!            who?       which class? what quota? count   plain data   header fields, 429
//! ```

mod body;
mod future;
mod gate;
#[expect(
    clippy::module_inception,
    reason = "one file for each of layer, service, future and body, as in tower-http"
)]
mod layer;
mod service;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use gate::Fallback;
pub use layer::BolnaRateLimitLayer;
pub use service::BolnaRateLimit;
