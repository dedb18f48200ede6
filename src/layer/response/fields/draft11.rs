//! `RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-11.

use http::{HeaderName, HeaderValue};

use super::super::cache::Texts;
use super::retry_after;
use crate::values::{Decision, Endpoint, Quota};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Both fields. The first is taken from the texts, if there are any.
pub(super) fn fields(texts: Option<&Texts>, decision: &Decision) -> [(HeaderName, HeaderValue); 2] {
    let render = || value(policy(decision.endpoint(), decision.quota()));
    let policy = texts.map_or_else(render, |texts| texts.policy().clone());
    [(RATELIMIT_POLICY, policy), (RATELIMIT, value(limit(decision)))]
}

/// The value of `RateLimit-Policy`.
pub(in crate::layer::response) fn policy(endpoint: Endpoint, quota: Quota) -> String {
    format!("\"{endpoint}\";q={};w={}", quota.burst(), quota.seconds_for(quota.burst()))
}

/// The value of `RateLimit`.
pub(in crate::layer::response) fn limit(decision: &Decision) -> String {
    let remaining = decision.remaining();
    let seconds = match remaining {
        0 => seconds_until_one(decision),
        // With a unit left, the draft's `t` is the time for which the remaining units last at the
        // sustained rate.
        _ => decision.quota().seconds_for(remaining),
    };
    format!("\"{}\";r={remaining};t={seconds}", decision.endpoint())
}

/// The time until a bucket without a unit has one, in whole seconds, rounded up.
pub(in crate::layer::response) fn seconds_until_one(decision: &Decision) -> u64 {
    if decision.is_allowed() {
        retry_after::whole_seconds(decision.next_unit())
    } else {
        retry_after::seconds(decision)
    }
}

fn value(text: String) -> HeaderValue {
    // The name of an endpoint is checked when it is made. The rest is digits and punctuation.
    HeaderValue::try_from(text).expect("the field is visible ASCII")
}
