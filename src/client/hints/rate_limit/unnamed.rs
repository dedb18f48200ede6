//! One limit without a name: draft-ietf-httpapi-ratelimit-headers-00 to 07.

use super::fields::{Fields, Name};
use super::later::{self, Later, Unit};
use super::structured::{Item, item, items, members};
use super::{Exchange, Standing, exhausted_until, quota, units};

/// The parameter with the window of a quota.
const WINDOW: &str = "w";

/// `RateLimit: limit=100, remaining=50, reset=5`, as in version 07.
pub(super) fn one_field(fields: &Fields<'_>, exchange: &Exchange<'_>) -> Option<Standing> {
    let [limit, remaining, reset] =
        members(fields.lines(Name::RateLimit), ["limit", "remaining", "reset"])?;
    let remaining = remaining.number()?;
    let reset = || reset.number().map(later::of_number);
    Some(standing(fields, exchange, limit.number(), remaining, reset))
}

/// `RateLimit-Limit: 100, 100;w=60`, `RateLimit-Remaining: 50` and `RateLimit-Reset: 5`, as in
/// versions 00 to 06.
///
/// No version allows a Unix time in `RateLimit-Reset`, or anything else but whole seconds, but
/// GitLab and others send them.
pub(super) fn three_fields(fields: &Fields<'_>, exchange: &Exchange<'_>) -> Option<Standing> {
    let number = |name| item(fields.lines(name))?.number();
    let remaining = number(Name::Remaining)?;
    let mut limit = None;
    let read = items(fields.lines(Name::Limit), [], |first, []| {
        limit = limit.or(Some(number_of(first)));
    });
    let limit = read.and(limit).flatten();
    let reset = || later::read(fields.lines(Name::Reset).only()?.as_bytes(), Unit::Seconds);
    Some(standing(fields, exchange, limit, remaining, reset))
}

fn standing(
    fields: &Fields<'_>,
    exchange: &Exchange<'_>,
    limit: Option<u64>,
    remaining: u64,
    reset: impl FnOnce() -> Option<Later>,
) -> Standing {
    Standing {
        remaining: units(remaining),
        quota: limit.and_then(|limit| quota(limit, window_of(fields, limit))),
        exhausted: if remaining == 0 { exhausted_until(reset(), exchange) } else { None },
    }
}

/// The window of the quota with `limit` units, among all listed quotas.
fn window_of(fields: &Fields<'_>, limit: u64) -> Option<u64> {
    [Name::Policy, Name::Limit].into_iter().find_map(|name| {
        let mut found = None;
        items(fields.lines(name), [WINDOW], |units, [window]| {
            if number_of(units) == Some(limit) {
                found = found.or(window.number());
            }
        })?;
        found
    })
}

fn number_of(item: &Item<'_>) -> Option<u64> {
    if let Item::Value(value) = item { value.number() } else { None }
}
