//! One bucket: governor's GCRA around an atomic cell.

use std::cell::Cell;
use std::ops::Add;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, RateLimiter, StateStore};

use crate::quota::Quota;

/// A bucket that owes more than a full refill by this much was filled by another clock or another
/// quota.
const SLACK: u64 = 1_000_000_000;

/// The time at which a bucket is full again, in nanoseconds of the store's clock: GCRA's
/// theoretical arrival time.
#[derive(Default)]
pub(super) struct FullAt(InMemoryState);

/// A decision in two registers: a larger value would be copied from place to place on the way up.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) allowed: bool,
    /// Whether the bucket has been filled up in part, because it owed more than it can.
    pub(super) healed: bool,
    /// In how many nanoseconds the bucket is full again.
    pub(super) debt: u64,
}

impl FullAt {
    /// Charges one unit, if the bucket has it.
    ///
    /// The clock is read after the bucket, and read again when the bucket has changed meanwhile: to
    /// a thread that was held up with an older reading, what others have spent since seems to
    /// lie in the future. It would refuse a caller for units that have come back, or forgive
    /// him what he owes.
    #[inline]
    pub(super) fn charge(&self, quota: &Quota, clock: impl Fn() -> u64) -> Outcome {
        let mut healed = false;
        loop {
            let seen = self.get();
            let now = clock();
            let (outcome, held) = self.decide(quota, now);
            if outcome.allowed || (held == seen && outcome.debt <= quota.refill_nanos() + SLACK) {
                return Outcome { healed, ..outcome };
            }
            if held == seen {
                healed |= self.heal(quota, seen, now);
            }
        }
    }

    /// What [`charge`](Self::charge) would decide, had it been asked now, and what is owed without
    /// it.
    pub(super) fn peek(&self, quota: &Quota, clock: impl FnOnce() -> u64) -> Outcome {
        let (refill, interval) = (quota.refill_nanos(), quota.interval_nanos());
        let full_at = self.get();
        let debt = forgive(full_at.saturating_sub(clock()), refill);
        Outcome { allowed: debt + interval <= refill, healed: false, debt }
    }

    /// Puts off when it is full, never brings it forward. Says when it was full before, if that has
    /// changed.
    pub(super) fn raise(&self, to: u64) -> Option<u64> {
        let later = |full_at: Option<Nanos>| match full_at.map_or(0, Nanos::as_u64) {
            full_at if full_at < to => Ok((full_at, Nanos::new(to))),
            _ => Err(()),
        };
        self.0.measure_and_replace(&NotKeyed::NonKey, later).ok()
    }

    /// Brings forward when it is full by that time, but not to before now. More than a full refill
    /// counts as that first.
    ///
    /// The clock is read after the bucket, as in [`charge`](Self::charge).
    pub(super) fn advance(&self, quota: &Quota, by: u64, clock: impl Fn() -> u64) {
        let sooner = |full_at: Option<Nanos>| {
            let full_at = full_at.map_or(0, Nanos::as_u64);
            let now = clock();
            match full_at.saturating_sub(now).min(quota.refill_nanos()) {
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

    /// A governor limiter has one quota and one table. Its parts are open, though, and making it is
    /// a few multiplications: so one is made for the occasion, around the cell, the quota and
    /// the time of this very request.
    ///
    /// The second value is when the bucket was full before.
    #[inline]
    fn decide(&self, quota: &Quota, now: u64) -> (Outcome, u64) {
        let full_at = Cell::new(0);
        let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Reading>>::new(
            governor_quota(quota),
            Watched { cell: &self.0, full_at: &full_at },
            Reading(now),
        );
        let allowed = limiter.check().is_ok();
        let held = full_at.get();
        let debt = held.saturating_sub(now);
        (
            Outcome {
                allowed,
                healed: false,
                debt: if allowed { debt + quota.interval_nanos() } else { debt },
            },
            held,
        )
    }

    /// Drains a bucket that owes more than it can, if it has not changed since it was seen, and
    /// says whether it has.
    ///
    /// No bucket owes more than a full refill, unless the clock went back or a smaller quota came
    /// into force. Left alone, a change from 10 an hour to 500 a minute would lock a caller out
    /// for hours.
    #[cold]
    fn heal(&self, quota: &Quota, seen: u64, now: u64) -> bool {
        let drained = Nanos::new(now + quota.refill_nanos());
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

/// What a bucket that is full at that time at the least says, if it has no unit.
#[inline]
pub(super) fn denied(full_at: u64, quota: &Quota, now: u64) -> Option<Outcome> {
    let debt = full_at.saturating_sub(now);
    let (refill, interval) = (quota.refill_nanos(), quota.interval_nanos());
    (debt > refill - interval && debt <= refill + SLACK).then_some(Outcome {
        allowed: false,
        healed: false,
        debt,
    })
}

#[inline]
fn governor_quota(quota: &Quota) -> governor::Quota {
    let burst = quota.burst().try_into().expect("a quota's burst is at least 1");
    governor::Quota::with_period(quota.emission_interval())
        .expect("a quota's interval is at least 1 ns")
        .allow_burst(burst)
}

/// The debt that counts. More than a full refill counts as that, but for what two readings of a
/// clock may differ by.
fn forgive(debt: u64, refill: u64) -> u64 {
    if debt > refill + SLACK { refill } else { debt }
}

/// A cell that tells what it held when the decision was taken, since governor's verdicts say less
/// than a response must.
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
/// A governor limiter measures from its own start. Every reading of one store has to measure from
/// the store's origin, so `duration_since` disregards what it is asked to measure from.
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
    use crate::quota::Quota;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_that_has_changed_since_it_was_seen_is_not_drained_by_an_old_reading() {
        let slow = Quota::per_hour(1).build().expect("the quota is valid");
        let fast = Quota::per_minute(500).build().expect("the quota is valid");
        let full_at = FullAt::default();
        assert!(full_at.charge(&slow, || SECOND).allowed);
        let seen = full_at.get();
        // Another thread drains it, at a later time.
        let outcome = full_at.charge(&fast, || 100 * SECOND);
        assert_eq!((outcome.allowed, outcome.healed, full_at.get()), (false, true, 160 * SECOND));
        assert!(!full_at.heal(&fast, seen, SECOND));
        assert_eq!(full_at.get(), 160 * SECOND);
    }
}
