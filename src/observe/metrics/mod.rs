//! An observer that counts with the `metrics` facade.

mod handles;
mod names;
mod waits;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Label, counter, gauge};

use super::{Event, Observation, Observer, Report};

use handles::Handles;

/// An observer that counts with the [`metrics`](https://docs.rs/metrics) facade, for the recorder
/// that the process has installed: Prometheus, `StatsD`, OpenTelemetry and others.
///
/// ```
/// use bolna_rate_limit::Limiter;
/// use bolna_rate_limit::observe::Metrics;
///
/// let limiter = Limiter::default();
/// // After the recorder has been installed:
/// let metrics = Metrics::new();
/// limiter.observe(metrics.clone());
/// // Before each scrape, or every few seconds:
/// metrics.refresh(&limiter.report());
/// ```
///
/// # Names
/// All names begin with `bolna_rate_limit_`.
///
/// Counted when a request is decided about:
///
/// * `bolna_rate_limit_decisions_total`, a counter of requests. Labels:
///   * `endpoint`: that of the path as it is written, the
///     [first](crate::Policy::endpoints_of) of several; `(none)` if the request is unidentified
///   * `outcome`: `allowed`, `limited`, `blocked`, `unidentified`, `store_failed`, `too_costly` or
///     `too_ambiguous`
///   * `mode`: `enforced` or `shadow`
/// * `bolna_rate_limit_limit_decisions_total`, a counter of what each limit says. A request that
///   two limits refuse counts at both, so do not add the numbers of several limits; and a request
///   that one limit allows may be refused by another. Labels:
///   * `limit`: the name of the limit
///   * `scope`: `account`, `user`, `everyone` or `address`
///   * `outcome`: `allowed`, `limited` or `blocked`
///   * `mode`: `enforced` or `shadow`
/// * `bolna_rate_limit_candidate_decisions_total`, a counter of the requests for which the
///   [candidate](crate::Limiter::set_candidate) was evaluated. Labels:
///   * `endpoint`: the candidate's
///   * `outcome`: what the candidate says, `allowed` or `limited`
///   * `enforced`: the outcome by the active policy
/// * `bolna_rate_limit_store_wait_seconds`, a histogram of the time that the store took to answer.
///   Answers that were given at once are not in it. For Prometheus, read
///   `bolna_rate_limit_store_waits_total` instead: `metrics-exporter-prometheus` makes a summary of
///   each histogram for which no buckets are set, and summaries of several processes can't be
///   combined.
///
/// Counted when it happens:
///
/// * `bolna_rate_limit_events_total`, a counter of events, by `event`:
///   [`Event::name`](super::Event::name).
///
/// Brought up to date by [`refresh`](Self::refresh):
///
/// * `bolna_rate_limit_store_waits_total`, counters of the same waits as in the histogram, by `le`:
///   a number of seconds from `0.0001` to `0.25`, or `+Inf`. As in the buckets of a Prometheus
///   histogram, each counts the waits of at most `le`, so that of `+Inf` counts all of them. Any
///   recorder keeps them as they are, and those of several processes are added up:
///
///   ```text
///   histogram_quantile(0.99, sum by (le) (rate(bolna_rate_limit_store_waits_total[5m])))
///   ```
/// * `bolna_rate_limit_store_failures_total`, a counter of failed calls of the store, by `kind`:
///   [`StoreError::kind`](crate::store::StoreError::kind). Failures that a fallback has answered
///   are added by `refresh`, others when they happen.
/// * `bolna_rate_limit_fallbacks_total`, a counter of checks that were decided in this process
///   because the store failed.
/// * `bolna_rate_limit_owed_buckets`, a gauge: the number of buckets of which units were admitted
///   without the store and are not charged to it yet.
/// * `bolna_rate_limit_late_charges_total`, a counter of units that the store has charged for
///   requests that no longer waited.
/// * `bolna_rate_limit_waiting_corrections`, a gauge: the number of refunds and settlements that
///   wait for the store.
/// * `bolna_rate_limit_lost_corrections_total`, a counter of refunds and settlements that the store
///   has [lost](crate::store::StoreReport::lost_corrections).
/// * `bolna_rate_limit_breakers`, a gauge: the number of breakers.
/// * `bolna_rate_limit_open_breakers`, a gauge: the number of breakers that are open.
/// * `bolna_rate_limit_buckets`, a gauge: the number of buckets that are tracked in this process,
///   those of addresses excluded.
/// * `bolna_rate_limit_addresses`, a gauge: the number of addresses that are tracked in this
///   process.
/// * `bolna_rate_limit_max_buckets`, a gauge: the cap of that number, if there is one.
/// * `bolna_rate_limit_remembered_denials`, a gauge: the number of buckets for which requests are
///   refused without a call of the store.
/// * `bolna_rate_limit_sweeps_total`, a counter of sweeps: how many times a shard of the buckets in
///   this process was cleared of full ones.
/// * `bolna_rate_limit_dropped_buckets_total`, a counter of the buckets that sweeps have dropped.
/// * `bolna_rate_limit_in_flight`, a gauge: the number of places that are taken in this process, in
///   all limits of [requests in flight](crate::policy::PolicyBuilder::concurrent), those of a
///   candidate included. A request takes as many as it costs, in each such limit.
/// * `bolna_rate_limit_refunds_total`, a counter of
///   [refunds and settlements downwards](Report::refunds) of single requests.
/// * `bolna_rate_limit_settlements_total`, a counter of
///   [settlements upwards](Report::settlements) of single requests.
/// * `bolna_rate_limit_failed_corrections_total`, a counter of refunds and settlements of single
///   requests that are lost, because the store did not take them. Those for which a `RedisStore`
///   had no room are in `bolna_rate_limit_lost_corrections_total` too, so do not add the two.
/// * `bolna_rate_limit_enforcement_percent`, a gauge, from 0 to 100: the percentage of principals
///   on which the limiter enforces limits.
///
/// A limit of requests in flight is one of the limits of
/// `bolna_rate_limit_limit_decisions_total`: `limited` are the requests for which it had no room.
///
/// No label holds an id. So the number of series grows with the number of endpoints and limits, but
/// not with the number of customers.
///
/// If the store has a fallback, the checks of a candidate are among the failures and the fallbacks.
///
/// # Cost
/// A request adds one to a counter of the recorder, and one to a counter of each of its limits;
/// with a candidate it adds one to a further counter, and if it waited for the store, it adds an
/// entry to the histogram and one to a number from which `refresh` makes the counters of waits.
///
/// A counter is registered once, when it is first needed. So install the recorder before the first
/// request: what was counted before is lost. Counters of refusals (`limited`) are registered with 0
/// at the first request that is allowed, since Prometheus does not see an increase in the first
/// value of a counter. Only a failure of a store without a fallback registers its counter each
/// time.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<MetricsState>,
}

