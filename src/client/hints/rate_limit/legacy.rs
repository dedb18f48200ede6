//! `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which have no
//! specification.

use super::fields::{Fields, Lines, Name};
use super::{Standing, exhausted, quota, seconds_until, units};

/// The state of the limit with the fewest remaining, if there are several, on separate lines or
/// with commas in between.
///
/// The first value of each field belongs to the first limit, and so on. If there are not as many
/// limits as remainders, it is unknown which belong together, and the limits are ignored; the same
/// is true of resets.
pub(super) fn standing(fields: &Fields<'_>) -> Option<Standing> {
    let all = fields.lines(Name::LegacyRemaining);
    if all.is_empty() {
        return None;
    }
    let count = values(all).count();
    let as_many = |name| {
        let all = fields.lines(name);
        let fits = values(all).count() == count;
        values(all).take(if fits { count } else { 0 })
    };
    let (mut limits, mut resets) = (as_many(Name::LegacyLimit), as_many(Name::LegacyReset));
    let mut tightest: Option<Standing> = None;
    let mut longest = None;
    for remaining in values(all) {
        let (limit, reset) = (limits.next(), resets.next());
        let Some(remaining) = whole(remaining) else { continue };
        if remaining == 0 {
            let reset = reset.and_then(rounded_up);
            longest =
                longest.max(exhausted(reset.map(|reset| seconds_until(reset, fields.headers))));
        }
        let remaining = units(remaining);
        if tightest.is_none_or(|tightest| remaining < tightest.remaining) {
            let quota = limit.and_then(whole).and_then(|limit| quota(limit, None));
            tightest = Some(Standing { remaining, quota, exhausted: None });
        }
    }
    tightest.map(|tightest| Standing { exhausted: longest, ..tightest })
}

fn values<'h>(field: Lines<'h>) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let values = field.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    values.map(<[u8]>::trim_ascii).filter(|value| !value.is_empty())
}

/// A number without a sign or a fraction.
fn whole(text: &[u8]) -> Option<u64> {
    let digit = |number: u64, byte: &u8| {
        byte.is_ascii_digit()
            .then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}

/// A number without a sign, rounded up if it has a fraction.
fn rounded_up(text: &[u8]) -> Option<u64> {
    let Some(point) = text.iter().position(|&byte| byte == b'.') else { return whole(text) };
    let fraction = whole(&text[point + 1..])?;
    Some(whole(&text[..point])?.saturating_add(u64::from(fraction > 0)))
}
