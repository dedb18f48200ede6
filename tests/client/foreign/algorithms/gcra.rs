use super::Limiter;
use crate::foreign::Nanos;

/// The generic cell rate algorithm, as in governor.
#[derive(Debug)]
pub(super) struct Gcra {
    interval: Nanos,
    burst: u64,
    /// The theoretical arrival time: when the bucket is full.
    tat: Nanos,
}

impl Gcra {
    pub(super) fn new(interval: Nanos, burst: u64) -> Self {
        Self { interval, burst, tat: 0 }
    }

    fn tolerance(&self) -> Nanos {
        (self.burst - 1) * self.interval
    }
}

impl Limiter for Gcra {
    fn wait(&self, now: Nanos) -> Nanos {
        self.tat.saturating_sub(now + self.tolerance())
    }

    fn admit(&mut self, now: Nanos) -> Nanos {
        self.tat = self.tat.max(now) + self.interval;
        0
    }

    fn charge_refused(&mut self, now: Nanos) {
        // At most one more burst is owed.
        let most = now + 2 * self.burst * self.interval;
        self.tat = (self.tat + self.interval).min(most);
    }

    fn remaining(&self, now: Nanos) -> u64 {
        (now + self.burst * self.interval).saturating_sub(self.tat.max(now)) / self.interval
    }

    fn reset(&self, now: Nanos) -> Nanos {
        self.tat.saturating_sub(now)
    }
}
