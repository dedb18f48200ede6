//! A bucket as the client sees it. Times are nanoseconds since the pacer's origin.

use std::time::Duration;

use crate::values::Quota;

const SECOND: u64 = 1_000_000_000;

/// How late a timer may be without slowing down a pace: tokio's timers have whole milliseconds.
const TIMER_SLACK: u64 = 2_000_000;

/// GCRA on the side of the sender, who dispatches requests before they are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When the bucket is full again, by the requests that were sent and by the server's reports.
    /// Each request adds one step.
    full_at: u64,
    /// The same, with the requests that are dispatched and not sent yet.
    planned: u64,
    /// The time in which a unit comes back.
    interval: u64,
    /// How many units a request costs.
    cost: u64,
    /// The time in which the units of a request come back.
    step: u64,
    /// The time in which all units but one come back.
    whole: u64,
    /// A request may be dispatched if the bucket is full again within this time.
    tolerance: u64,
    /// The part of the burst that is held back, as the time in which it comes back.
    jitter: u64,
}

impl Bucket {
    /// A full bucket.
    ///
    /// Requests that are sent one step apart can arrive closer together. To have them admitted, the
    /// time `jitter` of the burst is held back, at most half of what a request leaves of it.
    pub(super) fn new(quota: Quota, cost: u32, jitter: Duration) -> Self {
        let (full_at, planned, interval, step) = (0, 0, 0, 0);
        let (cost, whole, tolerance) = (cost.into(), 0, 0);
        let mut bucket =
            Self { full_at, planned, interval, cost, step, whole, tolerance, jitter: 0 };
        bucket.set(self::interval(quota), quota.burst(), jitter);
        bucket
    }

    /// A full bucket of requests, of which one comes back in the time `interval`.
    pub(super) fn of_requests(interval: u64) -> Self {
        let (full_at, planned, step) = (0, 0, interval);
        let (cost, whole, tolerance, jitter) = (1, 0, 0, 0);
        Self { full_at, planned, interval, cost, step, whole, tolerance, jitter }
    }

    /// Changes the interval and the burst of a bucket of requests, which keeps its requests.
    pub(super) fn pace(&mut self, now: u64, interval: u64, burst: u64) {
        let before = u128::from(self.interval);
        let rescaled = |full_at: u64| {
            let missing = u128::from(full_at.saturating_sub(now)) * u128::from(interval) / before;
            full_at.min(now).saturating_add(u64::try_from(missing).unwrap_or(u64::MAX))
        };
        (self.full_at, self.planned) = (rescaled(self.full_at), rescaled(self.planned));
        (self.interval, self.step) = (interval, interval);
        self.tolerance = interval.saturating_mul(burst - 1).saturating_add(TIMER_SLACK);
    }

    /// Leaves no units at the time `now`, besides those of `pending` requests that are dispatched.
    pub(super) fn empty_at(&mut self, now: u64, pending: u64) {
        self.full_at = now.saturating_add(self.step).saturating_add(self.tolerance);
        self.planned = self.full_at.saturating_add(self.steps(pending));
    }

    /// The same bucket with a burst of at most `slack` besides one request, as a time.
    pub(super) fn even(self, slack: Duration) -> Self {
        Self { tolerance: self.tolerance.min(nanos(slack)), ..self }
    }

    fn set(&mut self, interval: u64, burst: u32, jitter: Duration) {
        self.interval = interval;
        self.step = interval.saturating_mul(self.cost);
        self.whole = interval.saturating_mul(u64::from(burst) - 1);
        // A cost above the burst, which the server may have reported, waits for a full bucket.
        let spare = self.whole.saturating_sub(self.step - interval);
        self.jitter = nanos(jitter).min(spare / 2);
        self.tolerance = spare - self.jitter;
    }

    /// Adopts the quota that the server reports, and returns whether it is another one than before.
    ///
    /// A window is reported in whole seconds, so the interval is known only to a second divided by
    /// the burst. If the interval of the `policy` fits that, it is used. The interval is at most
    /// `longest`, unless that of the policy is longer.
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

    /// Returns to the quota of the policy, and to the units that this client has spent itself.
    pub(super) fn forget(&mut self, own: &Self, policy: Quota, jitter: Duration) {
        self.set(interval(policy), policy.burst(), jitter);
        self.follow(own);
    }

    /// Returns to the units that this client has spent itself.
    pub(super) fn follow(&mut self, own: &Self) {
        (self.full_at, self.planned) = (own.full_at, own.planned);
    }

    /// Takes the units over that another bucket lacks, as the time in which they come back: at most
    /// that in which all units of this one do.
    pub(super) fn inherit(&mut self, other: &Self, now: u64) {
        let whole = self.whole.saturating_add(self.interval);
        self.full_at = other.full_at.min(now.saturating_add(whole));
    }

