//! Numbers without a unit.

use std::time::Duration;

use super::{LONGEST, Later, Unit};

pub(super) const SECOND: u128 = 1_000_000_000;

/// Waits beyond this, about 31 years, are points in time.
const LONGEST_DELAY: u128 = 1_000_000_000 * SECOND;

/// How many nanoseconds a number counts whose whole part is at most so large. In the year 5138, a
/// Unix time in seconds will be taken for one in milliseconds.
const UNITS: [(u128, u128); 4] = [
    (100_000_000_000, SECOND),
    (100_000_000_000_000, SECOND / 1000),
    (100_000_000_000_000_000, SECOND / 1_000_000),
    (100_000_000_000_000_000_000, 1),
];

/// A decimal number that is not negative.
#[derive(Clone, Copy)]
pub(super) struct Number {
    whole: u128,
    /// The fraction in billionths, rounded up.
    billionths: u128,
}

impl From<u64> for Number {
    fn from(whole: u64) -> Self {
        Self { whole: whole.into(), billionths: 0 }
    }
}

impl Number {
    /// The number that a text begins with, and the rest of the text. There is no sign and no
    /// exponent, since `str::parse` would accept `inf` too.
    pub(super) fn prefix(text: &[u8]) -> Option<(Self, &[u8])> {
        let (whole, rest) = digits(text);
        let (fraction, rest) = match rest.strip_prefix(b".") {
            Some(rest) => {
                let (fraction, rest) = digits(rest);
                // `1.` and `.5` are no numbers.
                (Some(fraction).filter(|fraction| !fraction.is_empty())?, rest)
            }
            None => (&[][..], rest),
        };
        if whole.is_empty() {
            return None;
        }
        let ten = |number: u128, digit: &u8| {
            number.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
        };
        let (kept, lost) = fraction.split_at(fraction.len().min(9));
        let is_more = lost.iter().any(|&digit| digit != b'0');
        let kept = kept.iter().chain([b'0'; 9].iter().skip(kept.len())).fold(0, ten);
        let whole = whole.iter().fold(0, ten);
        Some((Self { whole, billionths: kept + u128::from(is_more) }, rest))
    }

    /// So many times a number of nanoseconds, in nanoseconds, rounded up.
    pub(super) fn times(self, nanos: u128) -> u128 {
        let fraction = (self.billionths * nanos).div_ceil(SECOND);
        self.whole.saturating_mul(nanos).saturating_add(fraction)
    }
}

/// Reads a text that is a number.
pub(super) fn read(text: &[u8], unit: Unit) -> Option<Later> {
    let (number, rest) = Number::prefix(text)?;
    rest.is_empty().then(|| later(number, unit))
}

/// The meaning of a number without a unit.
pub(super) fn later(number: Number, unit: Unit) -> Later {
    let nanos = match unit {
        Unit::Seconds => SECOND,
        Unit::Milliseconds => SECOND / 1000,
    };
    let wait = number.times(nanos);
    if wait <= LONGEST_DELAY {
        return Later::In(duration(wait));
    }
    // What is too large for a point in time as well is a very long wait.
    let unit = UNITS.iter().find(|(most, _)| number.whole <= *most);
    unit.map_or(Later::In(LONGEST), |(_, nanos)| Later::At(duration(number.times(*nanos))))
}

/// A time in nanoseconds, at most as long as a [`u64`] of seconds.
pub(in crate::client::hints) fn duration(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(nanos % SECOND).unwrap_or_default())
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}
