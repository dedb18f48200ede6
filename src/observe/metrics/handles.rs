//! The counters of the recorder, each of which is registered once.

use std::sync::OnceLock;

use metrics::{Counter, Histogram, Label, counter, histogram};

use super::names;
use super::waits::Waits;
use crate::observe::Observation;
use crate::values::{Endpoint, Outcome, Ruling};

/// The number of endpoints whose counters share one allocation.
const CHUNK: usize = 64;

/// The counters of every endpoint that a process can have. They are found by the endpoint's number:
/// hashing labels for each request would take longer than the decision.
pub(super) struct Handles {
    labels: Vec<Label>,
    chunks: Box<[OnceLock<Box<[Series; CHUNK]>>]>,
    unidentified: Series,
    wait: OnceLock<Histogram>,
    waits: Waits,
}

/// The counters of one endpoint.
struct Series {
    /// By outcome and mode.
    decisions: [[OnceLock<Counter>; 2]; OUTCOMES],
    /// By the candidate's outcome and that of the active policy.
    candidate: [[OnceLock<Counter>; OUTCOMES]; 2],
}

const OUTCOMES: usize = 5;

impl Handles {
    pub(super) fn new(labels: Vec<Label>) -> Self {
        let chunks = (0..Endpoint::MAX / CHUNK).map(|_| OnceLock::new()).collect();
        let (wait, waits) = (OnceLock::new(), Waits::new());
        Self { labels, chunks, unidentified: Series::new(), wait, waits }
    }

    /// The labels that all metrics have, and `more`.
    pub(super) fn labels(&self, more: &[(&'static str, &'static str)]) -> Vec<Label> {
        let more = more.iter().map(|(name, value)| Label::from_static_parts(name, value));
        self.labels.iter().cloned().chain(more).collect()
    }

    #[inline]
    pub(super) fn count(&self, observation: &Observation<'_>) {
        let ruling = observation.ruling;
        let decisions = &self.series(ruling.endpoint()).decisions[place(ruling.outcome())];
        let counter = &decisions[usize::from(!ruling.is_enforced())];
        counter.get_or_init(|| self.decisions(ruling)).increment(1);
        if ruling.candidate().is_some()
            || observation.waited.is_some()
            || observation.error.is_some()
        {
            self.count_more(observation);
        }
    }

    /// Brings the counters of waits up to date.
    pub(super) fn publish_waits(&self) {
        self.waits.publish(|le| self.labels(&[("le", le)]));
    }

    #[inline(never)]
    fn count_more(&self, observation: &Observation<'_>) {
        let outcome = observation.ruling.outcome();
        if let Some(decision) = observation.ruling.candidate() {
            let allowed = decision.is_allowed();
            let series = self.series(Some(decision.endpoint()));
            let counter = &series.candidate[usize::from(!allowed)][place(outcome)];
            let candidate = || {
                let says = if allowed { "allowed" } else { "limited" };
                let endpoint = ("endpoint", decision.endpoint().name());
                let labels = [endpoint, ("outcome", says), ("enforced", outcome.name())];
                counter!(names::CANDIDATE_DECISIONS, self.labels(&labels))
            };
            counter.get_or_init(candidate).increment(1);
        }
        if let Some(error) = observation.error {
            counter!(names::FAILURES, self.labels(&[("kind", error.kind())])).increment(1);
        }
        if let Some(waited) = observation.waited {
            let wait = || histogram!(names::STORE_WAIT, self.labels.clone());
            self.wait.get_or_init(wait).record(waited);
            self.waits.count(waited);
        }
    }

    #[inline]
    fn series(&self, endpoint: Option<Endpoint>) -> &Series {
        let Some(endpoint) = endpoint else { return &self.unidentified };
        let number = usize::from(endpoint.number());
        let chunk =
            self.chunks[number / CHUNK].get_or_init(|| Box::new([const { Series::new() }; CHUNK]));
        &chunk[number % CHUNK]
    }

    #[cold]
    fn decisions(&self, ruling: &Ruling) -> Counter {
        // `(none)` is not a valid name of an endpoint.
        let endpoint = ruling.endpoint().map_or("(none)", |endpoint| endpoint.name());
        let mode = if ruling.is_enforced() { "enforced" } else { "shadow" };
        let outcome = ("outcome", ruling.outcome().name());
        let labels = [("endpoint", endpoint), outcome, ("mode", mode)];
        counter!(names::DECISIONS, self.labels(&labels))
    }
}

impl Series {
    const fn new() -> Self {
        Self {
            decisions: [const { [const { OnceLock::new() }; 2] }; OUTCOMES],
            candidate: [const { [const { OnceLock::new() }; OUTCOMES] }; 2],
        }
    }
}

#[inline]
const fn place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Allowed => 0,
        Outcome::Limited => 1,
        Outcome::Unidentified => 2,
        Outcome::StoreFailed => 3,
        Outcome::Blocked => 4,
    }
}
