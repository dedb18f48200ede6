//! The usage of an endpoint.

use std::time::Duration;

use crate::values::{Endpoint, Quota};

/// The current state of one endpoint of a [`Pacer`](super::Pacer), and what it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The quota of the endpoint's own limit in the policy. If the server reports a stricter one,
    /// the client keeps to that one, but it is not returned here.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many requests would be sent at once now, by the limit that allows the fewest; 0 while
    /// the endpoint is paused or requests wait. The number follows from the policy, from the
    /// requests that this client has sent, and from the remaining units that the server has
    /// reported, after the units spent by other clients. [A part](super::PacerBuilder::jitter) of
    /// the burst is held back: of Bolna's 500, 495 are left at the beginning.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// How many requests wait to be sent, dispatched ones included. A refused request is counted
    /// again only after its [retry delay](super::RetryPolicy) has passed.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many requests have been sent and have neither a response nor an error yet.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// How long one more request would have to wait, by the limit that takes the longest. Requests
    /// to other endpoints that wait for a shared limit are not counted.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// How long the endpoint is still paused: no request is sent in that time, because the server
    /// has refused a request or has reported that one of the limits has no units left. Zero if the
    /// endpoint is not paused.
    #[must_use]
    pub const fn paused(&self) -> Duration {
        self.paused
    }

    /// How many requests have been sent since the pacer was created, retries included.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// How many of the sent requests were retries.
    #[must_use]
    pub const fn retried(&self) -> u64 {
        self.retried
    }

    /// How many of the sent requests were refused with 429.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// How many requests have not been sent, because the wait would have been too long or too many
    /// requests were waiting.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.unsent
    }
}
