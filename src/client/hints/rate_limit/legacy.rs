//! `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which have no
//! specification.

use super::fields::{Fields, Lines, Name};
use super::later::{self, Unit};
use super::{Exchange, Standing, exhausted_until, quota, units};

/// The state of the limit with the fewest remaining, if there are several, on separate lines or
/// with commas in between.
///
/// The first value of each field belongs to the first limit, and so on. If there are not as many
/// limits as remainders, it is unknown which belong together, and the limits are ignored; the same
/// is true of resets.
pub(super) fn standing(fields: &Fields<'_>, exchange: &Exchange<'_>) -> Option<Standing> {
    let all = fields.lines(Name::LegacyRemaining);
    if all.is_empty() {
        return None;
    }
    let count = values(all).count();
    let limits = fields.lines(Name::LegacyLimit);
    let has_limits = values(limits).count() == count;
    let mut limits = values(limits).filter(|_| has_limits);
    let resets = fields.lines(Name::LegacyReset);
    let has_resets = times(resets).count() == count;
    let mut resets = times(resets).filter(|_| has_resets);
    let mut tightest: Option<Standing> = None;
    let mut longest = None;
    for remaining in values(all) {
        let (limit, reset) = (limits.next(), resets.next());
        let Some(remaining) = whole(remaining) else { continue };
        if remaining == 0 {
            let reset = reset.and_then(|reset| later::read(reset, Unit::Seconds));
            longest = longest.max(exhausted_until(reset, exchange));
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

/// The values of a field with times, which may be dates.
fn times<'h>(field: Lines<'h>) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    field.iter().flat_map(|line| later::values(line.as_bytes()))
}

/// A number without a sign or a fraction.
fn whole(text: &[u8]) -> Option<u64> {
    let digit = |number: u64, byte: &u8| {
        byte.is_ascii_digit()
            .then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}
