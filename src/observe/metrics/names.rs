//! The names and descriptions of the metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const DECISIONS: &str = "bolna_rate_limit_decisions_total";
pub(super) const LIMIT_DECISIONS: &str = "bolna_rate_limit_limit_decisions_total";
pub(super) const CANDIDATE_DECISIONS: &str = "bolna_rate_limit_candidate_decisions_total";
pub(super) const STORE_WAIT: &str = "bolna_rate_limit_store_wait_seconds";
pub(super) const STORE_WAITS: &str = "bolna_rate_limit_store_waits_total";
pub(super) const EVENTS: &str = "bolna_rate_limit_events_total";
pub(super) const FAILURES: &str = "bolna_rate_limit_store_failures_total";
pub(super) const FALLBACKS: &str = "bolna_rate_limit_fallbacks_total";
pub(super) const OWED: &str = "bolna_rate_limit_owed_buckets";
pub(super) const LATE: &str = "bolna_rate_limit_late_charges_total";
pub(super) const WAITING_CORRECTIONS: &str = "bolna_rate_limit_waiting_corrections";
pub(super) const LOST_CORRECTIONS: &str = "bolna_rate_limit_lost_corrections_total";
pub(super) const BREAKERS: &str = "bolna_rate_limit_breakers";
pub(super) const OPEN_BREAKERS: &str = "bolna_rate_limit_open_breakers";
pub(super) const BUCKETS: &str = "bolna_rate_limit_buckets";
pub(super) const ADDRESSES: &str = "bolna_rate_limit_addresses";
pub(super) const MAX_BUCKETS: &str = "bolna_rate_limit_max_buckets";
pub(super) const REMEMBERED_DENIALS: &str = "bolna_rate_limit_remembered_denials";
pub(super) const SWEEPS: &str = "bolna_rate_limit_sweeps_total";
pub(super) const DROPPED: &str = "bolna_rate_limit_dropped_buckets_total";
pub(super) const IN_FLIGHT: &str = "bolna_rate_limit_in_flight";
pub(super) const REFUNDS: &str = "bolna_rate_limit_refunds_total";
pub(super) const SETTLEMENTS: &str = "bolna_rate_limit_settlements_total";
pub(super) const FAILED_CORRECTIONS: &str = "bolna_rate_limit_failed_corrections_total";
pub(super) const ENFORCEMENT: &str = "bolna_rate_limit_enforcement_percent";

/// Describes the metrics to the recorder.
pub(super) fn describe() {
    describe_counter!(DECISIONS, "Requests that were decided about");
    describe_counter!(LIMIT_DECISIONS, "What each limit says about a request");
    describe_counter!(CANDIDATE_DECISIONS, "Requests for which the candidate policy was evaluated");
    describe_histogram!(
        STORE_WAIT,
        Unit::Seconds,
        "Time until the store answered, if it did not answer at once"
    );
    describe_counter!(
        STORE_WAITS,
        "Requests that waited for the store for at most `le` seconds, as in a histogram's buckets"
    );
    describe_counter!(EVENTS, "Events of the limiter that do not concern a single request");
    describe_counter!(
        FAILURES,
        "Calls of the store that failed, whether or not a fallback decided instead"
    );
    describe_counter!(
        FALLBACKS,
        "Checks that were decided in this process because the store failed"
    );
    describe_gauge!(
        OWED,
        "Buckets of which units were admitted without the store and are not charged to it yet"
    );
    describe_counter!(LATE, "Units that the store has charged for requests that no longer waited");
    describe_gauge!(WAITING_CORRECTIONS, "Refunds and settlements that wait for the store");
    describe_counter!(LOST_CORRECTIONS, "Refunds and settlements that the store has lost");
    describe_gauge!(BREAKERS, "Circuit breakers in front of servers");
    describe_gauge!(OPEN_BREAKERS, "Circuit breakers that are open");
    describe_gauge!(BUCKETS, "Buckets that are tracked in this process");
    describe_gauge!(ADDRESSES, "Addresses that are tracked in this process");
    describe_gauge!(MAX_BUCKETS, "The most buckets that may be tracked in this process");
    describe_gauge!(
        REMEMBERED_DENIALS,
        "Buckets for which requests are refused without a call of the store"
    );
    describe_counter!(SWEEPS, "Sweeps of a shard of the buckets in this process");
    describe_counter!(DROPPED, "Full buckets that sweeps have dropped");
    describe_gauge!(
        IN_FLIGHT,
        "Places that are taken in all limits of requests in flight of this process"
    );
    describe_counter!(
        REFUNDS,
        "Commands to give units of a request back that the store has taken after its admission"
    );
    describe_counter!(
        SETTLEMENTS,
        "Commands to charge more units for a request that the store has taken after its admission"
    );
    describe_counter!(
        FAILED_CORRECTIONS,
        "Refunds and settlements of requests that are lost because the store did not take them"
    );
    // Without its unit: the exporter for Prometheus can add units to names, and the name has it.
    describe_gauge!(ENFORCEMENT, "Percentage of principals on which limits are enforced");
}
