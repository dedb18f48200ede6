use super::Limiter;
use crate::foreign::Nanos;

/// The requests of this window, and of those of the window before the share that would lie in the
/// last window if they had been spread evenly, as at [Cloudflare]: together fewer than the limit.
///
/// [Cloudflare]: https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
#[derive(Debug)]
pub(super) struct SlidingCounter {
    requests: u64,
    window: Nanos,
    /// The start of the window that `count` is about.
    start: Nanos,
    before: u64,
    count: u64,
}

impl SlidingCounter {
    pub(super) fn new(requests: u64, window: Nanos) -> Self {
        Self { requests, window, start: 0, before: 0, count: 0 }
    }

    /// The start of the window now, and the requests in the window before and in this one.
    fn at(&self, now: Nanos) -> (Nanos, u64, u64) {
        let start = now - now % self.window;
        match (start - self.start) / self.window {
            0 => (start, self.before, self.count),
            1 => (start, self.count, 0),
            _ => (start, 0, 0),
        }
    }

    /// When one more fits into a window, since the start of that window, if it fits before the end.
    fn fits(&self, before: u64, count: u64) -> Option<Nanos> {
        let room = self.requests.checked_sub(count).filter(|room| *room > 0)?;
        if before == 0 {
            return Some(0);
        }
        // before * (window - elapsed) / window + count < requests
        let window = u128::from(self.window);
        let most = (u128::from(room) * window).div_ceil(u128::from(before));
        let elapsed = (window + 1).saturating_sub(most);
        (elapsed < window).then(|| elapsed.try_into().expect("less than a window"))
    }

    fn add(&mut self, now: Nanos) {
        (self.start, self.before, self.count) = self.at(now);
        self.count += 1;
    }
}

impl Limiter for SlidingCounter {
    fn wait(&self, now: Nanos) -> Nanos {
        let (mut start, mut before, mut count) = self.at(now);
        loop {
            if let Some(elapsed) = self.fits(before, count) {
                return (start + elapsed).saturating_sub(now);
            }
            (start, before, count) = (start + self.window, count, 0);
        }
    }

    fn admit(&mut self, now: Nanos) -> Nanos {
        self.add(now);
        0
    }

    fn charge_refused(&mut self, now: Nanos) {
        self.add(now);
    }

    fn remaining(&self, now: Nanos) -> u64 {
        let (start, before, count) = self.at(now);
        let left = u128::from(self.window - (now - start));
        let share = u128::from(before) * left / u128::from(self.window);
        self.requests.saturating_sub(count + u64::try_from(share).expect("at most `before`"))
    }

    fn reset(&self, now: Nanos) -> Nanos {
        self.at(now).0 + self.window - now
    }
}
