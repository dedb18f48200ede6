//! The arithmetic of [GCRA](https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm), which all
//! stores and the client share.
//!
//! A bucket is one time: when it will be full again if no more units are charged to it. Its *debt*
//! is how far that time lies ahead, in nanoseconds. Each unit that is charged adds one interval to
//! the debt, and the debt shrinks as time passes. The debt of a drained bucket is called the
//! *refill*. A bucket has a unit as long as its debt is at least one interval below the refill.

use std::num::NonZeroU32;

use super::quota::Quota;

/// The rate by which a store counts: a unit comes back in a whole number of nanoseconds, until the
/// bucket holds the burst.
///
/// It may be slower than the [`Quota`] says: a store that counts microseconds rounds the interval
/// up to a whole number of them, and a replica that is cut off counts its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rate {
    /// In nanoseconds, at least 1.
    interval: u64,
    burst: NonZeroU32,
}

impl Rate {
    /// `interval * burst` is at most [`Quota::MAX_REFILL_TIME`].
    pub(super) const fn new(interval: u64, burst: NonZeroU32) -> Self {
        Self { interval, burst }
    }

    /// The rate of a quota whose interval, in nanoseconds, is known.
    #[inline]
    pub(crate) const fn of(quota: Quota, interval: u64) -> Self {
        Self { interval, burst: quota.burst_non_zero() }
    }

    /// The rate of that interval and burst. `None` if one of them is 0, or if a drained bucket
    /// would take longer than [`Quota::MAX_REFILL_TIME`] to be full.
    pub(crate) fn checked(interval: u64, burst: u32) -> Option<Self> {
        let refill = u128::from(interval) * u128::from(burst);
        let is_valid = interval > 0 && refill <= Quota::MAX_REFILL_TIME.as_nanos();
        NonZeroU32::new(burst).filter(|_| is_valid).map(|burst| Self { interval, burst })
    }

    /// The time in which one unit comes back, in nanoseconds.
    #[inline]
    pub(crate) const fn interval(self) -> u64 {
        self.interval
    }

    /// The units that a full bucket holds.
    #[inline]
    pub(crate) const fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// The debt of a drained bucket, in nanoseconds.
    #[inline]
    pub(crate) const fn refill(self) -> u64 {
        self.interval * self.burst.get() as u64
    }

    /// Whether a bucket with that debt has a unit.
    #[inline]
    pub(crate) const fn has(self, debt: u64) -> bool {
        debt <= self.refill() - self.interval
    }

    /// The time, in nanoseconds, until a bucket with that debt holds `units`, which is at most the
    /// burst. Zero if it holds them now.
    #[inline]
    pub(crate) const fn until(self, debt: u64, units: u32) -> u64 {
        debt.saturating_sub(self.refill().saturating_sub(self.time_of(units)))
    }

    /// The units that a bucket with that debt holds.
    #[inline]
    pub(crate) const fn left(self, debt: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "at most the burst, which is a u32")]
        let units = (self.refill().saturating_sub(debt) / self.interval) as u32;
        units
    }

    /// The time in which `units` come back, in nanoseconds.
    #[inline]
    pub(crate) const fn time_of(self, units: u32) -> u64 {
        self.interval.saturating_mul(units as u64)
    }

    /// The rate for a store that counts microseconds: the interval is a whole number of them,
    /// rounded **up**.
    pub(crate) const fn in_whole_micros(self) -> Self {
        Self { interval: self.interval.div_ceil(1000) * 1000, ..self }
    }

    /// One replica's share when `replicas` of them can't count together: an interval that is
    /// `replicas` times as long, and one `replicas`th of the burst, rounded down but at least 1.
    ///
    /// The interval is at most [`Quota::MAX_REFILL_TIME`].
    pub(crate) fn shared_by(self, replicas: NonZeroU32) -> Self {
        let slowest = Quota::MAX_REFILL_TIME.as_secs() * 1_000_000_000;
        Self {
            // It would be longer only if the burst was rounded up to 1.
            interval: self.interval.saturating_mul(u64::from(replicas.get())).min(slowest),
            burst: share_of_burst(self.burst, replicas),
        }
    }
}

/// One `replicas`th of the burst, rounded down but at least 1.
pub(super) fn share_of_burst(burst: NonZeroU32, replicas: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(burst.get() / replicas).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts units one by one, on a time line of whole intervals.
    struct Counter {
        left: u32,
        burst: u32,
    }

    impl Counter {
        fn charge(&mut self) -> bool {
            let has = self.left > 0;
            self.left -= u32::from(has);
            has
        }

        fn refill(&mut self, intervals: u32) {
            self.left = self.left.saturating_add(intervals).min(self.burst);
        }
    }

    proptest! {
        #[test]
        fn a_debt_says_what_a_counter_of_units_says(
            interval in 1_u64..1_000_000,
            burst in 1_u32..50,
            steps in prop::collection::vec((0_u32..60, 0_u32..8), 1..40),
        ) {
            let rate = Rate::new(interval, NonZeroU32::new(burst).expect("at least 1"));
            let (mut debt, mut counter) = (0, Counter { left: burst, burst });
            for (charges, waits) in steps {
                for _ in 0..charges {
                    prop_assert_eq!(rate.has(debt), counter.left > 0);
                    if counter.charge() {
                        debt += rate.time_of(1);
                    }
                    prop_assert_eq!(rate.left(debt), counter.left);
                    prop_assert!(debt <= rate.refill());
                }
                // After exactly that wait, and no sooner, the bucket holds as many.
                for units in 1..=burst {
                    let wait = rate.until(debt, units);
                    prop_assert!(rate.left(debt.saturating_sub(wait)) >= units);
                    prop_assert!(wait == 0 || rate.left(debt - (wait - 1)) < units);
                }
                counter.refill(waits);
                debt = debt.saturating_sub(rate.time_of(waits));
            }
        }
    }
}
