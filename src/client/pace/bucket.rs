//! A bucket as the one who draws on it sees it. Times are nanoseconds since the pacer's origin.

use std::time::Duration;

use crate::quota::Quota;

const SECOND: u64 = 1_000_000_000;

/// GCRA, seen from the sender: the time at which the bucket is full again, which a request moves on by one interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at: u64,
    /// The same by those requests alone that have been sent: units that are given back never come to more than that.
    sent_full_at: u64,
    interval: u64,
    /// How far ahead of the time `full_at` may be when a unit is taken.
    tolerance: u64,
    /// The part of the burst that is held back, as a time.
    jitter: u64,
}

impl Bucket {
    /// A full one.
    ///
    /// Requests that are sent a unit's time apart can arrive closer together than that: those that go later than `jitter` are
    /// still admitted. It is a part of the burst, at most half of it.
    pub(super) fn new(quota: Quota, jitter: Duration) -> Self {
        // The server may count in whole microseconds.
        let quota = quota.in_whole_micros();
        let mut bucket =
            Self { full_at: 0, sent_full_at: 0, interval: quota.interval_nanos(), tolerance: 0, jitter: 0 };
        bucket.set(quota.interval_nanos(), quota.burst(), jitter);
        bucket
    }

    /// The same with no more than that of a burst.
    pub(super) fn even(self, slack: Duration) -> Self {
        Self { tolerance: self.tolerance.min(nanos(slack)), ..self }
    }

    fn set(&mut self, interval: u64, burst: u32, jitter: Duration) {
        let whole = interval.saturating_mul(u64::from(burst) - 1);
        self.interval = interval;
        self.jitter = nanos(jitter).min(whole / 2);
        self.tolerance = whole - self.jitter;
    }

    /// Goes by the quota that a server tells, of which the interval is known to a second divided by the burst only: where
    /// `exact` is such an interval, it is the one. Says whether that is another quota than before.
    pub(super) fn adopt(&mut self, burst: u32, window: Option<Duration>, exact: Quota, jitter: Duration) -> bool {
        let (old_interval, old_tolerance) = (self.interval, self.tolerance);
        let exact = exact.in_whole_micros().interval_nanos();
        let interval = window.map_or(exact, |window| {
            let (window, burst) = (nanos(window), u64::from(burst));
            let slowest = window.div_ceil(burst).max(1);
            let fits = window.saturating_sub(SECOND) / burst < exact && exact <= slowest.saturating_add(1_000);
            if fits { exact } else { slowest }
        });
        self.set(interval, burst, jitter);
        (old_interval, old_tolerance) != (self.interval, self.tolerance)
    }

    /// When a unit can be taken, after `ahead` others.
    pub(super) fn due(&self, ahead: u64) -> u64 {
        self.full_at.saturating_add(self.units(ahead)).saturating_sub(self.tolerance)
    }

    /// The units that can be taken at once.
    pub(super) fn remaining(&self, now: u64) -> u32 {
        let debt = self.full_at.saturating_sub(now);
        let units = self.tolerance.checked_sub(debt).map_or(0, |left| left / self.interval + 1);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Takes a unit for a request that will be sent.
    pub(super) fn take(&mut self, now: u64) {
        self.full_at = self.full_at.max(now).saturating_add(self.interval);
    }

    /// The first of `pending` requests that units have been taken for is sent only now: had the bucket been full, the server's
    /// still is.
    pub(super) fn send(&mut self, now: u64, pending: u64) {
        self.full_at = self.full_at.max(now.saturating_add(self.units(pending)));
        self.sent_full_at = self.sent_full_at.max(now).saturating_add(self.interval);
    }

    /// Gives a unit back that a request did not use which was let go, as `pending` others have been. If the bucket has been full
    /// since, time has given it back already.
    pub(super) fn give_back(&mut self, pending: u64) {
        let sent = self.sent_full_at.saturating_add(self.units(pending));
        self.full_at = self.full_at.saturating_sub(self.interval).max(sent).min(self.full_at);
    }

    /// Gives the unit of a request back that was refused.
    pub(super) fn was_refused(&mut self) {
        self.full_at = self.full_at.saturating_sub(self.interval);
        self.sent_full_at = self.sent_full_at.saturating_sub(self.interval);
    }

    /// Has one unit at that time, and no more, for `pending` requests that have taken one already.
    pub(super) fn empty_until(&mut self, until: u64, pending: u64) {
        self.full_at = until.saturating_add(self.tolerance).saturating_add(self.units(pending));
    }

    /// When a bucket is full that had so many whole units at that time: later than this ...
    pub(super) fn full_later_than(&self, at: u64, remaining: u32) -> u64 {
        at.saturating_add(self.tolerance + self.jitter).saturating_sub(self.units(remaining.into()))
    }

    /// ... and one unit later at the latest.
    pub(super) fn full_by(&self, at: u64, remaining: u32) -> u64 {
        self.full_later_than(at, remaining).saturating_add(self.interval)
    }

    /// Takes the server's word, by which the bucket is full between two times: `latest` with `pending` requests that it may not
    /// have counted. `lower` says whether it may come to more units than were believed to be there.
    pub(super) fn correct(&mut self, earliest: u64, latest: u64, pending: u64, lower: bool) {
        if earliest > self.full_at.saturating_add(self.jitter) {
            // Somebody else draws on it, and will go on to.
            self.believe(latest, pending);
        } else {
            self.full_at = self.full_at.max(earliest);
            if lower {
                self.full_at = self.full_at.min(latest.saturating_add(self.units(pending)));
            }
        }
    }

    /// Takes the server's word at its least favourable.
    pub(super) fn believe(&mut self, latest: u64, pending: u64) {
        self.full_at = latest.saturating_add(self.units(pending));
    }

    /// Has a unit at that time at the latest.
    pub(super) fn due_by(&mut self, latest: u64) {
        self.full_at = self.full_at.min(latest.saturating_add(self.tolerance));
    }

    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    fn units(&self, units: u64) -> u64 {
        self.interval.saturating_mul(units)
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(SECOND).saturating_add(duration.subsec_nanos().into())
}
