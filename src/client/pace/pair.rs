//! One limit: what the policy says about it, and what the server reports.

use std::time::Duration;

use super::bucket::{Bucket, nanos};
use super::settings::Settings;
use crate::client::hints::{ReportedQuota, Standing};
use crate::values::{Entry, LimitName, Quota};

const SECOND: u64 = 1_000_000_000;

/// The longest pause that the server can ask for.
pub(super) const LONGEST_PAUSE: u64 = 3600 * SECOND;

/// How long a quota that the server has reported is used, unless the server reports it again.
pub(super) const BELIEF: u64 = 3600 * SECOND;

/// How late a timer may be without slowing down an even pace.
const EVEN_SLACK: Duration = Duration::from_millis(10);

/// The two buckets of a limit. A request takes its cost from both.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: LimitName,
    pub(super) quota: Quota,
    jitter: Duration,
    /// What this client may send by its policy, whatever the server reports.
    own: Bucket,
    /// The server's bucket as far as it is known. Other clients may take units from it too.
    server: Bucket,
    /// The quota that the server last reported, and when.
    told: Option<(ReportedQuota, u64)>,
    /// How often the server has reported another quota than before.
    changes: u64,
    pub(super) paused_until: u64,
    /// The latest time at which the server's bucket is full, by all reports since the last moment
    /// without requests in flight.
    full_by: u64,
    /// How many requests are dispatched and not sent yet.
    pending: u64,
    /// How many requests have been sent and have no response yet.
    in_flight: u64,
}

/// When one more request would be due, by the policy, by the server's bucket and by the pause; and
/// the number of the quota by which the second of these was calculated.
pub(super) type DueTimes = [u64; 4];

impl Pair {
    pub(super) fn new(entry: &Entry, settings: &Settings) -> Self {
        let (quota, jitter) = (entry.quota(), settings.jitter);
        let bucket = Bucket::new(quota, entry.cost(), jitter);
        Self {
            name: entry.name(),
            quota,
            jitter,
            own: bucket,
            server: bucket,
            told: None,
            changes: 0,
            paused_until: 0,
            full_by: 0,
            pending: 0,
            in_flight: 0,
        }
    }

    /// The same limit, with requests spread evenly.
    pub(super) fn even(self) -> Self {
        Self { own: self.own.even(EVEN_SLACK), ..self }
    }

    /// When a request may be dispatched, after `ahead` others.
    pub(super) fn due(&self, ahead: u64) -> u64 {
        self.own.due(ahead).max(self.server.due(ahead)).max(self.paused_until)
    }

    /// When a dispatched request may be sent, after `ahead` others.
    pub(super) fn opens(&self, ahead: u64) -> u64 {
        self.own.opens(ahead).max(self.server.opens(ahead))
    }

    pub(super) fn due_times(&self, ahead: u64) -> DueTimes {
        let (own, server) = (self.own.due(ahead), self.server.due(ahead));
        [own, server, self.paused_until, self.changes]
    }

    pub(super) fn remaining(&self, now: u64) -> u32 {
        self.own.remaining(now).min(self.server.remaining(now))
    }

    /// The time in which a unit comes back, by what the server reports.
    pub(super) fn interval(&self) -> u64 {
        self.server.interval()
    }

    /// A request is dispatched.
    pub(super) fn dispatch(&mut self, now: u64) {
        self.pending += 1;
        self.own.dispatch(now);
        self.server.dispatch(now);
    }

    /// A dispatched request is sent.
    pub(super) fn send(&mut self, now: u64) {
        self.pending -= 1;
        self.in_flight += 1;
        self.own.send(now);
        self.server.send(now);
    }

    /// A request is dispatched and sent at once.
    pub(super) fn pass(&mut self, now: u64) {
        self.dispatch(now);
        self.send(now);
    }

    /// A dispatched request is not sent now.
    pub(super) fn give_back(&mut self) {
        self.pending -= 1;
        self.own.give_back(self.pending);
        self.server.give_back(self.pending);
    }

    /// A dispatched request can't be sent in time: gives its units back, and delays the next
    /// dispatch until that one could be sent.
    pub(super) fn lapse(&mut self) {
        self.give_back();
        self.own.catch_up(self.pending);
        self.server.catch_up(self.pending);
    }

    /// A request that was sent has its response, or will have none.
    pub(super) fn land(&mut self) {
        self.in_flight -= 1;
    }

    /// `full_by` holds only for the requests that were in flight when it was reported.
    pub(super) fn forget_if_idle(&mut self) {
        if self.in_flight == 0 {
            self.full_by = 0;
        }
    }

    /// Drops a quota that the server has not reported for too long.
    pub(super) fn pass_time(&mut self, now: u64) {
        if self.forgets_at().is_some_and(|at| at <= now) {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        self.told = None;
        self.server.forget(&self.own, self.quota, self.jitter);
    }

    /// When the quota is dropped that the server has reported.
    pub(super) fn forgets_at(&self) -> Option<u64> {
        self.told.map(|(_, at)| at.saturating_add(BELIEF))
    }

    /// A response reports about this limit.
    pub(super) fn take_report(&mut self, standing: &Standing, sent_at: u64, now: u64) {
        // What was said before a pause does not end it.
        let lower = sent_at >= self.paused_until;
        let mut is_news = false;
        if let Some(quota) = standing.quota {
            let is_known = self.told.is_some_and(|(told, _)| told == quota);
            self.told = Some((quota, now));
            if !is_known {
                let (burst, window) = quota;
                is_news = self.server.adopt(burst, window, self.quota, self.jitter, LONGEST_PAUSE);
            }
        }
        // The server decided at some time between these two.
        let earliest = self.server.full_later_than(sent_at, standing.remaining);
        let latest = self.server.full_by(now, standing.remaining);
        if is_news {
            // Earlier reports were about a bucket with another quota.
            self.changes += 1;
            self.full_by = latest;
            self.server.believe(latest, self.in_flight, self.pending);
        } else {
            self.full_by = self.full_by.max(latest);
            self.server.correct(earliest, self.full_by, self.in_flight, self.pending, lower);
        }
        // Whatever it reports, a request is sent in the end: only its response can correct the
        // report.
        let latest = now.saturating_add(LONGEST_PAUSE).max(self.own.due(0));
        self.server.due_by(latest);
        if let Some(exhausted) = standing.exhausted {
            self.wait_for(exhausted, now);
        }
    }

    /// A limit is exhausted for that time: this one, or one that is not known.
    pub(super) fn wait_for(&mut self, exhausted: Duration, now: u64) {
        let exhausted = nanos(exhausted);
        // A bucket that refills unit by unit reports when the next unit is back, which is no
        // reason to pause; a window that starts anew reports when it does.
        if exhausted > self.interval().div_ceil(SECOND).saturating_mul(SECOND) {
            self.pause_until(now.saturating_add(exhausted.min(LONGEST_PAUSE)));
        }
    }

    /// No request is sent before that time, dispatched ones included. After it, requests are sent
    /// one by one until a response reports that more units are left.
    pub(super) fn pause_until(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
        self.server.empty_until(self.paused_until, self.pending);
    }
}
