//! Retries of refused requests.

mod backoff;
mod bodies;
mod broken;
mod budget;
mod builder;
mod delay;
mod error;
mod policy;

use std::time::Duration;

use tokio::time::Instant;

pub use bodies::{CloneBodies, CloneBody, SendOnce};
pub use builder::RetryPolicyBuilder;
pub use delay::RetryDelay;
pub use error::RetryPolicyError;
pub use policy::RetryPolicy;

/// A mark in the extensions of a request that has been refused before.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Again {
    /// By when the request has to be sent again; `None` if there is no bound.
    pub(in crate::client) deadline: Option<Instant>,
}

/// A mark in the extensions of a refusal: for how long the pacer sends no requests to the endpoint.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Paused {
    /// When the response arrived.
    pub(in crate::client) at: Instant,
    /// How long the pause was from then.
    pub(in crate::client) wait: Duration,
}
