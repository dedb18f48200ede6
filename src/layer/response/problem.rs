//! The bodies of refusals: `application/problem+json` (RFC 9457), with the two members of Bolna's
//! own error format, `error` and `message`.
//!
//! Nothing that is inserted into them needs escaping in JSON: names of endpoints, quotas, numbers.

use std::fmt;

use bytes::Bytes;

use super::buffer::Buffer;
use crate::values::{Endpoint, Quota};

/// Registered by draft-ietf-httpapi-ratelimit-headers-11, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The body of a 429, with the wait in whole seconds.
pub(super) fn limited(
    buffer: &mut Buffer,
    endpoint: Endpoint,
    quota: Quota,
    seconds: u64,
) -> Bytes {
    let wait = Wait(seconds);
    buffer.format(format_args!(
        "{{\"type\":\"{QUOTA_EXCEEDED}\",\
         \"title\":\"Request cannot be satisfied as assigned quota has been exceeded\",\
         \"status\":429,\
         \"detail\":\"The quota of {quota} for endpoint {endpoint} is used up. It refills at \
         that rate; wait {wait}.\",\
         \"violated-policies\":[\"{endpoint}\"],\
         \"error\":429,\
         \"message\":\"Rate limit of {quota} exceeded for {endpoint}; retry after {wait}\"}}"
    ))
}

/// The body of a 429 for a blocked request, with the wait in whole seconds. No quota is exceeded,
/// so it has neither that problem type nor `violated-policies`.
pub(super) fn blocked(buffer: &mut Buffer, endpoint: Endpoint, seconds: u64) -> Bytes {
    let wait = Wait(seconds);
    buffer.format(format_args!(
        "{{\"type\":\"about:blank\",\
         \"title\":\"Too Many Requests\",\
         \"status\":429,\
         \"detail\":\"Requests for endpoint {endpoint} are blocked for now, whatever is left of \
         the quota. Wait {wait}.\",\
         \"error\":429,\
         \"message\":\"Requests for {endpoint} are blocked; retry after {wait}\"}}"
    ))
}

/// `1 second`, `2 seconds`.
#[derive(Clone, Copy)]
struct Wait(u64);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 second"),
            seconds => write!(f, "{seconds} seconds"),
        }
    }
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
