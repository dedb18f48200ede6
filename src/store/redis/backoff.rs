//! The time to wait before the store reconnects to a server.

use std::time::Duration;

/// Twice the shortest time between two attempts, because jitter takes up to half, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A connection that has lasted this long resets the backoff when it breaks.
pub(super) const STEADY: Duration = Duration::from_secs(10);

/// The time before the next attempt: none before the first, then 50 ms to 2 s, doubled each time.
#[derive(Default)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).clamp(BACKOFF.0, BACKOFF.1);
        // A random time between half and all of it, so that replicas do not reconnect in step.
        let half = now / 2;
        let micros = u32::try_from(half.as_micros()).unwrap_or(u32::MAX).max(1);
        half + Duration::from_micros((super::random() % micros).into())
    }
}
