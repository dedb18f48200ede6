//! Usage as metrics of the `metrics` facade.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};

use super::pace::Pacer;
use super::priority::Priority;
use super::usage::{Counted, Usage};
use crate::values::Endpoint;

const REMAINING: &str = "bolna_rate_limit_client_remaining";
const WAITING: &str = "bolna_rate_limit_client_waiting";
const UNANSWERED: &str = "bolna_rate_limit_client_unanswered";
const WAIT: &str = "bolna_rate_limit_client_wait_seconds";
const PAUSED: &str = "bolna_rate_limit_client_paused_seconds";
const CONCURRENT: &str = "bolna_rate_limit_client_concurrent";
const CONCURRENT_LIMIT: &str = "bolna_rate_limit_client_concurrent_limit";
const CONCURRENT_WAITING: &str = "bolna_rate_limit_client_concurrent_waiting";
const SENT: &str = "bolna_rate_limit_client_sent_total";
const RETRIED: &str = "bolna_rate_limit_client_retried_total";
const REFUSED: &str = "bolna_rate_limit_client_refused_total";
const UNSENT: &str = "bolna_rate_limit_client_unsent_total";
const HANDED_BACK: &str = "bolna_rate_limit_client_handed_back_total";
const PAUSES: &str = "bolna_rate_limit_client_pauses_total";
const LEARNED_RATE: &str = "bolna_rate_limit_client_learned_rate";

/// Reports the usage of a [`Pacer`] with the [`metrics`](https://docs.rs/metrics) facade, to the
/// recorder that the process has installed.
///
/// ```
/// use bolna_rate_limit::client::{Metrics, Pacer};
///
/// // After the recorder has been installed.
/// let pacer = Pacer::new();
/// let metrics = Metrics::new(pacer.clone());
/// // Before each scrape, or every few seconds:
/// metrics.refresh();
/// ```
///
/// | metric | type | meaning |
/// |---|---|---|
/// | `bolna_rate_limit_client_remaining` | gauge | requests that the limits allow at once |
/// | `bolna_rate_limit_client_waiting` | gauge | requests that wait to be sent, by `priority` |
/// | `bolna_rate_limit_client_unanswered` | gauge | requests without a response yet |
/// | `bolna_rate_limit_client_wait_seconds` | gauge | wait of one more request, by `priority` |
/// | `bolna_rate_limit_client_paused_seconds` | gauge | how long the endpoint is still paused |
/// | `bolna_rate_limit_client_learned_rate` | gauge | a second, [learned](super::LearnedRate) |
/// | `bolna_rate_limit_client_concurrent` | gauge | requests in flight, and [permits](super::Permit) |
/// | `bolna_rate_limit_client_concurrent_limit` | gauge | how many of them there may be |
/// | `bolna_rate_limit_client_concurrent_waiting` | gauge | requests that wait for one to end |
/// | `bolna_rate_limit_client_sent_total` | counter | requests sent, retries included |
/// | `bolna_rate_limit_client_retried_total` | counter | retries |
/// | `bolna_rate_limit_client_refused_total` | counter | requests refused |
/// | `bolna_rate_limit_client_handed_back_total` | counter | refusals without a retry |
/// | `bolna_rate_limit_client_pauses_total` | counter | pauses that have begun |
/// | `bolna_rate_limit_client_unsent_total` | counter | requests not sent: wait or queue too long |
///
/// Each metric has the label `endpoint`. The label `priority` is `interactive` or `bulk`. The
/// learned rate is there only for endpoints with one, and becomes infinite when it is forgotten.
/// The metrics of `concurrent` are there only for endpoints with a limit of requests in flight,
/// which [`Concurrency`](super::Concurrency) explains. If it was reported by the server and is
/// forgotten, the limit becomes infinite. If an endpoint is not in the policy any more, its gauges
/// become 0, and its learned rate and its limit infinite. Requests do no work for the metrics:
/// [`refresh`](Self::refresh) updates all of them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    pacer: Pacer,
    labels: Vec<Label>,
    /// For each endpoint. The metrics are incremented by the difference of the counters.
    reported: Mutex<HashMap<Endpoint, Reported>>,
}

/// What was reported of an endpoint at the last refresh.
#[derive(Clone, Copy, Default)]
struct Reported {
    counted: Counted,
    is_concurrent: bool,
    is_learned: bool,
}

const PRIORITIES: [(Priority, &str); 2] =
    [(Priority::Interactive, "interactive"), (Priority::Bulk, "bulk")];

impl Metrics {
    /// Reports the usage of this pacer, with the label `endpoint` only. Describes the metrics to
    /// the recorder that is installed.
    #[must_use]
    pub fn new(pacer: Pacer) -> Self {
        Self::with_labels(pacer, Vec::new())
    }

    /// Like [`new`](Self::new), with a label `client` of that name on every metric, for a process
    /// that has more than one pacer.
    #[must_use]
    pub fn labelled(name: impl Into<String>, pacer: Pacer) -> Self {
        Self::with_labels(pacer, vec![Label::new("client", name.into())])
    }

