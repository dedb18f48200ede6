use super::Limiter;
use crate::foreign::Nanos;

/// A counter that starts anew with each window, as in express-rate-limit.
#[derive(Debug)]
pub(super) struct FixedWindow {
    requests: u64,
    window: Nanos,
    is_aligned: bool,
    start: Nanos,
    count: u64,
}

impl FixedWindow {
    /// The first request after a window starts the next one.
    pub(super) fn new(requests: u64, window: Nanos) -> Self {
        Self { requests, window, is_aligned: false, start: 0, count: 0 }
    }

    /// Windows start at multiples of their length.
    pub(super) fn aligned(requests: u64, window: Nanos) -> Self {
        Self { is_aligned: true, ..Self::new(requests, window) }
    }

    fn count(&self, now: Nanos) -> u64 {
        if now < self.start + self.window { self.count } else { 0 }
    }

    fn add(&mut self, now: Nanos) {
        if now >= self.start + self.window {
            self.start = if self.is_aligned { now - now % self.window } else { now };
            self.count = 0;
        }
        self.count += 1;
    }
}

impl Limiter for FixedWindow {
    fn wait(&self, now: Nanos) -> Nanos {
        if self.count(now) < self.requests { 0 } else { self.reset(now) }
    }

    fn admit(&mut self, now: Nanos) -> Nanos {
        self.add(now);
        0
    }

    fn charge_refused(&mut self, now: Nanos) {
        self.add(now);
    }

    fn remaining(&self, now: Nanos) -> u64 {
        self.requests.saturating_sub(self.count(now))
    }

    fn reset(&self, now: Nanos) -> Nanos {
        (self.start + self.window).saturating_sub(now)
    }
}
