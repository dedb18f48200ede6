//! Sends each request when the limits of its endpoint allow it.
//!
//! ```text
//! request -> endpoint -> units left? -> inner service -> response -> what does it report?
//!                         | no    ^                                    |
//!                         v       | dispatch                           v
//!                         queue --+                                the limits' buckets
//! ```
//!
//! Each endpoint has a lane: a queue, and its limits, except those for everyone. Each limit has a
//! pair of buckets: one for the policy, and one for what the server reports. A request takes its
//! cost from both buckets of all its limits, or waits.
//!
//! Lanes that share a limit are a group: they have one lock, one worker, and one pair of buckets
//! for the shared limit. Most lanes are a group of one.
//!
//! A request that can't have its units yet is in one of these states:
//! * waiting in the queue;
//! * dispatched: its units are reserved, and the future of the request is woken to get the inner
//!   service ready;
//! * ready, but held for a moment, because others were sent just before;
//! * lapsed: it was dispatched and could not be sent, so its units were given back; it has to wait
//!   again;
//! * expired: it can't be sent before its deadline, and fails.

mod bucket;
mod drive;
mod error;
mod future;
mod group;
mod lane;
mod lanes;
mod layer;
mod limits;
mod pacer;
mod pair;
mod queue;
mod service;
mod settings;
mod state;

pub use error::{PacerError, WaitError};
pub use future::PaceFuture;
pub use layer::PaceLayer;
pub use pacer::{Pacer, PacerBuilder};
pub use service::Pace;
