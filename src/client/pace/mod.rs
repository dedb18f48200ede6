//! Sends each request when the limits of its endpoint allow it.
//!
//! ```text
//! request -> endpoint -> unit left? -> inner service -> response -> what does it report?
//!                         | no    ^                                   |
//!                         v       | dispatch                          v
//!                         queue --+                               the endpoint's buckets
//! ```
//!
//! Each endpoint has two buckets: one for the policy, and one for what the server reports. A unit
//! is taken from both. A request that can't have its unit yet is in one of these states:
//! * waiting in the queue;
//! * dispatched: a unit is reserved, and the future of the request is woken to get the inner
//!   service ready;
//! * ready, but held for a moment, because others were sent just before;
//! * lapsed: it was dispatched and could not be sent, so its unit was given back; it has to wait
//!   again;
//! * expired: it can't be sent before its deadline, and fails.

mod bucket;
mod drive;
mod error;
mod future;
mod lane;
mod layer;
mod pacer;
mod queue;
mod service;
mod settings;
mod state;

pub use error::{PacerError, WaitError};
pub use future::PaceFuture;
pub use layer::PaceLayer;
pub use pacer::{Pacer, PacerBuilder};
pub use service::Pace;
