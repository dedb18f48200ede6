//! `Retry-After` in seconds, and `retry-after-ms` in milliseconds, which the SDKs of `OpenAI` and
//! `Anthropic` read.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::buffer::{Buffer, Digits};
use super::{Format, add, value};
use crate::values::Decision;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The longest wait that refusals name, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layer) struct Longest(u32);

impl Longest {
    /// The whole wait is named.
    const NONE: Self = Self(u32::MAX);

    /// Rounded down, so that no longer wait is named, but at least one second.
    pub(in crate::layer) fn of(wait: Duration) -> Self {
        Self(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1))
    }

    /// A wait in whole seconds, capped.
    #[inline]
    pub(in crate::layer::response) fn seconds(self, seconds: u64) -> u64 {
        if self == Self::NONE { seconds } else { seconds.min(self.0.into()) }
    }

    /// A wait, capped.
    pub(in crate::layer::response) fn wait(self, wait: Duration) -> Duration {
        if self == Self::NONE { wait } else { wait.min(Duration::from_secs(self.0.into())) }
    }
}

impl Default for Longest {
    fn default() -> Self {
        Self::NONE
    }
}

/// Adds `Retry-After`, and `retry-after-ms` if the format has it, unless they are there.
pub(in crate::layer::response) fn add_to(
    headers: &mut HeaderMap,
    decision: &Decision,
    format: Format,
    buffer: &mut Buffer,
) {
    add(headers, RETRY_AFTER, || number(buffer, format.longest.seconds(seconds(decision))));
    if format.retry_after_ms {
        let wait = format.longest.wait(decision.retry_after().unwrap_or_default());
        let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        add(headers, RETRY_AFTER_MS, || number(buffer, millis.max(1)));
    }
}

/// The wait as in `Retry-After`: whole seconds (RFC 9110, section 10.2.3), rounded up, at least 1.
/// If it were rounded down, it would be 0 for all of Bolna's limits.
pub(in crate::layer::response) fn seconds(decision: &Decision) -> u64 {
    whole_seconds(decision.retry_after().unwrap_or_default()).max(1)
}

/// A time in whole seconds, rounded up.
pub(in crate::layer::response) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

fn number(buffer: &mut Buffer, number: u64) -> HeaderValue {
    match number {
        1 => HeaderValue::from_static("1"),
        _ => value(buffer.concat([Digits::of(number).as_ref()])),
    }
}
