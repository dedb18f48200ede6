//! The `RateLimit` fields, in all their dialects.

mod by_name;
mod fields;
mod legacy;
mod structured;
mod unnamed;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::later::{self, Later};
use super::{Concurrent, Exchange, Names, ReportedQuota, Standing, Standings, retry_after};
use crate::values::Quota;

pub(in crate::client) use by_name::Memo;
use fields::{Fields, Name};

/// The state of the endpoint's limits, read from the newest dialect in which the response reports
/// it. Only the newest one reports requests in flight, which is read beside an older one too.
///
/// A malformed field counts as absent. Numbers that are too large are clamped to `u32::MAX` units
/// or [`Quota::MAX_REFILL_TIME`].
///
/// A response that comes from a cache reports nothing: what is in it was true when it was made
/// (draft-ietf-httpapi-ratelimit-headers-11, section 7.3).
pub(in crate::client) fn standings(
    exchange: &Exchange<'_>,
    names: &Names,
    memo: &mut Memo,
) -> Option<Standings> {
    let fields = Fields::find(exchange.headers)?;
    if !fields.lines(Name::Age).is_empty() && !exchange.age().is_zero() {
        return None;
    }
    let named = by_name::standings(&fields, names, &by_name::DRAFT_08, memo);
    if named.as_ref().is_some_and(|named| named.limits.iter().any(Option::is_some)) {
        return named;
    }
    let own = unnamed::one_field(&fields, exchange)
        .or_else(|| unnamed::three_fields(&fields, exchange))
        .or_else(|| legacy::standing(&fields, exchange));
    let Some(mut own) = own else { return named };
    if let Some(exhausted) = &mut own.exhausted {
        // slowapi sends both, and a reset that is a second late. `Retry-After` takes precedence.
        let asked = retry_after::standard(exchange).filter(|asked| !asked.is_zero());
        *exhausted = asked.map_or(*exhausted, |asked| asked.min(*exhausted));
    }
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

/// How long an exhausted limit stays exhausted that begins anew then.
fn exhausted_until(reset: Option<Later>, exchange: &Exchange<'_>) -> Option<Duration> {
    let wait = exchange.wait(reset?)?.min(Quota::MAX_REFILL_TIME);
    if wait.is_zero() { None } else { Some(wait) }
}
