//! The `RateLimit` header fields and their older relatives.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::kept::Kept;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::quota::Quota;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Which form of the `RateLimit` header fields responses carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// [draft-ietf-httpapi-ratelimit-headers-11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/):
    /// `RateLimit-Policy: "agent";q=500;w=60` and `RateLimit: "agent";r=250;t=30`.
    #[default]
    Draft11,
    /// Neither field. `Retry-After` is still sent with a refusal.
    Off,
}

/// What `X-RateLimit-Reset` counts, which no specification says and every API does in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LegacyReset {
    /// Seconds from now until the bucket is full again, rounded up.
    DeltaSeconds,
    /// The Unix time, in seconds, at which the bucket is full again, rounded up.
    EpochSeconds,
}

/// Which header fields the operator wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Format {
    pub(crate) dialect: Dialect,
    pub(crate) legacy: Option<LegacyReset>,
    pub(crate) retry_after_ms: bool,
}

/// The header fields of one response that tell what was decided.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// `RateLimit-Policy` and `RateLimit`, if both values are kept.
    standard: Option<(&'static HeaderValue, &'static HeaderValue)>,
    /// What had to be made for this response. In a box, since there nearly never is any.
    made: Option<Box<[(HeaderName, HeaderValue)]>>,
}

impl Fields {
    /// The fields of a response to a request about which that was decided.
    #[inline(always)]
    pub(crate) fn new(kept: Option<&'static Kept>, decision: &Decision, format: Format) -> Self {
        let standard = match (format.dialect, kept) {
            (Dialect::Draft11, Some(kept)) => {
                kept.limit(decision).map(|limit| (&kept.policy, limit))
            }
            _ => None,
        };
        let unkept = format.dialect == Dialect::Draft11 && standard.is_none();
        let made = if unkept || format.legacy.is_some() {
            Some(make(kept, decision, format.legacy, unkept))
        } else {
            None
        };
        Self { standard, made }
    }

    /// Adds the fields beside those that an upstream has set: each list member stands for a limit
    /// of its own.
    #[inline]
    pub(crate) fn append_to(self, headers: &mut HeaderMap) {
        // A map that can take no more keeps what it has: a response without these fields beats
        // none.
        if let Some((policy, limit)) = self.standard {
            let _ = headers.try_append(RATELIMIT_POLICY, policy.clone());
            let _ = headers.try_append(RATELIMIT, limit.clone());
        }
        for (name, value) in self.made.into_iter().flatten() {
            let _ = headers.try_append(name, value);
        }
    }
}

/// Older fields, and before them the standard ones if they are not kept.
#[inline(never)]
fn make(
    kept: Option<&'static Kept>,
    decision: &Decision,
    reset: Option<LegacyReset>,
    with_standard: bool,
) -> Box<[(HeaderName, HeaderValue)]> {
    let standard = with_standard.then(|| {
        let render = || value(policy(decision.endpoint(), decision.quota()));
        let policy = kept.map_or_else(render, |kept| kept.policy.clone());
        [(RATELIMIT_POLICY, policy), (RATELIMIT, value(limit(decision)))]
    });
    let legacy = reset.map(|reset| legacy(decision, reset));
    standard.into_iter().flatten().chain(legacy.into_iter().flatten()).collect()
}

/// The value of `RateLimit-Policy`.
pub(super) fn policy(endpoint: Endpoint, quota: Quota) -> String {
    format!("\"{endpoint}\";q={};w={}", quota.burst(), quota.seconds_for(quota.burst()))
}

/// The value of `RateLimit`.
pub(super) fn limit(decision: &Decision) -> String {
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
pub(super) fn seconds_until_one(decision: &Decision) -> u64 {
    if decision.is_allowed() {
        whole_seconds(decision.next_unit())
    } else {
        retry_after_seconds(decision)
    }
}

/// Adds `Retry-After`, and `retry-after-ms` if it is wanted, unless they are there.
pub(crate) fn add_retry_after(headers: &mut HeaderMap, decision: &Decision, format: Format) {
    add(headers, RETRY_AFTER, || number(retry_after_seconds(decision)));
    if format.retry_after_ms {
        let wait = decision.retry_after().unwrap_or_default();
        let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        add(headers, RETRY_AFTER_MS, || number(millis.max(1)));
    }
}

/// Adds a field unless it is there, or the map can take no more (`HeaderMap::entry` would panic
/// then).
pub(super) fn add(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    if !headers.contains_key(&name) {
        let _ = headers.try_insert(name, value());
    }
}

/// `Retry-After` counts whole seconds (RFC 9110, section 10.2.3). Rounded down, every wait here
/// would be none at all.
pub(super) fn retry_after_seconds(decision: &Decision) -> u64 {
    whole_seconds(decision.retry_after().unwrap_or_default()).max(1)
}

/// Rounded up.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

fn legacy(decision: &Decision, reset: LegacyReset) -> [(HeaderName, HeaderValue); 3] {
    let reset = match reset {
        LegacyReset::DeltaSeconds => decision.reset(),
        LegacyReset::EpochSeconds => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_add(decision.reset()),
    };
    [
        (X_RATELIMIT_LIMIT, number(decision.quota().burst().into())),
        (X_RATELIMIT_REMAINING, number(decision.remaining().into())),
        (X_RATELIMIT_RESET, number(whole_seconds(reset))),
    ]
}

fn number(number: u64) -> HeaderValue {
    if number == 1 { HeaderValue::from_static("1") } else { number.into() }
}

fn value(text: String) -> HeaderValue {
    // An endpoint's name is checked when it is made; the rest is digits and punctuation.
    HeaderValue::try_from(text).expect("the field is visible ASCII")
}
