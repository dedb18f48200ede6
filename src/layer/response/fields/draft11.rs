//! `RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-11.

use http::{HeaderName, HeaderValue};

use super::super::buffer::{Buffer, Digits};
use super::{retry_after, value};
use crate::values::{Decision, LimitName, Quota};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The unit of a quota, from the draft's registry of quota units. The default is `requests`.
const IN_FLIGHT: &[u8] = b";qu=\"concurrent-requests\"";

/// The value of `RateLimit-Policy`.
pub(in crate::layer::response) fn policy(
    buffer: &mut Buffer,
    name: LimitName,
    quota: Quota,
) -> HeaderValue {
    let (name, burst) = (name.name().as_bytes(), quota.burst());
    let q = Digits::of(burst.into());
    if quota.is_concurrent() {
        // Without a window, since a place is free again when a request ends.
        return value(buffer.concat([b"\"", name, b"\";q=", q.as_ref(), IN_FLIGHT]));
    }
    let w = Digits::of(seconds_for(quota, burst));
    value(buffer.concat([b"\"", name, b"\";q=", q.as_ref(), b";w=", w.as_ref()]))
}

/// The value of `RateLimit`.
pub(in crate::layer::response) fn limit(buffer: &mut Buffer, decision: &Decision) -> HeaderValue {
    let (name, quota) = (decision.name(), decision.quota());
    match decision.remaining() {
        remaining if decision.is_allowed() && (remaining > 0 || quota.is_concurrent()) => {
            limit_with(buffer, name, quota, remaining)
        }
        // A limited request may cost more units than remain.
        remaining => render(buffer, name, remaining, seconds_until_one(decision)),
    }
}

/// The value of `RateLimit` of a limit that allows the request. The draft's `t` is the time for
/// which the units of a rate last at the sustained rate; at least one unit must remain. For
/// requests in flight there is no `t`.
pub(in crate::layer::response) fn limit_with(
    buffer: &mut Buffer,
    name: LimitName,
    quota: Quota,
    remaining: u32,
) -> HeaderValue {
    if quota.is_concurrent() {
        let r = Digits::of(remaining.into());
        return value(buffer.concat([b"\"", name.name().as_bytes(), b"\";r=", r.as_ref()]));
    }
    render(buffer, name, remaining, seconds_for(quota, remaining))
}

fn render(buffer: &mut Buffer, name: LimitName, remaining: u32, seconds: u64) -> HeaderValue {
    let (r, t) = (Digits::of(remaining.into()), Digits::of(seconds));
    let name = name.name().as_bytes();
    value(buffer.concat([b"\"", name, b"\";r=", r.as_ref(), b";t=", t.as_ref()]))
}

/// The time until a limited request would be allowed, or else until a bucket without a unit has
/// one, in whole seconds, rounded up.
fn seconds_until_one(decision: &Decision) -> u64 {
    if decision.is_allowed() {
        retry_after::whole_seconds(decision.next_unit())
    } else {
        retry_after::seconds(decision)
    }
}

/// [`Quota::seconds_for`], without its long divisions if the period is in whole seconds.
#[inline]
fn seconds_for(quota: Quota, units: u32) -> u64 {
    let period = quota.period();
    match u64::from(units).checked_mul(period.as_secs()) {
        Some(product) if period.subsec_nanos() == 0 => product.div_ceil(quota.limit().into()),
        _ => quota.seconds_for(units),
    }
}
