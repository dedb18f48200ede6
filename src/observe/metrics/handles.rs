//! The counters of the recorder, each of which is registered once.

use std::sync::OnceLock;

use metrics::{Counter, Histogram, Label, counter, histogram};

use super::names;
use super::waits::Waits;
use crate::observe::Observation;
use crate::values::{Endpoint, Limit, LimitName, Outcome, Ruling, Scope};

/// The number of names whose counters share one allocation.
const CHUNK: usize = 64;

/// The counters of every name that a process can have. They are found by the name's number:
/// hashing labels for each request would take longer than the decision.
pub(super) struct Handles {
    labels: Vec<Label>,
    chunks: Box<[OnceLock<Box<[Series; CHUNK]>>]>,
    unidentified: Series,
    wait: OnceLock<Histogram>,
    waits: Waits,
}

/// The counters of one endpoint, and of the limit of the same name.
struct Series {
    /// By outcome and mode.
    decisions: [[OnceLock<Counter>; 2]; OUTCOMES],
    /// Those of limits of the same name, by scope, by what they say and by mode.
    limits: [[[OnceLock<Counter>; 2]; SAYS.len()]; SCOPES],
    /// By the candidate's outcome and that of the active policy.
    candidate: [[OnceLock<Counter>; OUTCOMES]; 2],
}

const OUTCOMES: usize = 7;
const SCOPES: usize = 4;

/// What a limit says about a request.
const SAYS: [&str; 3] = ["allowed", "limited", "blocked"];
const ALLOWED: usize = 0;
const LIMITED: usize = 1;
const BLOCKED: usize = 2;

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
        self.count_limits(ruling);
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
        let ruling = observation.ruling;
        let outcome = ruling.outcome();
        if let Some(decisions) = ruling.candidate() {
            let allowed = decisions.all_allow();
            // An endpoint's own limit comes first and has its name.
            let endpoint = decisions.first().name();
            let series = self.series_of(endpoint);
            let counter = &series.candidate[usize::from(!allowed)][place(outcome)];
            let candidate = || {
                let says = if allowed { "allowed" } else { "limited" };
                let endpoint = ("endpoint", endpoint.name());
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

    /// Counts what each limit says.
    #[inline]
    fn count_limits(&self, ruling: &Ruling) {
        for (index, decision) in ruling.decisions().iter().enumerate() {
            let says = match decision {
                it if it.is_allowed() => ALLOWED,
                it if it.is_blocked() => BLOCKED,
                _ => LIMITED,
            };
            let is_enforced = ruling.enforces(index);
            let scope = decision.limit().scope();
            let counters = &self.series_of(decision.name()).limits[scope_place(scope)];
            let counter = &counters[says][usize::from(!is_enforced)];
            counter.get_or_init(|| self.limit(decision.limit(), says, is_enforced)).increment(1);
        }
    }

    #[inline]
    fn series(&self, endpoint: Option<Endpoint>) -> &Series {
        endpoint.map_or(&self.unidentified, |endpoint| self.series_of(endpoint.into()))
    }

    #[inline]
    fn series_of(&self, name: LimitName) -> &Series {
        let number = usize::from(name.number());
        let chunk =
            self.chunks[number / CHUNK].get_or_init(|| Box::new([const { Series::new() }; CHUNK]));
        &chunk[number % CHUNK]
    }

    #[cold]
    fn decisions(&self, ruling: &Ruling) -> Counter {
        // `(none)` is not a valid name of an endpoint.
        let endpoint = ruling.endpoint().map_or("(none)", |endpoint| endpoint.name());
        let counter = |outcome: Outcome| {
            let mode = ("mode", mode(ruling.is_enforced()));
            let labels = [("endpoint", endpoint), ("outcome", outcome.name()), mode];
            counter!(names::DECISIONS, self.labels(&labels))
        };
        // Prometheus does not see an increase in the first value of a counter. So refusals begin
        // with 0 once the endpoint has a request.
        let is_by_address =
            ruling.outcome() == Outcome::Unidentified && !ruling.decisions().is_empty();
        if ruling.outcome() == Outcome::Allowed || is_by_address {
            counter(Outcome::Limited).increment(0);
        }
        counter(ruling.outcome())
    }

    #[cold]
    fn limit(&self, limit: Limit, says: usize, is_enforced: bool) -> Counter {
        let counter = |says: usize| {
            let labels = [
                ("limit", limit.name().name()),
                ("scope", limit.scope().name()),
                ("outcome", SAYS[says]),
                ("mode", mode(is_enforced)),
            ];
            counter!(names::LIMIT_DECISIONS, self.labels(&labels))
        };
        if says == ALLOWED {
            counter(LIMITED).increment(0);
        }
        counter(says)
    }
}

const fn mode(is_enforced: bool) -> &'static str {
    if is_enforced { "enforced" } else { "shadow" }
}

impl Series {
    const fn new() -> Self {
        Self {
            decisions: [const { [const { OnceLock::new() }; 2] }; OUTCOMES],
            limits: [const { [const { [const { OnceLock::new() }; 2] }; SAYS.len()] }; SCOPES],
            candidate: [const { [const { OnceLock::new() }; OUTCOMES] }; 2],
        }
    }
}

const fn scope_place(scope: Scope) -> usize {
    match scope {
        Scope::Account => 0,
        Scope::User => 1,
        Scope::Everyone => 2,
        Scope::Address => 3,
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
        Outcome::TooCostly => 5,
        Outcome::TooAmbiguous => 6,
    }
}
