//! The bodies of refusals: `application/problem+json` (RFC 9457), with the two members of Bolna's own error shape.
//!
//! Everything that is put into them is known to need no escaping in JSON.

use super::fields;
use crate::decision::Decision;

/// Registered by draft-ietf-httpapi-ratelimit-headers-11, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

pub(super) fn limited(decision: &Decision) -> String {
    let (endpoint, quota) = (decision.endpoint(), decision.quota());
    let wait = match fields::retry_after_seconds(decision) {
        1 => "1 second".to_owned(),
        seconds => format!("{seconds} seconds"),
    };
    format!(
        "{{\"type\":\"{QUOTA_EXCEEDED}\",\
         \"title\":\"Request cannot be satisfied as assigned quota has been exceeded\",\
         \"status\":429,\
         \"detail\":\"The quota of {quota} for endpoint {endpoint} is used up. It refills at that rate; wait {wait}.\",\
         \"violated-policies\":[\"{endpoint}\"],\
         \"error\":429,\
         \"message\":\"Rate limit of {quota} exceeded for {endpoint}; retry after {wait}\"}}"
    )
}

pub(super) const UNIDENTIFIED: &str = "{\"type\":\"about:blank\",\"title\":\"Unauthorized\",\"status\":401,\
    \"detail\":\"The request carries no credentials that identify a user or an organization.\",\
    \"error\":401,\"message\":\"Authentication required\"}";

pub(super) const STORE_FAILED: &str = "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"The rate limit could not be checked. The request was not carried out.\",\
    \"error\":503,\"message\":\"Rate limit could not be checked; retry after 1 second\"}";
