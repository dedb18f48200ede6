use super::Limiter;
use crate::foreign::{MILLISECOND, Nanos, SECOND};

/// The leaky bucket of `ngx_http_limit_req_module.c`, `ngx_http_limit_req_lookup`: whole
/// milliseconds, thousandths of requests, and a rate in thousandths of requests a second.
#[derive(Debug)]
pub(super) struct Nginx {
    rate: u64,
    burst: u64,
    delays: bool,
    /// How much was in the bucket at the last admission, in thousandths of requests, and when.
    last: Option<(u64, u64)>,
}

impl Nginx {
    pub(super) fn new(requests: u64, window: Nanos, burst: u64, delays: bool) -> Self {
        let rate = requests * 1000 * SECOND / window;
        Self { rate, burst: burst * 1000, delays, last: None }
    }

    /// What is in the bucket with one more request.
    fn excess(&self, now: Nanos) -> u64 {
        self.last.map_or(0, |(excess, at)| {
            let leaked = self.rate * (now / MILLISECOND - at) / 1000;
            (excess + 1000).saturating_sub(leaked)
        })
    }

    fn until(&self, excess: u64, now: Nanos) -> Nanos {
        let lacking = self.excess(now).saturating_sub(excess);
        if lacking == 0 {
            return 0;
        }
        let (full, at) = self.last.expect("an empty bucket lacks nothing");
        let time = ((full + 1000 - excess) * 1000).div_ceil(self.rate);
        (at + time) * MILLISECOND - now
    }
}

impl Limiter for Nginx {
    fn wait(&self, now: Nanos) -> Nanos {
        self.until(self.burst, now)
    }

    fn admit(&mut self, now: Nanos) -> Nanos {
        let excess = self.excess(now);
        self.last = Some((excess, now / MILLISECOND));
        if self.delays { excess * 1000 / self.rate * MILLISECOND } else { 0 }
    }

    fn charge_refused(&mut self, now: Nanos) {
        // At most one more burst is owed.
        let excess = self.excess(now).min(2 * self.burst + 1000);
        self.last = Some((excess, now / MILLISECOND));
    }

    fn remaining(&self, now: Nanos) -> u64 {
        (self.burst + 1000).saturating_sub(self.excess(now)) / 1000
    }

    fn reset(&self, now: Nanos) -> Nanos {
        self.until(0, now)
    }
}
