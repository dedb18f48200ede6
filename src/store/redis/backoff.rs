//! How long to wait before a server is tried again.

use std::time::Duration;

/// Twice the shortest time between two attempts, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// After so long without trouble, trouble is new.
pub(super) const STEADY: Duration = Duration::from_secs(10);

/// The time before the next attempt: none at first, then 50 ms to 2 s, twice as long each time.
#[derive(Default)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).clamp(BACKOFF.0, BACKOFF.1);
        // Between half of it and all of it, so that a fleet does not come back in step.
        let half = now / 2;
        let micros = u32::try_from(half.as_micros()).unwrap_or(u32::MAX).max(1);
        half + Duration::from_micros((super::random() % micros).into())
    }
}
