//! Counting with the `metrics` facade.

mod handles;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Label, counter, gauge};

use super::{Event, Observation, Observe};
use crate::limiter::Limiter;
use crate::store::{Store, StoreReport};

use handles::Handles;

/// Counts what a limiter decides with the [`metrics`](https://docs.rs/metrics) facade, for whatever recorder the process has
/// installed: Prometheus, `StatsD`, OpenTelemetry.
///
/// ```
/// use bolna_rate_limit::BolnaRateLimitLayer;
/// use bolna_rate_limit::insight::Metrics;
///
/// // After the recorder has been installed.
/// let metrics = Metrics::new();
/// let layer = BolnaRateLimitLayer::new().observe(metrics.clone());
/// // Before each scrape, or every few seconds:
/// metrics.refresh(layer.limiter());
/// ```
///
/// # Names
/// | counted for each request | | labels |
/// |---|---|---|
/// | `bolna_rate_limit_decisions_total` | counter | `endpoint` (`(none)` when nobody is identified), `outcome` (`allowed`, `limited`, `blocked`, `unidentified`, `store_failed`), `mode` (`enforced`, `shadow`) |
/// | `bolna_rate_limit_candidate_decisions_total` | counter | `endpoint`, `outcome` (what the candidate says: `allowed`, `limited`), `enforced` (what the policy in force says) |
/// | `bolna_rate_limit_store_wait_seconds` | histogram of the time that a store took, if it did not answer at once | |
/// | `bolna_rate_limit_events_total` | counter of what is not of one request | `event` |
///
/// | brought up to date by [`refresh`](Self::refresh) | | labels |
/// |---|---|---|
/// | `bolna_rate_limit_store_failures_total` | counter of calls of the store that failed, whoever decided instead (at once where nothing did) | `kind` |
/// | `bolna_rate_limit_fallbacks_total` | counter of decisions taken in this process because the store could not be asked | |
/// | `bolna_rate_limit_breakers`, `bolna_rate_limit_open_breakers` | gauges: how many breakers there are, and are open | |
/// | `bolna_rate_limit_buckets`, `bolna_rate_limit_max_buckets` | gauges: buckets tracked in this process, and the cap if there is one | |
/// | `bolna_rate_limit_remembered_denials` | gauge: buckets that are refused without asking the store | |
/// | `bolna_rate_limit_sweeps_total`, `bolna_rate_limit_dropped_buckets_total` | counters: housekeeping turns, and full buckets that they dropped | |
/// | `bolna_rate_limit_enforcement_percent` | gauge: on how many of a hundred principals the limiter enforces limits | |
///
/// No label has an id in it, so there are as many series as endpoints ask for, however many
/// customers.
///
/// # Cost
/// A request takes one addition to a counter of the recorder, two with a candidate, and an entry in
/// the histogram if it had to wait; the recorder is asked for a counter once, when it first occurs,
/// so it has to be there before the first request: what is counted before is lost. Only a failure
/// of the store that nothing else has answered asks for its counter each time.
///
/// A [candidate](Limiter::set_candidate) asks the store too, so its checks are among the failures
/// and the fallbacks.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    handles: Handles,
    /// What was last reported, to count what has come since.
    reported: Mutex<Reported>,
}

/// What a report counts from the store's beginning.
#[derive(Default)]
struct Reported {
    fallbacks: u64,
    sweeps: u64,
    dropped: u64,
    failures: BTreeMap<&'static str, u64>,
}

impl Metrics {
    /// Counts without further labels. Describes the metrics to the recorder that is installed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_labels(Vec::new())
    }

    /// Counts with a label `limiter` of that name on everything, for a process that has more than
    /// one.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self::with_labels(vec![Label::new("limiter", name.into())])
    }

    fn with_labels(labels: Vec<Label>) -> Self {
        names::describe();
        let handles = Handles::new(labels);
        // From 0 on: Prometheus takes the first value of a counter for no increase, and of most
        // events there is only one.
        for name in Event::NAMES {
            counter!(names::EVENTS, handles.labels(&[("event", name)])).increment(0);
        }
        Self { shared: Arc::new(Shared { handles, reported: Mutex::default() }) }
    }

    /// Brings those metrics up to date that are not counted for each request: the store's, and the
    /// enforcement.
    ///
    /// It takes some microseconds, and the limiter has to be the one that this observes.
    pub fn refresh<St: Store>(&self, limiter: &Limiter<St>) {
        self.set(names::ENFORCEMENT, usize::from(limiter.enforcement().as_percent()));
        let report = limiter.store().report();
        self.set(names::BUCKETS, report.buckets);
        if let Some(most) = report.max_buckets {
            self.set(names::MAX_BUCKETS, most);
        }
        self.set(names::REMEMBERED_DENIALS, report.remembered_denials);
        self.set(names::BREAKERS, report.breakers);
        self.set(names::OPEN_BREAKERS, report.open_breakers);
        self.count(&report);
    }

    fn set(&self, name: &'static str, value: usize) {
        // Exact up to 2^53.
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
        gauge!(name, self.shared.handles.labels(&[])).set(value as f64);
    }

    fn count(&self, report: &StoreReport) {
        let mut reported = self.shared.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let add = |name: &'static str, labels: Vec<Label>, before: &mut u64, now: u64| {
            counter!(name, labels).increment(now.saturating_sub(*before));
            // Another thread's report may be newer, and counted already.
            *before = now.max(*before);
        };
        let labels = || self.shared.handles.labels(&[]);
        add(names::FALLBACKS, labels(), &mut reported.fallbacks, report.fallbacks);
        add(names::SWEEPS, labels(), &mut reported.sweeps, report.sweeps);
        add(names::DROPPED, labels(), &mut reported.dropped, report.dropped);
        for (kind, failures) in &report.failures {
            let labels = self.shared.handles.labels(&[("kind", kind)]);
            add(names::FAILURES, labels, reported.failures.entry(kind).or_default(), *failures);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Observe for Metrics {
    #[inline]
    fn decided(&self, observation: &Observation<'_>) {
        self.shared.handles.count(observation);
    }

    fn happened(&self, event: &Event) {
        counter!(names::EVENTS, self.shared.handles.labels(&[("event", event.name())]))
            .increment(1);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
