//! The bodies of refusals: `application/problem+json` (RFC 9457), with the two members of Bolna's
//! own error format, `error` and `message`.
//!
//! Nothing that is inserted into them needs escaping in JSON: names of limits, quotas, numbers.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;

use super::buffer::Buffer;
use crate::values::{Decision, Limit, LimitName};

/// Registered by draft-ietf-httpapi-ratelimit-headers-11, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The body of a 429 by the limit with the longest wait, which is in whole seconds, and which may
/// be the endpoint's own. `violated` are all limits that refuse the request.
pub(super) fn limited(
    buffer: &mut Buffer,
    decision: &Decision,
    is_own: bool,
    violated: &[LimitName],
    seconds: u64,
) -> Bytes {
    let (wait, quota, name) = (Wait(seconds), decision.quota(), decision.name());
    buffer.format(format_args!(
        "{{\"type\":\"{QUOTA_EXCEEDED}\",\
         \"title\":\"Request cannot be satisfied as assigned quota has been exceeded\",\
         \"status\":429,\
         \"detail\":\"The quota of {} {}. It refills at \
         that rate; wait {wait}.\",\
         \"violated-policies\":[{}],\
         \"error\":429,\
         \"message\":\"Rate limit of {quota} exceeded for {name}; retry after {wait}\"}}",
        Whose { decision, is_own },
        Shortage(decision),
        Names(violated),
    ))
}

/// The quota of a limit, and its scope.
struct Whose<'a> {
    decision: &'a Decision,
    /// Whether it is an endpoint's own limit.
    is_own: bool,
}

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decision, is_own } = self;
        let limit = decision.limit();
        let (name, quota) = (limit.name(), limit.quota());
        if *is_own {
            write!(f, "{quota} for endpoint {name}")
        } else {
            write!(f, "{quota} {}, {name},", limit.scope().phrase())
        }
    }
}

/// What the request lacks.
struct Shortage<'a>(&'a Decision);

impl fmt::Display for Shortage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.remaining() {
            0 => f.write_str("is used up"),
            left => write!(f, "has {left} units left, and the request costs {}", self.0.cost()),
        }
    }
}

/// The names of limits, as members of a list in JSON.
struct Names<'a>(&'a [LimitName]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}\"{name}\"")?;
        }
        Ok(())
    }
}

/// The body of a request that costs more than the limit's bucket can hold.
pub(super) fn too_costly(
    buffer: &mut Buffer,
    status: StatusCode,
    limit: Limit,
    cost: u32,
) -> Bytes {
    let (name, burst, number) = (limit.name(), limit.quota().burst(), status.as_u16());
    let title = status.canonical_reason().unwrap_or("Request too costly");
    buffer.format(format_args!(
        "{{\"type\":\"about:blank\",\
         \"title\":\"{title}\",\
         \"status\":{number},\
         \"detail\":\"The request costs {cost} units of the limit {name}, which never has more \
         than {burst}. Waiting does not help; ask for less at once.\",\
         \"error\":{number},\
         \"message\":\"The request costs {cost} of {name}, and at most {burst} are allowed at \
         once\"}}"
    ))
}

/// The body of a 429 for a blocked request, with the wait in whole seconds. Without an `endpoint`,
/// it is an unidentified request, and its address is blocked. No quota is exceeded, so the body has
/// neither that problem type nor `violated-policies`.
pub(super) fn blocked(buffer: &mut Buffer, endpoint: Option<&str>, seconds: u64) -> Bytes {
    let wait = Wait(seconds);
    let [detailed, short] = ["endpoint ", ""].map(|noun| Blocked { noun, endpoint });
    buffer.format(format_args!(
        "{{\"type\":\"about:blank\",\
         \"title\":\"Too Many Requests\",\
         \"status\":429,\
         \"detail\":\"{detailed} are blocked for now, whatever is left of the quota. \
         Wait {wait}.\",\
         \"error\":429,\
         \"message\":\"{short} are blocked; retry after {wait}\"}}"
    ))
}

/// The requests that are blocked.
struct Blocked<'a> {
    /// What comes before the endpoint's name.
    noun: &'a str,
    endpoint: Option<&'a str>,
}

impl fmt::Display for Blocked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoint {
            Some(endpoint) => write!(f, "Requests for {}{endpoint}", self.noun),
            None => f.write_str("Requests without credentials from this address"),
        }
    }
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

/// The body of a 400.
pub(super) const TOO_AMBIGUOUS: &str = "{\"type\":\"about:blank\",\
    \"title\":\"Bad Request\",\"status\":400,\
    \"detail\":\"Servers could read this path in so many ways that the request would count towards \
    too many limits. Send the path without unusual escapes, dots, slashes or semicolons.\",\
    \"error\":400,\"message\":\"The path can be read in too many ways\"}";
