//! `RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-11.

use http::{HeaderName, HeaderValue};

use super::super::cache::Texts;
use super::retry_after;
use crate::values::{Decision, Endpoint, Quota};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Both fields, of which the texts may have the first.
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
        // With a unit left, the draft's `t` is the time for which what remains lasts at the
        // sustained rate.
        _ => decision.quota().seconds_for(remaining),
    };
    format!("\"{}\";r={remaining};t={seconds}", decision.endpoint())
}

/// The whole seconds, rounded up, until a bucket without a unit has one.
pub(in crate::layer::response) fn seconds_until_one(decision: &Decision) -> u64 {
    if decision.is_allowed() {
        retry_after::whole_seconds(decision.next_unit())
    } else {
        retry_after::seconds(decision)
    }
}

fn value(text: String) -> HeaderValue {
    // An endpoint's name is checked when it is made; the rest is digits and punctuation.
    HeaderValue::try_from(text).expect("the field is visible ASCII")
}