    fn with_labels(pacer: Pacer, labels: Vec<Label>) -> Self {
        describe_gauge!(REMAINING, "Requests that the limits allow at once");
        describe_gauge!(WAITING, "Requests that wait to be sent");
        describe_gauge!(UNANSWERED, "Requests that have no response yet");
        describe_gauge!(WAIT, Unit::Seconds, "How long one more request would have to wait");
        describe_gauge!(
            PAUSED,
            Unit::Seconds,
            "How long the endpoint is still paused, after a refusal or with no units left"
        );
        describe_counter!(SENT, "Requests that were sent, retries included");
        describe_counter!(RETRIED, "Retries");
        describe_counter!(REFUSED, "Requests that were refused");
        describe_counter!(
            UNSENT,
            "Requests that were not sent, because the wait or the queue was too long"
        );
        describe_counter!(HANDED_BACK, "Refusals that no retry of the client has followed");
        describe_counter!(PAUSES, "Pauses of an endpoint that have begun");
        describe_gauge!(
            LEARNED_RATE,
            "Requests that are sent in a second, if the server was found to admit fewer than the \
             policy"
        );
        describe_gauge!(CONCURRENT, "Requests in flight, and calls with a permit");
        describe_gauge!(CONCURRENT_LIMIT, "How many requests may be in flight");
        describe_gauge!(CONCURRENT_WAITING, "Requests that wait until one in flight ends");
        let reported = Mutex::default();
        Self { shared: Arc::new(Shared { pacer, labels, reported }) }
    }

    /// Updates the metrics to the current usage of the pacer.
    pub fn refresh(&self) {
        let Shared { pacer, reported, .. } = &*self.shared;
        let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
        for (endpoint, counted) in pacer.counted_by_others() {
            // One that was never reported and has counted nothing has no metrics.
            if counted != Counted::default() || reported.contains_key(&endpoint) {
                let reported = reported.entry(endpoint).or_default();
                self.report(endpoint, None, counted, reported);
            }
        }
        for usage in pacer.usage() {
            let endpoint = usage.endpoint();
            let reported = reported.entry(endpoint).or_default();
            self.report(endpoint, Some(&usage), usage.counted, reported);
        }
    }

    /// An endpoint that is not in the policy any more has no usage.
    fn report(
        &self,
        endpoint: Endpoint,
        usage: Option<&Usage>,
        counted: Counted,
        reported: &mut Reported,
    ) {
        let mut labels = self.shared.labels.clone();
        labels.push(Label::new("endpoint", endpoint.name()));
        // Exact up to 2^53.
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
        let unanswered = usage.map_or(0, Usage::unanswered) as f64;
        let remaining = usage.map_or(0, Usage::remaining);
        let paused = usage.map_or(Duration::ZERO, Usage::paused);
        gauge!(REMAINING, labels.clone()).set(f64::from(remaining));
        gauge!(UNANSWERED, labels.clone()).set(unanswered);
        gauge!(PAUSED, labels.clone()).set(paused.as_secs_f64());
        for (priority, name) in PRIORITIES {
            let mut labels = labels.clone();
            labels.push(Label::new("priority", name));
            #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
            let waiting = usage.map_or(0, |usage| usage.waiting_of(priority)) as f64;
            let wait = usage.map_or(Duration::ZERO, |usage| usage.wait_of(priority));
            gauge!(WAITING, labels.clone()).set(waiting);
            gauge!(WAIT, labels).set(wait.as_secs_f64());
        }
        let learned = usage.and_then(Usage::learned_rate);
        if learned.is_some() || reported.is_learned {
            reported.is_learned = learned.is_some();
            let interval = learned.map_or(Duration::ZERO, |rate| rate.interval());
            gauge!(LEARNED_RATE, labels.clone()).set(interval.as_secs_f64().recip());
        }
        let concurrency = usage.and_then(Usage::concurrency);
        if concurrency.is_some() || reported.is_concurrent {
            reported.is_concurrent = concurrency.is_some();
            #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
            let [in_flight, most, waiting] = concurrency.map_or([0.0, f64::INFINITY, 0.0], |it| {
                [it.in_flight() as f64, it.most() as f64, it.waiting() as f64]
            });
            gauge!(CONCURRENT, labels.clone()).set(in_flight);
            gauge!(CONCURRENT_LIMIT, labels.clone()).set(most);
            gauge!(CONCURRENT_WAITING, labels.clone()).set(waiting);
        }
        let before = reported.counted;
        // A request that was counted as unsent may be sent after all.
        let unsent = counted.unsent.max(before.unsent);
        reported.counted = Counted { unsent, ..counted };
        for (name, now, before) in [
            (SENT, counted.sent, before.sent),
            (RETRIED, counted.retried, before.retried),
            (REFUSED, counted.refused, before.refused),
            (UNSENT, counted.unsent, before.unsent),
            (HANDED_BACK, counted.handed_back, before.handed_back),
            (PAUSES, counted.pauses, before.pauses),
        ] {
            counter!(name, labels.clone()).increment(now.saturating_sub(before));
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
