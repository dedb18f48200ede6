//! The `RateLimit` fields, in all their dialects.

mod by_name;
mod fields;
mod legacy;
mod structured;
mod unnamed;

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::HeaderMap;

use super::retry_after::unix_now;
use super::{Concurrent, Names, ReportedQuota, Standing, Standings};
use crate::values::Quota;

pub(in crate::client) use by_name::Memo;
use fields::Fields;

/// Resets beyond this, about 31 years, are points in time.
const LONGEST_DELTA: u64 = 1_000_000_000;

/// Points in time beyond this, in the year 5138, are in milliseconds.
const LAST_SECOND: u64 = 100_000_000_000;

/// The state of the endpoint's limits, read from the newest dialect in which the response reports
/// it. Only the newest one reports requests in flight, which is read beside an older one too.
///
/// A malformed field counts as absent. Numbers that are too large are clamped to `u32::MAX` units
/// or [`Quota::MAX_REFILL_TIME`].
pub(in crate::client) fn standings(
    headers: &HeaderMap,
    names: &Names,
    memo: &mut Memo,
) -> Option<Standings> {
    let fields = Fields::find(headers)?;
    let named = by_name::standings(&fields, names, &by_name::DRAFT_08, memo);
    if named.as_ref().is_some_and(|named| named.limits.iter().any(Option::is_some)) {
        return named;
    }
    let own = unnamed::one_field(&fields)
        .or_else(|| unnamed::three_fields(&fields))
        .or_else(|| legacy::standing(&fields));
    let Some(own) = own else { return named };
    let concurrent = named.map(|named| named.concurrent).unwrap_or_default();
    Some(Standings { concurrent, ..Standings::of_own(own, names.rates.len()) })
}

/// A number of units.
fn units(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A number of seconds.
fn seconds(number: u64) -> Duration {
    Duration::from_secs(number).min(Quota::MAX_REFILL_TIME)
}

/// A quota of zero units is ignored, and so is a window of zero seconds.
fn quota(quota: u64, window: Option<u64>) -> Option<ReportedQuota> {
    (quota > 0).then(|| (units(quota), window.filter(|&window| window > 0).map(seconds)))
}

/// How long an exhausted limit stays exhausted, if that is known.
fn exhausted(seconds_left: Option<u64>) -> Option<Duration> {
    seconds_left.filter(|&left| left > 0).map(seconds)
}

/// The seconds until a reset. Some servers send seconds, some a Unix time, and some a Unix time in
/// milliseconds.
fn seconds_until(reset: u64, headers: &HeaderMap) -> u64 {
    if reset <= LONGEST_DELTA {
        return reset;
    }
    let instant = if reset <= LAST_SECOND { reset } else { reset.div_ceil(1000) };
    instant.saturating_sub(unix_now(headers))
}
