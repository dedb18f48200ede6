//! One bucket: governor's GCRA around an atomic cell.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, RateLimiter, StateStore};

use crate::values::Rate;

/// If a bucket needs longer than a full refill, by more than this many nanoseconds (1 s), to be
/// full, the clock has gone back or the quota has changed. A smaller difference is one between the
/// clock readings of two threads.
const SLACK: u64 = 1_000_000_000;

/// The time at which a bucket is full again, in nanoseconds of the store's clock: GCRA's
/// theoretical arrival time.
#[derive(Default)]
pub(super) struct FullAt(InMemoryState);

/// A decision that fits in two registers. A larger value would be copied at every return.
#[derive(Clone, Copy)]
pub(super) struct CellOutcome {
    pub(super) allowed: bool,
    /// Whether the bucket's debt was cut to a full refill because it was longer.
    pub(super) healed: bool,
    /// The bucket's debt: the time in nanoseconds until it is full again.
    pub(super) debt: u64,
}

impl FullAt {
    /// Charges one unit, if the bucket has one.
    ///
    /// The clock is read after the bucket, and again if the bucket has changed in between. To a
    /// thread that was held up with an older reading, units spent by other threads since then seem
    /// to be spent in the future. It would refuse a caller for units that have come back, or cut
    /// the debt.
    #[inline]
    pub(super) fn charge(&self, rate: Rate, clock: impl Fn() -> u64) -> CellOutcome {
        let mut healed = false;
        loop {
            let seen = self.get();
            let now = clock();
            let (outcome, held) = self.decide(rate, now);
            if outcome.allowed || (held == seen && rate.is_possible(outcome.debt, SLACK)) {
                return CellOutcome { healed, ..outcome };
            }
            if held == seen {
                healed |= self.heal(rate, seen, now);
            }
        }
    }

    /// What [`charge`](Self::charge) would decide now, and the debt without that charge.
    pub(super) fn peek(&self, rate: Rate, clock: impl FnOnce() -> u64) -> CellOutcome {
        let full_at = self.get();
        let debt = rate.heal(full_at.saturating_sub(clock()), SLACK);
        CellOutcome { allowed: rate.has(debt), healed: false, debt }
    }

    /// Sets the time at which the bucket is full to `to`, if that is later than before. Returns the
    /// time before, if it has changed.
    pub(super) fn raise(&self, to: u64) -> Option<u64> {
        let later = |full_at: Option<Nanos>| match full_at.map_or(0, Nanos::as_u64) {
            full_at if full_at < to => Ok((full_at, Nanos::new(to))),
            _ => Err(()),
        };
        self.0.measure_and_replace(&NotKeyed::NonKey, later).ok()
    }

    /// Makes the bucket full `by` nanoseconds earlier, but not before now. A debt of more than a
    /// full refill is first cut to a full refill.
    ///
    /// The clock is read after the bucket, as in [`charge`](Self::charge).
    pub(super) fn advance(&self, rate: Rate, by: u64, clock: impl Fn() -> u64) {
        let sooner = |full_at: Option<Nanos>| {
            let full_at = full_at.map_or(0, Nanos::as_u64);
            let now = clock();
            match full_at.saturating_sub(now).min(rate.refill()) {
                0 => Err(()),
                debt => Ok(((), Nanos::new(now + debt.saturating_sub(by)))),
            }
        };
        // A full bucket stays as it is.
        let _ = self.0.measure_and_replace(&NotKeyed::NonKey, sooner);
    }

    pub(super) fn owes(&self, now: u64) -> bool {
        self.get() > now
    }

    /// Charges by a governor limiter that is made for this request, around its cell, quota and
    /// time. A governor limiter has one quota and a clock of its own, but making one takes only a
    /// few multiplications.
    ///
    /// The second value is the time at which the bucket was full before the charge.
    #[inline]
    fn decide(&self, rate: Rate, now: u64) -> (CellOutcome, u64) {
        let full_at = Cell::new(0);
        let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Reading>>::new(
            governor_quota(rate),
            Watched { cell: &self.0, full_at: &full_at },
            Reading(now),
        );
        let allowed = limiter.check().is_ok();
        let held = full_at.get();
        let debt = held.saturating_sub(now);
        (
            CellOutcome {
                allowed,
                healed: false,
                debt: if allowed { rate.after(debt, 1) } else { debt },
            },
            held,
        )
    }

