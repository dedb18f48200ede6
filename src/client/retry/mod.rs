//! Retries of refused requests.

mod backoff;
mod bodies;
mod broken;
mod budget;
mod builder;
mod delay;
mod error;
mod policy;
mod resumed;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::values::Endpoint;

pub use bodies::{CloneBodies, CloneBody, SendOnce};
pub use builder::RetryPolicyBuilder;
pub use delay::RetryDelay;
pub use error::RetryPolicyError;
pub use policy::RetryPolicy;
pub(in crate::client) use resumed::{Resumption, Resumptions};

/// A mark in the extensions of a request that has been refused before.
#[derive(Clone, Debug)]
pub(in crate::client) struct Again {
    /// How much of the total time is left for its retries when the delay before this one ends. It
    /// is no point in time, so that the time in which the process does not run does not count.
    left: Duration,
    /// `None` if the delay is so long that it does not end.
    delay: Option<Arc<Delay>>,
}

impl Again {
    /// How much of the total time is left. A delay that has ended early leaves more of it, and the
    /// time since its end, in which the inner service got ready, less.
    pub(in crate::client) fn left(&self) -> Duration {
        let Some(delay) = &self.delay else { return self.left };
        let now = Instant::now();
        let ended = delay.ended(now);
        let early = delay.ends.saturating_duration_since(ended);
        self.left.saturating_add(early).saturating_sub(now.saturating_duration_since(ended))
    }
}

/// The delay before a retry.
#[derive(Debug)]
struct Delay {
    /// When it is to end.
    ends: Instant,
    /// When it has ended.
    ended: OnceLock<Instant>,
}

impl Delay {
    /// When it has ended, or `now` if that was not noticed.
    fn ended(&self, now: Instant) -> Instant {
        self.ended.get().copied().unwrap_or(now)
    }
}

/// A mark in the extensions of a refusal: for how long the pacer sends no requests to the endpoint,
/// or how long the refusal asks to wait, whichever is longer.
#[derive(Clone, Debug)]
pub(in crate::client) struct Paused {
    /// When the response arrived.
    pub(in crate::client) at: Instant,
    /// How long the pause was from then.
    pub(in crate::client) wait: Duration,
    pub(in crate::client) endpoint: Endpoint,
    /// When the pause is ended by hand.
    pub(in crate::client) resumed: Resumption,
    pub(in crate::client) refusal: Arc<Refusal>,
}

/// A refusal that was not followed by a retry yet. If it is dropped before, it counts as handed
/// back.
#[derive(Debug)]
pub(in crate::client) struct Refusal {
    is_retried: AtomicBool,
    handed_back: Arc<AtomicU64>,
}

impl Refusal {
    pub(in crate::client) fn counted_by(handed_back: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { is_retried: AtomicBool::new(false), handed_back })
    }

    /// A retry is planned.
    fn retry(&self) {
        self.is_retried.store(true, Ordering::Relaxed);
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        if !*self.is_retried.get_mut() {
            self.handed_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}