    /// So many requests are dispatched and not sent yet.
    pub(super) fn replan(&mut self, pending: u64, now: u64) {
        let begin = if pending == 0 { self.full_at } else { self.full_at.max(now) };
        self.planned = begin.saturating_add(self.steps(pending));
    }

    /// Whether the rate is slower than that of the other bucket of one limit, or the burst smaller.
    pub(super) fn is_stricter_than(&self, other: &Self) -> bool {
        self.interval > other.interval || self.whole < other.whole
    }

    /// When a request may be dispatched, after `ahead` others.
    #[inline]
    pub(super) fn due(&self, ahead: u64) -> u64 {
        self.planned.saturating_add(self.steps(ahead)).saturating_sub(self.tolerance)
    }

    /// When a dispatched request may be sent, after `ahead` others. This keeps requests that were
    /// delayed after their dispatch from being sent all at once.
    #[inline]
    pub(super) fn opens(&self, ahead: u64) -> u64 {
        self.full_at.saturating_add(self.steps(ahead)).saturating_sub(self.tolerance)
    }

    /// How many requests can be dispatched at once.
    pub(super) fn remaining(&self, now: u64) -> u32 {
        let debt = self.planned.saturating_sub(now);
        let requests = self.tolerance.checked_sub(debt).map_or(0, |left| left / self.step + 1);
        u32::try_from(requests).unwrap_or(u32::MAX)
    }

    /// A request is dispatched.
    #[inline]
    pub(super) fn dispatch(&mut self, now: u64) {
        self.planned = self.planned.max(now).saturating_add(self.step);
    }

    /// A dispatched request is sent.
    #[inline]
    pub(super) fn send(&mut self, now: u64) {
        self.full_at = self.full_at.max(now).saturating_add(self.step);
    }

    /// A dispatched request is not sent now: gives its units back, as far as they have not come
    /// back with time already. `pending` others are dispatched and not sent yet.
    pub(super) fn give_back(&mut self, pending: u64) {
        let sent = self.full_at.saturating_add(self.steps(pending));
        self.planned = self.planned.saturating_sub(self.step).max(sent).min(self.planned);
    }

    /// Delays the next dispatch until the request could be sent, after `pending` others.
    pub(super) fn catch_up(&mut self, pending: u64) {
        self.planned = self.planned.max(self.full_at.saturating_add(self.steps(pending)));
    }

    /// Leaves exactly the units of one request at the time `until`, after `pending` others that are
    /// dispatched.
    pub(super) fn empty_until(&mut self, until: u64, pending: u64) {
        self.full_at = until.saturating_add(self.tolerance);
        self.planned = self.full_at.saturating_add(self.steps(pending));
    }

    /// The earliest time at which a bucket is full that had `remaining` whole units at `at` ...
    pub(super) fn full_later_than(&self, at: u64, remaining: u32) -> u64 {
        at.saturating_add(self.whole).saturating_sub(self.interval.saturating_mul(remaining.into()))
    }

    /// ... and the latest, which is one interval later.
    pub(super) fn full_by(&self, at: u64, remaining: u32) -> u64 {
        self.full_later_than(at, remaining).saturating_add(self.interval)
    }

    /// Corrects the bucket by a report of the server, by which it is full between `earliest` and
    /// `latest`. `latest` is without the requests in flight, which the server may not have counted.
    /// With `lower`, the report may also add units.
    pub(super) fn correct(
        &mut self,
        earliest: u64,
        latest: u64,
        in_flight: u64,
        pending: u64,
        lower: bool,
    ) {
        let latest = latest.saturating_add(self.steps(in_flight));
        if earliest > self.full_at.saturating_add(self.jitter) {
            // Another client spends units from the bucket, and will go on to.
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

    /// Takes over a report of the server in its least favourable reading.
    pub(super) fn believe(&mut self, latest: u64, in_flight: u64, pending: u64) {
        self.full_at = latest.saturating_add(self.steps(in_flight));
        self.planned = self.full_at.saturating_add(self.steps(pending));
    }

    /// Makes the units of a request available at the time `latest`, if they would not be there by
    /// then.
    pub(super) fn due_by(&mut self, latest: u64) {
        let latest = latest.saturating_add(self.tolerance);
        self.full_at = self.full_at.min(latest);
        self.planned = self.planned.min(latest);
    }

    /// When the bucket is full again, if no more requests are sent.
    pub(super) fn full_at(&self) -> u64 {
        self.full_at
    }

    /// The time in which a unit comes back.
    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    /// How many units a request costs.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// The time in which the units of a request come back.
    #[inline]
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    #[inline]
    fn steps(&self, requests: u64) -> u64 {
        self.step.saturating_mul(requests)
    }
}

/// The interval of a server that counts in whole microseconds, as some do.
fn interval(quota: Quota) -> u64 {
    quota.rate().in_whole_micros().interval()
}

#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(SECOND).saturating_add(duration.subsec_nanos().into())
}
