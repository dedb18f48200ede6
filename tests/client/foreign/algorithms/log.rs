use std::collections::VecDeque;

use super::Limiter;
use crate::foreign::Nanos;

/// The times of the requests of the last window, as in the `ratelimit` of Upstash or a sorted set in
/// Redis.
#[derive(Debug)]
pub(super) struct SlidingLog {
    requests: usize,
    window: Nanos,
    times: VecDeque<Nanos>,
}

impl SlidingLog {
    pub(super) fn new(requests: u64, window: Nanos) -> Self {
        let requests = requests.try_into().expect("as many as fit into memory");
        Self { requests, window, times: VecDeque::new() }
    }

    fn outside(&self, now: Nanos) -> usize {
        self.times.partition_point(|at| at + self.window <= now)
    }

    fn add(&mut self, now: Nanos) {
        self.times.drain(..self.outside(now));
        self.times.push_back(now);
    }
}

impl Limiter for SlidingLog {
    fn wait(&self, now: Nanos) -> Nanos {
        // The request that has to leave the window so that one more fits.
        let leaves = self.times.len().checked_sub(self.requests).map(|index| self.times[index]);
        leaves.map_or(0, |at| (at + self.window).saturating_sub(now))
    }

    fn admit(&mut self, now: Nanos) -> Nanos {
        self.add(now);
        0
    }

    fn charge_refused(&mut self, now: Nanos) {
        self.add(now);
    }

    fn remaining(&self, now: Nanos) -> u64 {
        let count = self.times.len() - self.outside(now);
        self.requests.saturating_sub(count) as u64
    }

    fn reset(&self, now: Nanos) -> Nanos {
        self.times.back().map_or(0, |at| (at + self.window).saturating_sub(now))
    }
}
