//! A bucket as the one who draws on it sees it. Times are nanoseconds since the pacer's origin.

use std::time::Duration;

use crate::quota::Quota;

const SECOND: u64 = 1_000_000_000;

/// GCRA, seen from the sender, who lets requests go before they are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When the bucket is full again, by what has been sent and by what the server has said: a
    /// request moves it on by one interval.
    full_at: u64,
    /// The same with those that have been let go and are not sent yet.
    planned: u64,
    interval: u64,
    /// How far ahead of the time the bucket may be full when a unit is taken.
    tolerance: u64,
    /// The part of the burst that is held back, as a time.
    jitter: u64,
}

impl Bucket {
    /// A full one.
    ///
    /// Requests that are sent a unit's time apart can arrive closer together than that: those that
    /// go later than `jitter` are still admitted. It is a part of the burst, at most half of
    /// it.
    pub(super) fn new(quota: Quota, jitter: Duration) -> Self {
        let mut bucket = Self { full_at: 0, planned: 0, interval: 0, tolerance: 0, jitter: 0 };
        bucket.set(interval(quota), quota.burst(), jitter);
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

    /// Goes by the quota that a server tells, of which the interval is known to a second divided by
    /// the burst only: where that of the `policy` is such an interval, it is the one. No
    /// interval is longer than `longest`, but the policy's. Says whether that is another quota
    /// than before.
    pub(super) fn adopt(
        &mut self,
        burst: u32,
        window: Option<Duration>,
        policy: Quota,
        jitter: Duration,
        longest: u64,
    ) -> bool {
        let (old_interval, old_tolerance) = (self.interval, self.tolerance);
        let exact = interval(policy);
        let told = window.map_or(exact, |window| {
            let (window, burst) = (nanos(window), u64::from(burst));
            let slowest = window.div_ceil(burst).max(1);
            let fits = window.saturating_sub(SECOND) / burst < exact
                && exact <= slowest.saturating_add(1_000);
            if fits { exact } else { slowest }
        });
        self.set(told.min(longest.max(exact)), burst, jitter);
        (old_interval, old_tolerance) != (self.interval, self.tolerance)
    }

    /// Goes by the policy's quota again, and by what the client has sent itself.
    pub(super) fn forget(&mut self, own: &Self, policy: Quota, jitter: Duration) {
        *self = Self { full_at: own.full_at, planned: own.planned, ..Self::new(policy, jitter) };
    }

    /// When a request can be let go, after `ahead` others.
    pub(super) fn due(&self, ahead: u64) -> u64 {
        self.planned.saturating_add(self.units(ahead)).saturating_sub(self.tolerance)
    }

    /// When a request may be sent that has been let go, after `ahead` others. Those that were held
    /// up on their way may not go all at once.
    pub(super) fn opens(&self, ahead: u64) -> u64 {
        self.full_at.saturating_add(self.units(ahead)).saturating_sub(self.tolerance)
    }

    /// The units that can be taken at once.
    pub(super) fn remaining(&self, now: u64) -> u32 {
        let debt = self.planned.saturating_sub(now);
        let units = self.tolerance.checked_sub(debt).map_or(0, |left| left / self.interval + 1);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// A request is let go.
    pub(super) fn let_go(&mut self, now: u64) {
        self.planned = self.planned.max(now).saturating_add(self.interval);
    }

    /// A request is sent that has been let go.
    pub(super) fn send(&mut self, now: u64) {
        self.full_at = self.full_at.max(now).saturating_add(self.interval);
    }

    /// A request that was let go is not sent now. Gives its unit back, as far as time has not given
    /// it back already, while `pending` others are still on their way.
    pub(super) fn give_back(&mut self, pending: u64) {
        let sent = self.full_at.saturating_add(self.units(pending));
        self.planned = self.planned.saturating_sub(self.interval).max(sent).min(self.planned);
    }

    /// Lets nobody else go before one could be sent, after `pending` others.
    pub(super) fn catch_up(&mut self, pending: u64) {
        self.planned = self.planned.max(self.full_at.saturating_add(self.units(pending)));
    }

    /// Has one unit at that time, and no more, and `pending` others are on their way.
    pub(super) fn empty_until(&mut self, until: u64, pending: u64) {
        self.full_at = until.saturating_add(self.tolerance);
        self.planned = self.full_at.saturating_add(self.units(pending));
    }

    /// When a bucket is full that had so many whole units at that time: later than this ...
    pub(super) fn full_later_than(&self, at: u64, remaining: u32) -> u64 {
        at.saturating_add(self.tolerance + self.jitter).saturating_sub(self.units(remaining.into()))
    }

    /// ... and one unit later at the latest.
    pub(super) fn full_by(&self, at: u64, remaining: u32) -> u64 {
        self.full_later_than(at, remaining).saturating_add(self.interval)
    }

    /// Takes the server's word, by which the bucket is full between two times: `latest` without the
    /// requests in flight, which it may not have counted. `lower` says whether it may come to
    /// more units than were believed to be there.
    pub(super) fn correct(
        &mut self,
        earliest: u64,
        latest: u64,
        in_flight: u64,
        pending: u64,
        lower: bool,
    ) {
        let latest = latest.saturating_add(self.units(in_flight));
        if earliest > self.full_at.saturating_add(self.jitter) {
            // Somebody else draws on it, and will go on to.
            self.full_at = latest;
            self.catch_up(pending);
        } else if earliest > self.full_at {
            self.planned = self.planned.saturating_add(earliest - self.full_at);
            self.full_at = earliest;
        } else if lower && self.full_at > latest {
            self.planned = self.planned.saturating_sub(self.full_at - latest);
            self.full_at = latest;
        }
    }

    /// Takes the server's word at its least favourable.
    pub(super) fn believe(&mut self, latest: u64, in_flight: u64, pending: u64) {
        self.full_at = latest.saturating_add(self.units(in_flight));
        self.planned = self.full_at.saturating_add(self.units(pending));
    }

    /// Has a unit at that time at the latest.
    pub(super) fn due_by(&mut self, latest: u64) {
        let latest = latest.saturating_add(self.tolerance);
        self.full_at = self.full_at.min(latest);
        self.planned = self.planned.min(latest);
    }

    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    fn units(&self, units: u64) -> u64 {
        self.interval.saturating_mul(units)
    }
}

/// A server may count in whole microseconds.
fn interval(quota: Quota) -> u64 {
    quota.in_whole_micros().interval_nanos()
}

pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(SECOND).saturating_add(duration.subsec_nanos().into())
}
