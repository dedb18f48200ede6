//! One bucket: governor's GCRA around an atomic cell.

use std::cell::Cell as Noted;
use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, RateLimiter, StateStore};

use super::sync::Cell;
use crate::values::{Entry, Rate};

/// The time at which a bucket is full again, in nanoseconds of the store's clock: GCRA's
/// theoretical arrival time (TAT).
#[derive(Default)]
pub(super) struct Tat(Cell);

type Limiter<'a> = RateLimiter<NotKeyed, Watched<'a>, Reading, NoOpMiddleware<Reading>>;

/// A decision that fits in two registers. A larger value would be copied at every return.
#[derive(Clone, Copy)]
pub(super) struct CellOutcome {
    /// Whether the bucket held the cost, and was charged.
    pub(super) charged: bool,
    /// The time in nanoseconds until the bucket was full, before the charge. If it is longer than a
    /// full refill, the bucket has to be corrected.
    pub(super) debt: u64,
}

impl Tat {
    pub(super) fn at(tat: u64) -> Self {
        let new = Self::default();
        new.set(tat);
        new
    }

    /// Charges the cost of the entry, if the bucket holds it.
    ///
    /// The clock is read after the bucket, and again if the bucket has changed in between. To a
    /// thread that was held up with an older reading, units spent by other threads since then seem
    /// to be spent in the future. It would refuse a caller for units that have come back.
    #[inline]
    pub(super) fn charge(&self, entry: &Entry, clock: impl Fn() -> u64) -> CellOutcome {
        loop {
            let seen = self.get();
            let now = clock();
            let (charged, held) = self.decide(entry, now);
            if charged || held == seen {
                return CellOutcome { charged, debt: held.saturating_sub(now) };
            }
        }
    }

    /// Charges by a governor limiter that is made for this request, around its cell, quota and
    /// time. A governor limiter has one quota and a clock of its own, but making one takes only a
    /// few multiplications.
    ///
    /// The second value is the time that the cell held before the charge.
    #[inline]
    fn decide(&self, entry: &Entry, now: u64) -> (bool, u64) {
        let held = Noted::new(0);
        let charged = if entry.cost() == 1 {
            self.limiter(entry.rate(), now, &held).check().is_ok()
        } else {
            self.decide_units(entry, now, &held)
        };
        (charged, held.get())
    }

    /// Apart from the rest, so that the common case stays small.
    #[inline(never)]
    fn decide_units(&self, entry: &Entry, now: u64, held: &Noted<u64>) -> bool {
        let limiter = self.limiter(entry.rate(), now, held);
        // The outer error says that the cost is more than the burst, and no entry's is.
        limiter.check_n(entry.cost_units()).is_ok_and(|within| within.is_ok())
    }

    #[inline]
    fn limiter<'a>(&'a self, rate: Rate, now: u64, held: &'a Noted<u64>) -> Limiter<'a> {
        Limiter::new(governor_quota(rate), Watched { cell: &self.0, held }, Reading(now))
    }

    #[inline]
    pub(super) fn get(&self) -> u64 {
        let read: Result<(), u64> =
            self.0.measure_and_replace(&NotKeyed::NonKey, |at| Err(at.map_or(0, Nanos::as_u64)));
        read.err().unwrap_or_default()
    }

    /// Sets the time. Only while no request can charge the bucket.
    pub(super) fn set(&self, tat: u64) {
        let set = |_| Ok::<_, ()>(((), Nanos::new(tat)));
        // This can't fail, because the closure never does.
        let _ = self.0.measure_and_replace(&NotKeyed::NonKey, set);
    }
}

#[inline]
fn governor_quota(rate: Rate) -> governor::Quota {
    governor::Quota::with_period(Duration::from_nanos(rate.interval()))
        .expect("a rate's interval is at least 1 ns")
        .allow_burst(rate.burst())
}

/// A cell that notes what it held when the decision was made. A response needs this, and governor's
/// verdict does not contain it.
struct Watched<'a> {
    cell: &'a Cell,
    held: &'a Noted<u64>,
}

impl StateStore for Watched<'_> {
    type Key = NotKeyed;

    #[inline]
    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.cell.measure_and_replace(key, |tat| {
            self.held.set(tat.map_or(0, Nanos::as_u64));
            f(tat)
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
