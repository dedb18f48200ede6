use super::Limiter;
use crate::foreign::Nanos;

/// A bucket of whole tokens, of which one comes back at a time.
#[derive(Debug)]
pub(super) struct Tokens {
    interval: Nanos,
    burst: i64,
    tokens: i64,
    /// When the last token came back.
    refilled_at: Nanos,
}

impl Tokens {
    pub(super) fn new(interval: Nanos, burst: u64) -> Self {
        let burst = i64::try_from(burst).expect("a small burst");
        Self { interval, burst, tokens: burst, refilled_at: 0 }
    }

    fn at(&self, now: Nanos) -> (i64, Nanos) {
        let refilled = (now - self.refilled_at) / self.interval;
        let tokens = self.tokens.saturating_add_unsigned(refilled).min(self.burst);
        // A bucket that was full begins to refill with the next request.
        let is_full = tokens == self.burst;
        (tokens, if is_full { now } else { self.refilled_at + refilled * self.interval })
    }

    fn take(&mut self, now: Nanos) {
        (self.tokens, self.refilled_at) = self.at(now);
        self.tokens -= 1;
    }

    /// How long it will be until there are so many tokens.
    fn until(&self, wanted: i64, now: Nanos) -> Nanos {
        let (tokens, refilled_at) = self.at(now);
        let lacking = u64::try_from(wanted - tokens).unwrap_or(0);
        (refilled_at + lacking * self.interval).saturating_sub(now)
    }
}

impl Limiter for Tokens {
    fn wait(&self, now: Nanos) -> Nanos {
        self.until(1, now)
    }

    fn admit(&mut self, now: Nanos) -> Nanos {
        self.take(now);
        0
    }

    fn charge_refused(&mut self, now: Nanos) {
        // At most one more burst is owed.
        if self.at(now).0 > -self.burst {
            self.take(now);
        }
    }

    fn remaining(&self, now: Nanos) -> u64 {
        self.at(now).0.try_into().unwrap_or(0)
    }

    fn reset(&self, now: Nanos) -> Nanos {
        self.until(self.burst, now)
    }
}
