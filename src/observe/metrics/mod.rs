//! Counting with the `metrics` facade.

mod handles;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Label, counter, gauge};

use super::{Event, Observation, Observer, Report};
use crate::store::StoreReport;

use handles::Handles;

/// Counts what a limiter decides with the [`metrics`](https://docs.rs/metrics) facade, for whatever
/// recorder the process has installed: Prometheus, `StatsD`, OpenTelemetry.
///
/// ```
/// use bolna_rate_limit::Limiter;
/// use bolna_rate_limit::observe::Metrics;
///
/// let limiter = Limiter::default();
/// // After the recorder has been installed.
/// let metrics = Metrics::new();
/// limiter.observe(metrics.clone());
/// // Before each scrape, or every few seconds:
/// metrics.refresh(&limiter.report());
/// ```
///
/// # Names
/// Counted for each request:
///
/// * `bolna_rate_limit_decisions_total`, a counter, by `endpoint` (`(none)` if the request is unidentified),
///   `outcome` (`allowed`, `limited`, `blocked`, `unidentified`, `store_failed`) and `mode`
///   (`enforced`, `shadow`).
/// * `bolna_rate_limit_candidate_decisions_total`, a counter, by `endpoint`, `outcome` (what the candidate says:
///   `allowed`, `limited`) and `enforced` (what the active policy says).
/// * `bolna_rate_limit_store_wait_seconds`, a histogram of the time that a store took, if it did not answer at once.
/// * `bolna_rate_limit_events_total`, a counter of what is not of one request, by `event`.
///
/// Brought up to date by [`refresh`](Self::refresh):
///
/// * `bolna_rate_limit_store_failures_total`, a counter of calls of the store that failed, by `kind`, whether a
///   fallback decided instead or not. Where there is no fallback it is counted at once.
/// * `bolna_rate_limit_fallbacks_total`, a counter of decisions taken in this process because the store could not be
///   asked.
/// * `bolna_rate_limit_breakers` and `bolna_rate_limit_open_breakers`, gauges: how many breakers there are, and how many are open.
/// * `bolna_rate_limit_buckets` and `bolna_rate_limit_max_buckets`, gauges: buckets tracked in this process, and the cap if there is
///   one.
/// * `bolna_rate_limit_remembered_denials`, a gauge: buckets that are refused without asking the store.
/// * `bolna_rate_limit_sweeps_total` and `bolna_rate_limit_dropped_buckets_total`, counters of housekeeping turns, and of the full
///   buckets that they dropped.
/// * `bolna_rate_limit_enforcement_percent`, a gauge: on how many of a hundred principals the limiter enforces
///   limits.
///
/// No label holds an id, so there are as many series as the endpoints ask for, however many
/// customers there are.
///
/// # Cost
/// A request takes one addition to a counter of the recorder, two with a candidate, and an entry in
/// the histogram if it had to wait. The recorder is asked for a counter once, when it first occurs.
/// So it has to be installed before the first request: what is counted before is lost. Only a
/// failure of a store without a fallback asks for its counter each time.
///
/// A [candidate](crate::Limiter::set_candidate) asks the store too, so its checks are among the
/// failures and the fallbacks.
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
    pub fn with_name(name: impl Into<String>) -> Self {
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
    /// It takes some microseconds. The report has to be that of the limiter that this observes.
    pub fn refresh(&self, report: &Report) {
        self.set(names::ENFORCEMENT, usize::from(report.enforcement.as_percent()));
        let report = &report.store;
        self.set(names::BUCKETS, report.buckets);
        if let Some(most) = report.max_buckets {
            self.set(names::MAX_BUCKETS, most);
        }
        self.set(names::REMEMBERED_DENIALS, report.remembered_denials);
        self.set(names::BREAKERS, report.breakers);
        self.set(names::OPEN_BREAKERS, report.open_breakers);
        self.count(report);
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

impl Observer for Metrics {
    #[inline]
    fn on_decision(&self, observation: &Observation<'_>) {
        self.shared.handles.count(observation);
    }

    fn on_event(&self, event: &Event) {
        counter!(names::EVENTS, self.shared.handles.labels(&[("event", event.name())]))
            .increment(1);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
