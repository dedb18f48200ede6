//! The random part of a retry delay.

use std::time::Duration;

use tower::util::rng::{HasherRng, Rng};

/// Exponential backoff with full jitter. The longest delay doubles with each retry, and all delays
/// up to it are equally likely, so that requests that were refused together are not retried
/// together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The longest delay before the first retry.
    pub(super) base: Duration,
    /// The longest delay before any retry.
    pub(super) max: Duration,
}

/// The least delay before the first retry where the server does not say when.
const LEAST: Duration = Duration::from_secs(1);

impl Backoff {
    /// The least delay for a request that has been retried `retries` times, where the server does
    /// not say when it may be sent again: 1 s, 2 s, 4 s and so on, and at most `max`.
    pub(super) fn cautious(self, retries: u32) -> Duration {
        LEAST.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX)).min(self.max)
    }

    /// A random delay for a request that has been retried `retries` times: at most `base *
    /// 2^retries`, and at most `max`.
    pub(super) fn delay(self, retries: u32) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX));
        let longest = u64::try_from(doubled.min(self.max).as_nanos()).unwrap_or(u64::MAX);
        // Each new generator has new random keys. The end of the range is exclusive.
        Duration::from_nanos(HasherRng::new().next_range(0..longest.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Backoff =
        Backoff { base: Duration::from_millis(100), max: Duration::from_secs(10) };

    #[test]
    fn the_longest_delay_doubles_up_to_a_limit() {
        for (retries, longest) in
            [(0, 100), (1, 200), (2, 400), (6, 6400), (7, 10_000), (8, 10_000), (u32::MAX, 10_000)]
        {
            // The chance that none of 1000 delays is in the upper half is 2^-1000.
            let delay = (0..1000).map(|_| DEFAULT.delay(retries)).max().unwrap_or_default();
            let longest = Duration::from_millis(longest);
            assert!(delay <= longest && delay > longest / 2, "{delay:?} after {retries} retries");
        }
    }

    #[test]
    fn any_delay_is_as_likely() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let tenth = DEFAULT.delay(0).as_millis().min(99) / 10;
            tenths[usize::try_from(tenth).unwrap_or_default()] += 1;
        }
        // 1000 each is expected, with a standard deviation of 30.
        assert!(tenths.iter().all(|count| (700..=1300).contains(count)), "{tenths:?}");
    }

    proptest! {
        #[test]
        fn no_delay_is_too_long(base in any::<Duration>(), max in any::<Duration>(), retries: u32) {
            let delay = Backoff { base, max }.delay(retries);
            prop_assert!(delay <= max);
            if let Some(factor) = 2_u32.checked_pow(retries) {
                prop_assert!(delay <= base.saturating_mul(factor));
            }
        }
    }
}
