//! Sends each request when the limits of its endpoint allow it.
//!
//! ```text
//! request -> endpoint -> units left? -> inner service -> response -> what does it report?
//!                         | no    ^                                    |
//!                         v       | dispatch                           v
//!                         queue --+                                the limits' buckets
//! ```
//!
//! Each endpoint has a queue, and its limits, except the rates for everyone. Each rate has
//! a pair of buckets: one for the policy, and one for what the server reports. A limit of requests
//! in flight has a pool of permits instead. A request takes its cost from both buckets of all its
//! limits, and permits from all its pools, all at once when it is dispatched, or waits. It gives
//! the permits back when it has failed, was refused, or the body of its response has ended.
//!
//! Endpoints that share a limit are a group: they have one lock, one worker, and one pair of
//! buckets or one pool for the shared limit. Most endpoints are a group of one.
//!
//! A request that can't have its units yet is in one of these states:
//! * waiting in the queue;
//! * dispatched: its units are reserved, and the future of the request is woken to get the inner
//!   service ready;
//! * ready, but held for a moment, because others were sent just before;
//! * lapsed: it was dispatched and could not be sent, so its units were given back; it has to wait
//!   again;
//! * expired: it can't be sent before its deadline, and fails.

mod body;
mod bucket;
mod endpoint;
mod endpoints;
mod error;
mod future;
mod group;
mod layer;
mod limits;
#[cfg(all(test, bolna_loom))]
mod loom_tests;
mod pacer;
mod pair;
mod pairs;
mod permit;
mod permits;
mod pool;
mod queue;
mod queued;
mod service;
mod settings;
mod shared;
mod state;
mod sync;
mod worker;

pub use body::ResponseBody;
pub use error::{PacerError, WaitError};
pub use future::PaceFuture;
pub use layer::PaceLayer;
pub use pacer::{Pacer, PacerBuilder};
pub use permit::Permit;
pub use service::Pace;
