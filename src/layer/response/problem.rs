//! The bodies of refusals: `application/problem+json` (RFC 9457), with the two members of Bolna's
//! own error format, `error` and `message`.
//!
//! Nothing that is inserted into them needs escaping in JSON: names of endpoints, quotas, numbers.

use crate::values::{Endpoint, Quota};

/// Registered by draft-ietf-httpapi-ratelimit-headers-11, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The body of a 429, in the three parts around the two places of the wait.
pub(super) struct Limited([String; 3]);

impl Limited {
    pub(super) fn new(endpoint: Endpoint, quota: Quota) -> Self {
        let detail = format!(
            "{{\"type\":\"{QUOTA_EXCEEDED}\",\
             \"title\":\"Request cannot be satisfied as assigned quota has been exceeded\",\
             \"status\":429,\
             \"detail\":\"The quota of {quota} for endpoint {endpoint} is used up. It refills at \
             that rate; wait "
        );
        let message = format!(
            ".\",\
             \"violated-policies\":[\"{endpoint}\"],\
             \"error\":429,\
             \"message\":\"Rate limit of {quota} exceeded for {endpoint}; retry after "
        );
        Self([detail, message, "\"}".to_owned()])
    }

    /// The body with the wait in whole seconds.
    pub(super) fn body(&self, seconds: u64) -> String {
        let Self([detail, message, end]) = self;
        let wait = wait(seconds);
        [detail, &*wait, message, &wait, end].concat()
    }
}

/// The body of a 429 for a blocked request, with the wait in whole seconds. No quota is exceeded,
/// so it has neither that problem type nor `violated-policies`.
pub(super) fn blocked(endpoint: Endpoint, seconds: u64) -> String {
    let wait = wait(seconds);
    format!(
        "{{\"type\":\"about:blank\",\
         \"title\":\"Too Many Requests\",\
         \"status\":429,\
         \"detail\":\"Requests for endpoint {endpoint} are blocked for now, whatever is left of \
         the quota. Wait {wait}.\",\
         \"error\":429,\
         \"message\":\"Requests for {endpoint} are blocked; retry after {wait}\"}}"
    )
}

fn wait(seconds: u64) -> String {
    if seconds == 1 { "1 second".to_owned() } else { format!("{seconds} seconds") }
}

/// The body of a 401.
pub(super) const UNIDENTIFIED: &str = "{\"type\":\"about:blank\",\
    \"title\":\"Unauthorized\",\"status\":401,\
    \"detail\":\"The request carries no credentials that identify a user or an organization.\",\
    \"error\":401,\"message\":\"Authentication required\"}";

/// The body of a 503.
pub(super) const STORE_FAILED: &str = "{\"type\":\"about:blank\",\
    \"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"The rate limit could not be checked. The request was not carried out.\",\
    \"error\":503,\"message\":\"Rate limit could not be checked; retry after 1 second\"}";
