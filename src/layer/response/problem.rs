//! The texts of refusals, and their bodies: `application/problem+json` (RFC 9457), with the two
//! members of Bolna's own error format, `error` and `message`.
//!
//! Nothing that is inserted into them needs escaping in JSON: names of limits, quotas, numbers.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;

use super::buffer::Buffer;
use crate::values::{Decision, Limit, LimitName};

/// Registered by draft-ietf-httpapi-ratelimit-headers-11, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Why a request is refused, as far as the texts depend on it. Waits are in whole seconds.
#[derive(Clone, Copy)]
pub(super) enum Cause<'a> {
    /// The limit with the longest wait does not suffice. It may be the endpoint's own.
    Limited {
        decision: &'a Decision,
        is_own: bool,
        seconds: u64,
    },
    /// Without an `endpoint`, it is an unidentified request, and its address is blocked.
    Blocked {
        endpoint: Option<&'a str>,
        seconds: u64,
    },
    Unidentified,
    StoreFailed,
    TooCostly {
        limit: Limit,
        cost: u32,
    },
    TooAmbiguous,
}

/// What is wrong and what to do, in whole sentences.
pub(super) struct Detail<'a>(pub(super) Cause<'a>);

/// What is wrong, in a few words, without the wait: clients append `Retry-After` to it.
pub(super) struct Message<'a>(pub(super) Cause<'a>);

/// The body of a refusal. `violated` are all limits that refuse the request.
pub(super) fn body(
    buffer: &mut Buffer,
    cause: Cause<'_>,
    status: StatusCode,
    violated: &[LimitName],
) -> Bytes {
    let number = status.as_u16();
    let (kind, title, violated) = match cause {
        Cause::Limited { .. } => (
            QUOTA_EXCEEDED,
            "Request cannot be satisfied as assigned quota has been exceeded",
            Violated(violated),
        ),
        // No quota is exceeded, so the body has neither that problem type nor `violated-policies`.
        _ => ("about:blank", status.canonical_reason().unwrap_or("Request refused"), Violated(&[])),
    };
    buffer.format(format_args!(
        "{{\"type\":\"{kind}\",\"title\":\"{title}\",\"status\":{number},\
         \"detail\":\"{}\",{violated}\"error\":{number},\"message\":\"{}\"}}",
        Detail(cause),
        Message(cause),
    ))
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Limited { decision, is_own, .. } if decision.quota().is_concurrent() => write!(
                f,
                "The limit of {} {}",
                Whose { decision, is_own },
                TooManyInFlight(decision)
            ),
            Cause::Limited { decision, is_own, seconds } => write!(
                f,
                "The quota of {} {}. It refills at that rate; wait {}.",
                Whose { decision, is_own },
                Shortage(decision),
                Wait(seconds)
            ),
            Cause::Blocked { endpoint, seconds } => write!(
                f,
                "{} are blocked for now, whatever is left of the quota. Wait {}.",
                Blocked { noun: "endpoint ", endpoint },
                Wait(seconds)
            ),
            Cause::Unidentified => {
                f.write_str("The request has no credentials, or the server did not recognize them.")
            }
            Cause::StoreFailed => {
                f.write_str("The rate limit could not be checked. The request was not carried out.")
            }
            Cause::TooCostly { limit, cost } if limit.quota().is_concurrent() => write!(
                f,
                "The request counts as {cost} requests in flight for the limit {}, which never \
                 allows more than {}. Waiting does not help; ask for less at once.",
                limit.name(),
                limit.quota().limit()
            ),
            Cause::TooCostly { limit, cost } => write!(
                f,
                "The request costs {cost} units of the limit {}, which never has more than {}. \
                 Waiting does not help; ask for less at once.",
                limit.name(),
                limit.quota().burst()
            ),
            Cause::TooAmbiguous => f.write_str(
                "Servers could read this path in so many ways that the request would count \
                 towards too many limits. Send the path without unusual escapes, dots, slashes or \
                 semicolons.",
            ),
        }
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Limited { decision, .. } => {
                let (quota, name) = (decision.quota(), decision.name());
                let kind = if quota.is_concurrent() { "Limit" } else { "Rate limit" };
                write!(f, "{kind} of {quota} exceeded for {name}")
            }
            Cause::Blocked { endpoint, .. } => {
                write!(f, "{} are blocked", Blocked { noun: "", endpoint })
            }
            Cause::Unidentified => f.write_str("Authentication required"),
            Cause::StoreFailed => f.write_str("Rate limit could not be checked"),
            Cause::TooCostly { limit, cost } => write!(
                f,
                "The request costs {cost} of {}, and at most {} are allowed at once",
                limit.name(),
                limit.quota().burst()
            ),
            Cause::TooAmbiguous => f.write_str("The path can be read in too many ways"),
        }
    }
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

/// That as many requests are in flight as a limit allows, or too many for this request. If none is
/// left, it does not depend on the request, because the text is rendered for reuse.
struct TooManyInFlight<'a>(&'a Decision);

impl fmt::Display for TooManyInFlight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.remaining(), self.0.quota().limit()) {
            (0, 1) => f.write_str("is reached. Wait until the request in flight has ended."),
            (0, _) => {
                f.write_str("is reached. Wait until one of the requests in flight has ended.")
            }
            (left, _) => write!(
                f,
                "has {left} left, and the request counts as {}. Wait until more of the requests in \
                 flight have ended.",
                self.0.cost()
            ),
        }
    }
}

/// The member `violated-policies`, if there is such a limit.
struct Violated<'a>(&'a [LimitName]);

impl fmt::Display for Violated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, others @ ..] = self.0 else { return Ok(()) };
        write!(f, "\"violated-policies\":[\"{first}\"")?;
        others.iter().try_for_each(|name| write!(f, ",\"{name}\""))?;
        f.write_str("],")
    }
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
            None => f.write_str("Requests without an account from this address"),
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
