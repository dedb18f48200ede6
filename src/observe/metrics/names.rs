//! What the metrics are called.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const DECISIONS: &str = "bolna_rate_limit_decisions_total";
pub(super) const CANDIDATE_DECISIONS: &str = "bolna_rate_limit_candidate_decisions_total";
pub(super) const STORE_WAIT: &str = "bolna_rate_limit_store_wait_seconds";
pub(super) const EVENTS: &str = "bolna_rate_limit_events_total";
pub(super) const FAILURES: &str = "bolna_rate_limit_store_failures_total";
pub(super) const FALLBACKS: &str = "bolna_rate_limit_fallbacks_total";
pub(super) const BREAKERS: &str = "bolna_rate_limit_breakers";
pub(super) const OPEN_BREAKERS: &str = "bolna_rate_limit_open_breakers";
pub(super) const BUCKETS: &str = "bolna_rate_limit_buckets";
pub(super) const MAX_BUCKETS: &str = "bolna_rate_limit_max_buckets";
pub(super) const REMEMBERED_DENIALS: &str = "bolna_rate_limit_remembered_denials";
pub(super) const SWEEPS: &str = "bolna_rate_limit_sweeps_total";
pub(super) const DROPPED: &str = "bolna_rate_limit_dropped_buckets_total";
pub(super) const ENFORCEMENT: &str = "bolna_rate_limit_enforcement_percent";

/// Tells the recorder what they mean.
pub(super) fn describe() {
    describe_counter!(DECISIONS, "Requests that were decided about");
    describe_counter!(CANDIDATE_DECISIONS, "Requests that the candidate policy was evaluated for");
    describe_histogram!(
        STORE_WAIT,
        Unit::Seconds,
        "How long a store took that did not answer at once"
    );
    describe_counter!(EVENTS, "Events of the limiter that are not of one request");
    describe_counter!(
        FAILURES,
        "Calls of the store that failed, whether a fallback decided instead or not"
    );
    describe_counter!(
        FALLBACKS,
        "Decisions taken in this process because the store could not be asked"
    );
    describe_gauge!(BREAKERS, "Circuit breakers in front of servers");
    describe_gauge!(OPEN_BREAKERS, "Circuit breakers that are open");
    describe_gauge!(BUCKETS, "Buckets that are tracked in this process");
    describe_gauge!(MAX_BUCKETS, "The most buckets that are tracked in this process");
    describe_gauge!(REMEMBERED_DENIALS, "Buckets that are refused without asking the store");
    describe_counter!(SWEEPS, "Housekeeping turns");
    describe_counter!(DROPPED, "Full buckets that housekeeping has dropped");
    describe_gauge!(
        ENFORCEMENT,
        Unit::Percent,
        "On how many of a hundred principals limits are enforced"
    );
}
