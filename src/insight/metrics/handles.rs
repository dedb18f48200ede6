//! The recorder's counters, each asked for once.

use std::sync::OnceLock;

use metrics::{Counter, Histogram, Label, counter, histogram};

use super::names;
use crate::endpoint::Endpoint;
use crate::insight::{Mode, Observation, Outcome};

/// How many endpoints have their counters in one allocation.
const CHUNK: usize = 64;

/// A place for every endpoint that a process can have. Found by its number, since a hash of labels
/// for each request would take longer than the decision.
pub(super) struct Handles {
    labels: Vec<Label>,
    chunks: Box<[OnceLock<Box<[Series; CHUNK]>>]>,
    nobody: Series,
    wait: OnceLock<Histogram>,
}

/// The counters of one endpoint.
struct Series {
    /// By outcome and mode.
    decisions: [[OnceLock<Counter>; 2]; OUTCOMES],
    /// By the candidate's outcome and the enforced one.
    candidate: [[OnceLock<Counter>; OUTCOMES]; 2],
}

const OUTCOMES: usize = 5;

impl Handles {
    pub(super) fn new(labels: Vec<Label>) -> Self {
        let chunks = (0..Endpoint::MOST / CHUNK).map(|_| OnceLock::new()).collect();
        Self { labels, chunks, nobody: Series::new(), wait: OnceLock::new() }
    }

    /// Those that everything has, and these.
    pub(super) fn labels(&self, more: &[(&'static str, &'static str)]) -> Vec<Label> {
        let more = more.iter().map(|(name, value)| Label::from_static_parts(name, value));
        self.labels.iter().cloned().chain(more).collect()
    }

    #[inline]
    pub(super) fn count(&self, observation: &Observation<'_>) {
        let Observation { endpoint, outcome, mode, .. } = observation;
        let counter =
            &self.series(*endpoint).decisions[place(outcome)][usize::from(*mode == Mode::Shadow)];
        counter.get_or_init(|| self.decisions(*endpoint, outcome, *mode)).increment(1);
        let failed = matches!(outcome, Outcome::StoreFailed(_));
        if observation.candidate.is_some() || observation.waited.is_some() || failed {
            self.count_more(observation);
        }
    }

    #[inline(never)]
    fn count_more(&self, observation: &Observation<'_>) {
        if let Some(decision) = observation.candidate {
            let allowed = decision.is_allowed();
            let series = self.series(Some(decision.endpoint()));
            let counter = &series.candidate[usize::from(!allowed)][place(&observation.outcome)];
            let candidate = || {
                let outcome = if allowed { "allowed" } else { "limited" };
                let endpoint = ("endpoint", decision.endpoint().name());
                let labels = self.labels(&[
                    endpoint,
                    ("outcome", outcome),
                    ("enforced", observation.outcome.name()),
                ]);
                counter!(names::CANDIDATE_DECISIONS, labels)
            };
            counter.get_or_init(candidate).increment(1);
        }
        if let Outcome::StoreFailed(error) = observation.outcome {
            counter!(names::FAILURES, self.labels(&[("kind", error.kind())])).increment(1);
        }
        if let Some(waited) = observation.waited {
            self.wait
                .get_or_init(|| histogram!(names::STORE_WAIT, self.labels.clone()))
                .record(waited);
        }
    }

    #[inline]
    fn series(&self, endpoint: Option<Endpoint>) -> &Series {
        let Some(endpoint) = endpoint else { return &self.nobody };
        let number = usize::from(endpoint.number());
        let chunk =
            self.chunks[number / CHUNK].get_or_init(|| Box::new([const { Series::new() }; CHUNK]));
        &chunk[number % CHUNK]
    }

    #[cold]
    fn decisions(&self, endpoint: Option<Endpoint>, outcome: &Outcome<'_>, mode: Mode) -> Counter {
        // Not a name that an endpoint can have.
        let endpoint = endpoint.map_or("(none)", |endpoint| endpoint.name());
        let labels = self.labels(&[
            ("endpoint", endpoint),
            ("outcome", outcome.name()),
            ("mode", mode.name()),
        ]);
        counter!(names::DECISIONS, labels)
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
const fn place(outcome: &Outcome<'_>) -> usize {
    match outcome {
        Outcome::Allowed(_) => 0,
        Outcome::Limited(_) => 1,
        Outcome::Unidentified => 2,
        Outcome::StoreFailed(_) => 3,
        Outcome::Blocked(_) => 4,
    }
}
