//! How long requests and responses are on their way.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Nanos, nanos};
use crate::support::scattered;

/// The way between a client and a server. There and back take at least half of the round trip each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    pub(super) round_trip: Duration,
    /// How much longer one way may take, in milliseconds.
    pub(super) scatter: u32,
}

impl Network {
    pub(super) const fn of_millis(round_trip: u64) -> Self {
        Self { round_trip: Duration::from_millis(round_trip), scatter: 0 }
    }

    /// How long one way takes at least.
    pub(super) fn trip(self) -> Nanos {
        nanos(self.round_trip / 2)
    }

    /// How long the next way takes.
    pub(super) fn next_trip(self, ways: &AtomicU32) -> Duration {
        let number = ways.fetch_add(1, Ordering::Relaxed);
        let more = if self.scatter == 0 { 0 } else { scattered(number, self.scatter) };
        self.round_trip / 2 + Duration::from_millis(more.into())
    }
}
