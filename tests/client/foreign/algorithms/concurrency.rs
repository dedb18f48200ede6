use super::Limiter;
use crate::foreign::{MILLISECOND, Nanos};

/// So many requests in flight.
#[derive(Debug)]
pub(super) struct Concurrency {
    most: u64,
    in_flight: u64,
}

impl Concurrency {
    pub(super) fn new(most: u64) -> Self {
        Self { most, in_flight: 0 }
    }
}

impl Limiter for Concurrency {
    /// It is not known when a request ends: it may be at once.
    fn wait(&self, _: Nanos) -> Nanos {
        if self.in_flight < self.most { 0 } else { MILLISECOND }
    }

    fn admit(&mut self, _: Nanos) -> Nanos {
        self.in_flight += 1;
        0
    }

    fn charge_refused(&mut self, _: Nanos) {}

    fn end(&mut self) {
        self.in_flight -= 1;
    }

    fn remaining(&self, _: Nanos) -> u64 {
        self.most - self.in_flight
    }

    fn reset(&self, now: Nanos) -> Nanos {
        self.wait(now)
    }
}
