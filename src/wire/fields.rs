//! The `RateLimit` header fields and their older relatives.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// Values of `RateLimit` are kept for a remainder below this; beyond, they are written afresh for each response.
const KEPT: u32 = 4096;

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

/// What an endpoint's responses carry, made at most once for each value.
pub(crate) struct Rendered {
    policy: HeaderValue,
    /// The `RateLimit` value for each remainder, which determines it (but for a last unit that takes over a second).
    limits: OnceLock<Box<[OnceLock<HeaderValue>]>>,
    /// The body of a refusal that asks for one second, as nearly all do.
    one_second: OnceLock<Bytes>,
}

impl Rendered {
    pub(crate) fn new(endpoint: Endpoint, quota: Quota) -> Self {
        let policy = format!("\"{endpoint}\";q={};w={}", quota.burst(), quota.seconds_for(quota.burst()));
        Self { policy: value(policy), limits: OnceLock::new(), one_second: OnceLock::new() }
    }

    /// The fields of a response to a request about which that was decided.
    pub(crate) fn fields(&self, decision: &Decision, format: Format) -> Fields {
        let standard = match format.dialect {
            Dialect::Draft11 => Some([self.policy.clone(), self.limit(decision)]),
            Dialect::Off => None,
        };
        let legacy = format.legacy.map(|reset| Box::new(legacy(decision, reset)));
        Fields { standard, legacy }
    }

    /// The body of a refusal.
    pub(crate) fn body(&self, decision: &Decision) -> Bytes {
        match retry_after_seconds(decision) {
            1 => self.one_second.get_or_init(|| problem::limited(decision, 1)).clone(),
            seconds => problem::limited(decision, seconds),
        }
    }

    fn limit(&self, decision: &Decision) -> HeaderValue {
        let remaining = decision.remaining();
        let write = |seconds| value(format!("\"{}\";r={remaining};t={seconds}", decision.endpoint()));
        if remaining > 0 {
            // With a unit left, the draft's `t` is the time for which what remains lasts at the sustained rate.
            return self.kept(decision, remaining, || write(decision.quota().seconds_for(remaining)));
        }
        match if decision.is_allowed() { whole_seconds(decision.next_unit()) } else { retry_after_seconds(decision) } {
            1 => self.kept(decision, 0, || write(1)),
            wait => write(wait),
        }
    }

    fn kept(&self, decision: &Decision, remaining: u32, write: impl FnOnce() -> HeaderValue) -> HeaderValue {
        let limits = self.limits.get_or_init(|| {
            let kept = decision.quota().burst().min(KEPT);
            (0..kept).map(|_| OnceLock::new()).collect()
        });
        match limits.get(remaining as usize) {
            Some(limit) => limit.get_or_init(write).clone(),
            None => write(),
        }
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The header fields of one response.
#[derive(Debug)]
pub(crate) struct Fields {
    standard: Option<[HeaderValue; 2]>,
    legacy: Option<Box<[(HeaderName, HeaderValue); 3]>>,
}

impl Fields {
    /// Adds the fields beside those that an upstream has set: each list member stands for a limit of its own.
    pub(crate) fn append_to(self, headers: &mut HeaderMap) {
        // A map that can take no more keeps what it has: a response without these fields beats none.
        if let Some([policy, limit]) = self.standard {
            let _ = headers.try_append(RATELIMIT_POLICY, policy);
            let _ = headers.try_append(RATELIMIT, limit);
        }
        for (name, value) in self.legacy.into_iter().flat_map(|legacy| *legacy) {
            let _ = headers.try_append(name, value);
        }
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

/// Adds a field unless it is there, or the map can take no more (`HeaderMap::entry` would panic then).
pub(super) fn add(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    if !headers.contains_key(&name) {
        let _ = headers.try_insert(name, value());
    }
}

/// `Retry-After` counts whole seconds (RFC 9110, section 10.2.3). Rounded down, every wait here would be none at all.
fn retry_after_seconds(decision: &Decision) -> u64 {
    whole_seconds(decision.retry_after().unwrap_or_default()).max(1)
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

fn legacy(decision: &Decision, reset: LegacyReset) -> [(HeaderName, HeaderValue); 3] {
    let reset = match reset {
        LegacyReset::DeltaSeconds => decision.reset(),
        LegacyReset::EpochSeconds => {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(decision.reset())
        }
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
