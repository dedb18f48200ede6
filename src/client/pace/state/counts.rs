//! What an endpoint has counted since the pacer was created.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::usage::Counted;

/// The counters of an endpoint. They go on when the endpoint leaves the policy and comes back.
#[derive(Clone, Debug, Default)]
pub(in crate::client::pace) struct Counts {
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
    pub(super) pauses: u64,
    /// How many refusals were not followed by a retry. Responses count it, without the lock.
    pub(in crate::client::pace) handed_back: Arc<AtomicU64>,
}

impl Counts {
    /// A request is sent that was counted as unsent.
    pub(in crate::client::pace) fn send_after_all(&mut self) {
        self.unsent = self.unsent.saturating_sub(1);
    }

    /// What they are now.
    pub(in crate::client::pace) fn now(&self) -> Counted {
        let Self { sent, retried, refused, unsent, pauses, .. } = *self;
        let handed_back = self.handed_back.load(Ordering::Relaxed);
        Counted { sent, retried, refused, unsent, handed_back, pauses }
    }
}
