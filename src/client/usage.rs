//! How much is left.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// How one endpoint of a [`Pacer`](super::Pacer) stands.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub(super) endpoint: Endpoint,
    pub(super) quota: Quota,
    pub(super) remaining: u32,
    pub(super) waiting: usize,
    pub(super) in_flight: u64,
    pub(super) wait: Duration,
    pub(super) paused: Duration,
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
}

impl Usage {
    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Its quota by the policy. A server that tells a stricter one is believed.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many requests would be sent at once now, as far as is known: by the policy, by what this
    /// client has sent, and by what the server has said that all who draw on the bucket have
    /// left. [Some](super::PacerBuilder::jitter) of the burst are held back: 495 of Bolna's 500
    /// are left at the beginning.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// How many requests wait for their turn. Those who wait before they are sent again are not
    /// counted until they are through with [that](super::RetryPolicy).
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many requests have been sent, and have neither a response nor an error yet.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// For how long one more request would have to wait.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// For how long nothing is sent at all, since the server has refused or has said that nothing
    /// is left; zero if it has not.
    #[must_use]
    pub const fn paused(&self) -> Duration {
        self.paused
    }

    /// How many requests have been sent since the pacer was made, retries included.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// How many of those were retries.
    #[must_use]
    pub const fn retried(&self) -> u64 {
        self.retried
    }

    /// How many were refused with 429.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// How many requests have not been sent, since they would have had to wait for too long or
    /// among too many.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.unsent
    }
}