struct MetricsState {
    handles: Handles,
    /// The numbers of the last report, to count what was added since.
    reported: Mutex<Reported>,
}

/// The numbers of a report that are counted since the store was made.
#[derive(Default)]
struct Reported {
    fallbacks: u64,
    late_charges: u64,
    lost_corrections: u64,
    sweeps: u64,
    dropped: u64,
    refunds: u64,
    settlements: u64,
    failed_corrections: u64,
    failures: BTreeMap<&'static str, u64>,
}

impl Metrics {
    /// An observer without a label of its own. This describes the metrics to the recorder that is
    /// installed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_labels(Vec::new())
    }

    /// An observer that adds the label `limiter` with that name to all metrics, for a process with
    /// several limiters.
    #[must_use]
    pub fn labelled(name: impl Into<String>) -> Self {
        Self::with_labels(vec![Label::new("limiter", name.into())])
    }

    fn with_labels(labels: Vec<Label>) -> Self {
        names::describe();
        let handles = Handles::new(labels);
        // Registers the counters of events with 0. Prometheus does not see an increase in the first
        // value of a counter, and many events occur only once.
        for name in Event::NAMES {
            counter!(names::EVENTS, handles.labels(&[("event", name)])).increment(0);
        }
        Self { shared: Arc::new(MetricsState { handles, reported: Mutex::default() }) }
    }

    /// Brings the metrics of the store, of waits, of requests in flight and of the enforcement up
    /// to date. Call it before each scrape, or every few seconds; it takes some microseconds.
    ///
    /// The report must be from the limiter that this observes.
    pub fn refresh(&self, report: &Report) {
        self.set(names::ENFORCEMENT, usize::from(report.enforcement.as_percent()));
        self.set(names::IN_FLIGHT, usize::try_from(report.in_flight).unwrap_or(usize::MAX));
        self.count(report);
        let report = &report.store;
        self.set(names::BUCKETS, report.buckets);
        self.set(names::ADDRESSES, report.addresses);
        if let Some(most) = report.max_buckets {
            self.set(names::MAX_BUCKETS, most);
        }
        self.set(names::REMEMBERED_DENIALS, report.remembered_denials);
        self.set(names::OWED, report.owed);
        self.set(names::WAITING_CORRECTIONS, report.waiting_corrections);
        self.set(names::BREAKERS, report.breakers);
        self.set(names::OPEN_BREAKERS, report.open_breakers);
        self.shared.handles.publish_waits();
    }

    fn set(&self, name: &'static str, value: usize) {
        // Exact up to 2^53, which is enough.
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
        gauge!(name, self.shared.handles.labels(&[])).set(value as f64);
    }

    fn count(&self, whole: &Report) {
        let report = &whole.store;
        let mut reported = self.shared.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let add = |name: &'static str, labels: Vec<Label>, before: &mut u64, now: u64| {
            counter!(name, labels).increment(now.saturating_sub(*before));
            // Another thread may have counted a newer report already.
            *before = now.max(*before);
        };
        let labels = || self.shared.handles.labels(&[]);
        add(names::FALLBACKS, labels(), &mut reported.fallbacks, report.fallbacks);
        add(names::LATE, labels(), &mut reported.late_charges, report.late_charges);
        add(
            names::LOST_CORRECTIONS,
            labels(),
            &mut reported.lost_corrections,
            report.lost_corrections,
        );
        add(names::SWEEPS, labels(), &mut reported.sweeps, report.sweeps);
        add(names::DROPPED, labels(), &mut reported.dropped, report.dropped);
        add(names::REFUNDS, labels(), &mut reported.refunds, whole.refunds);
        add(names::SETTLEMENTS, labels(), &mut reported.settlements, whole.settlements);
        let failed = &mut reported.failed_corrections;
        add(names::FAILED_CORRECTIONS, labels(), failed, whole.failed_corrections);
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