    /// Cuts a debt of more than a full refill to a full refill, which leaves the bucket drained.
    /// Does nothing if the bucket has changed since it was `seen`. Returns whether the debt was
    /// cut.
    ///
    /// A debt is longer than a full refill only if the clock went back or a quota with a shorter
    /// refill became active. If it were not cut, a change from 10 an hour to 500 a minute would
    /// lock a caller out for up to an hour.
    #[cold]
    fn heal(&self, rate: Rate, seen: u64, now: u64) -> bool {
        let drained = Nanos::new(now + rate.refill());
        let unless_changed = |full_at: Option<Nanos>| match full_at.map_or(0, Nanos::as_u64) {
            full_at if full_at == seen => Ok(((), drained)),
            _ => Err(()),
        };
        self.0.measure_and_replace(&NotKeyed::NonKey, unless_changed).is_ok()
    }

    #[inline]
    fn get(&self) -> u64 {
        let read: Result<(), u64> =
            self.0.measure_and_replace(&NotKeyed::NonKey, |at| Err(at.map_or(0, Nanos::as_u64)));
        read.err().unwrap_or_default()
    }
}

/// The refusal of a bucket that is full at `full_at` at the earliest, if it has no unit now.
#[inline]
pub(super) fn denied(full_at: u64, rate: Rate, now: u64) -> Option<CellOutcome> {
    let debt = full_at.saturating_sub(now);
    (!rate.has(debt) && rate.is_possible(debt, SLACK)).then_some(CellOutcome {
        allowed: false,
        healed: false,
        debt,
    })
}

#[inline]
fn governor_quota(rate: Rate) -> governor::Quota {
    governor::Quota::with_period(Duration::from_nanos(rate.interval()))
        .expect("a rate's interval is at least 1 ns")
        .allow_burst(rate.burst())
}

/// A cell that records what it held when the decision was made. A response needs this, and
/// governor's verdict does not contain it.
struct Watched<'a> {
    cell: &'a InMemoryState,
    full_at: &'a Cell<u64>,
}

impl StateStore for Watched<'_> {
    type Key = NotKeyed;

    #[inline]
    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.cell.measure_and_replace(key, |full_at| {
            self.full_at.set(full_at.map_or(0, Nanos::as_u64));
            f(full_at)
        })
    }
}

/// An instant of the store's clock, and a clock that always shows it.
///
/// A governor limiter measures time from its own start, but all readings of one store have to be
/// measured from the store's origin. So `duration_since` ignores its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reading(u64);

impl Reference for Reading {
    fn duration_since(&self, _start: Self) -> Nanos {
        Nanos::new(self.0)
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.as_u64()))
    }
}

impl Add<Nanos> for Reading {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Self(self.0.saturating_add(duration.as_u64()))
    }
}

impl Clock for Reading {
    type Instant = Self;

    fn now(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::FullAt;
    use crate::values::Quota;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_that_has_changed_since_it_was_seen_is_not_drained_by_an_old_reading() {
        let slow = Quota::per_hour(1).build().expect("the quota is valid").rate();
        let fast = Quota::per_minute(500).build().expect("the quota is valid").rate();
        let full_at = FullAt::default();
        assert!(full_at.charge(slow, || SECOND).allowed);
        let seen = full_at.get();
        // Another thread drains it, at a later time.
        let outcome = full_at.charge(fast, || 100 * SECOND);
        assert_eq!((outcome.allowed, outcome.healed, full_at.get()), (false, true, 160 * SECOND));
        assert!(!full_at.heal(fast, seen, SECOND));
        assert_eq!(full_at.get(), 160 * SECOND);
    }
}
