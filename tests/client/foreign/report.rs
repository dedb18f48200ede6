//! What a job cost.

use std::fmt;
use std::time::Duration;

use super::jobs::{Called, Job, Outcome};
use super::least::{ratio, seconds, shown};
use super::servers::Got;
use super::{Nanos, nanos};

#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) calls: usize,
    pub(super) sent: usize,
    pub(super) admitted: usize,
    /// Calls that got a 429.
    pub(super) handed_back: usize,
    /// Calls that got a `WaitError`.
    pub(super) not_sent: usize,
    /// Calls that got another error.
    pub(super) failed: usize,
    /// Calls that had no answer when the job was given up.
    pub(super) unanswered: usize,
    pub(super) took: Nanos,
    pub(super) least: Nanos,
    /// The longest mean wait of a client over the shortest, in thousandths.
    pub(super) unfairness: u64,
    /// The longest time in which a client that had work was admitted nothing.
    pub(super) idle: Nanos,
    /// How often the futures of the calls were polled.
    pub(super) polls: u64,
    /// How often the runtime went to sleep: at how many times something ran.
    pub(super) parks: u64,
    /// How long the longest call took.
    pub(super) longest: Nanos,
    /// How long the shortest call took that got a 429.
    pub(super) handed_back_after: Option<Nanos>,
    /// By how much a client has come earlier than its policy allows.
    pub(super) too_early: Nanos,
}

impl Report {
    pub(super) fn new(
        job: &Job,
        called: &[Called],
        got: &[Got],
        took: Nanos,
        least: Nanos,
        [polls, parks]: [u64; 2],
    ) -> Self {
        let count = |outcome| called.iter().filter(|call| call.outcome == outcome).count();
        let admitted = got.iter().filter(|got| got.is_admitted).count();
        let clients = || 0..job.clients;
        let means: Vec<_> = clients().filter_map(|client| mean(called, client)).collect();
        let (longest, shortest) = (means.iter().max(), means.iter().min());
        Self {
            calls: job.calls,
            sent: got.len(),
            admitted,
            handed_back: count(Outcome::HandedBack),
            not_sent: count(Outcome::NotSent),
            failed: count(Outcome::Failed),
            unanswered: job.calls - called.len(),
            took,
            least,
            unfairness: ratio(*longest.unwrap_or(&0), *shortest.unwrap_or(&0)),
            idle: clients().map(|client| idle(got, client)).max().unwrap_or(0),
            polls,
            parks,
            longest: called.iter().map(|call| call.took).max().unwrap_or(0),
            handed_back_after: called
                .iter()
                .filter(|call| call.outcome == Outcome::HandedBack)
                .map(|call| call.took)
                .min(),
            too_early: clients()
                .map(|client| too_early(job.policy, got, client))
                .max()
                .unwrap_or(0),
        }
    }

    /// Calls that were not admitted.
    pub(super) fn lost(&self) -> usize {
        self.handed_back + self.not_sent + self.failed + self.unanswered
    }

    /// Requests that were sent for each that was admitted, in thousandths.
    pub(super) fn per_call(&self) -> u64 {
        ratio(self.sent as u64, self.admitted as u64)
    }

    /// The time over the least, in thousandths.
    pub(super) fn over_least(&self) -> u64 {
        ratio(self.took, self.least)
    }

    pub(super) fn header() -> String {
        format!(
            "{:>6} {:>8} {:>9} {:>7} {:>5} {:>5} {:>6} {:>8} {:>9} {:>6} {:>6}",
            "calls",
            "per call",
            "least s",
            "time",
            "429",
            "wait",
            "other",
            "unfair",
            "idle s",
            "polls",
            "parks",
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = self.sent as u64;
        write!(
            f,
            "{:>6} {:>8} {:>9} {:>7} {:>5} {:>5} {:>6} {:>8} {:>9} {:>6} {:>6}",
            self.calls,
            shown(self.per_call()),
            seconds(self.least),
            shown(self.over_least()),
            self.handed_back,
            self.not_sent,
            self.failed + self.unanswered,
            shown(self.unfairness),
            seconds(self.idle),
            shown(ratio(self.polls, sent)),
            shown(ratio(self.parks, sent)),
        )
    }
}

/// The mean wait of a client's calls.
fn mean(called: &[Called], client: usize) -> Option<Nanos> {
    let mut count = 0;
    let waits = called.iter().filter(|call| call.client == client);
    let sum: u128 = waits.inspect(|_| count += 1).map(|call| u128::from(call.took)).sum();
    Some(sum.checked_div(count)?.try_into().expect("a mean is not longer than the longest"))
}

/// The longest time between two admissions of a client, from the start to its last one.
fn idle(got: &[Got], client: usize) -> Nanos {
    let mut last = 0;
    let mut longest = 0;
    for got in got.iter().filter(|got| got.client == client && got.is_admitted) {
        longest = longest.max(got.at - last);
        last = got.at;
    }
    longest
}

/// By how much a request was sent earlier than the policy allows: an independent model, of a bucket
/// that is full at a certain time, which each request moves on.
fn too_early((requests, period, burst): (u32, Duration, u32), got: &[Got], client: usize) -> Nanos {
    let interval = nanos(period).div_ceil(requests.into());
    let tolerance = interval * u64::from(burst - 1);
    let mut sent: Vec<_> =
        got.iter().filter(|got| got.client == client).map(|got| got.sent_at).collect();
    sent.sort_unstable();
    let (mut full_at, mut most): (Nanos, Nanos) = (0, 0);
    for at in sent {
        most = most.max(full_at.saturating_sub(at + tolerance));
        full_at = full_at.max(at) + interval;
    }
    most
}
