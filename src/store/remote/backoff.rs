//! The time to wait before the store reconnects to a server.

/// The shortest wait and the longest, in nanoseconds. If the longest were longer, replicas would
/// miss the short times in which an unstable server can be used, and would come back at different
/// times.
const WAITS: (u64, u64) = (50_000_000, 500_000_000);

/// The time before the next attempt: 50 ms to 500 ms, doubled each time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    /// The last wait, in nanoseconds.
    last: u64,
}

impl Backoff {
    /// The next wait, in nanoseconds. `random` is any number: up to half of the wait is random, so
    /// that replicas do not reconnect in step.
    pub(super) fn next(&mut self, random: u32) -> u64 {
        let half = (WAITS.0 << self.failures.min(5)).min(WAITS.1 / 2);
        self.failures = self.failures.saturating_add(1);
        self.last = half + half * u64::from(random) / u64::from(u32::MAX);
        self.last
    }

    /// The last wait, in nanoseconds.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, WAITS};

    #[test]
    fn waits_double_up_to_the_longest_and_differ_between_replicas() {
        let waits = |random| {
            let mut backoff = Backoff::default();
            (0..40).map(|_| backoff.next(random)).collect::<Vec<_>>()
        };
        let (least, most) = (waits(0), waits(u32::MAX));
        assert_eq!(least[..4], [50, 100, 200, 250].map(|millis| millis * 1_000_000));
        assert!(least.iter().zip(&most).all(|(least, most)| *most == least * 2));
        assert_eq!((least[39], most[39]), (WAITS.1 / 2, WAITS.1));
    }
}
