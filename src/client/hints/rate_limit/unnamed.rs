//! One limit without a name: draft-ietf-httpapi-ratelimit-headers-00 to 07.

use super::fields::{Fields, Name};
use super::structured::{Item, item, items, members};
use super::{Standing, exhausted, quota, seconds_until, units};

/// The parameter with the window of a quota.
const WINDOW: &str = "w";

/// `RateLimit: limit=100, remaining=50, reset=5`, as in version 07.
pub(super) fn one_field(fields: &Fields<'_>) -> Option<Standing> {
    let [limit, remaining, reset] =
        members(fields.lines(Name::RateLimit), ["limit", "remaining", "reset"])?;
    let remaining = remaining.number()?;
    Some(standing(fields, limit.number(), remaining, reset.number()))
}

/// `RateLimit-Limit: 100, 100;w=60`, `RateLimit-Remaining: 50` and `RateLimit-Reset: 5`, as in
/// versions 00 to 06.
///
/// No version allows a Unix time in `RateLimit-Reset`, but GitLab and others send one.
pub(super) fn three_fields(fields: &Fields<'_>) -> Option<Standing> {
    let number = |name| item(fields.lines(name))?.number();
    let remaining = number(Name::Remaining)?;
    let mut limit = None;
    let read = items(fields.lines(Name::Limit), [], |first, []| {
        limit = limit.or(Some(number_of(first)));
    });
    let limit = read.and(limit).flatten();
    let reset = number(Name::Reset);
    Some(standing(fields, limit, remaining, reset))
}

fn standing(
    fields: &Fields<'_>,
    limit: Option<u64>,
    remaining: u64,
    reset: Option<u64>,
) -> Standing {
    Standing {
        remaining: units(remaining),
        quota: limit.and_then(|limit| quota(limit, window_of(fields, limit))),
        exhausted: exhausted(
            reset.filter(|_| remaining == 0).map(|reset| seconds_until(reset, fields.headers)),
        ),
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
