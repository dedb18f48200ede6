//! Sending a refused request again.

mod backoff;
mod bodies;
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

/// Marks a request that has been refused before, in its extensions.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Again {
    /// By when it has to be sent again; `None` if it can be at any time.
    pub(in crate::client) deadline: Option<Instant>,
}

/// In the extensions of a refusal: for how long the pacer that it has come through sends nothing to
/// its endpoint.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Paused(pub(in crate::client) Duration);
