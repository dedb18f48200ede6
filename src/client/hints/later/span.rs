//! Times with units.

use std::time::Duration;

use super::LONGEST;
use super::number::{Number, SECOND, duration};

const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;

/// The names of each unit, and its length in nanoseconds.
const UNITS: [(&[&str], u128); 7] = [
    (&["d", "day", "days"], 24 * HOUR),
    (&["h", "hr", "hrs", "hour", "hours"], HOUR),
    (&["m", "min", "mins", "minute", "minutes"], MINUTE),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"], SECOND / 1000),
    // With the micro sign, or with the Greek letter.
    (&["us", "\u{b5}s", "\u{3bc}s", "usec", "microsecond", "microseconds"], SECOND / 1_000_000),
    (&["ns", "nanosecond", "nanoseconds"], 1),
];

/// Reads a text that is a time with units: `6m0s`, `1.5 seconds` or `PT1M30S` (ISO 8601), or
/// without their names: `0:01:30.5`. The larger unit comes first.
pub(super) fn read(text: &[u8]) -> Option<Duration> {
    let nanos = with_colons(text).or_else(|| with_units(text))?;
    Some(duration(nanos).min(LONGEST))
}

fn with_units(text: &[u8]) -> Option<u128> {
    let mut rest = text.strip_prefix(b"PT").unwrap_or(text);
    let (mut sum, mut smallest) = (0_u128, u128::MAX);
    while !rest.is_empty() {
        let (number, after) = Number::prefix(rest)?;
        let after = after.trim_ascii_start();
        let is_end = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace();
        let end = after.iter().position(is_end).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let is_it = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
        let (_, unit) = UNITS.iter().find(|(names, _)| names.iter().any(is_it))?;
        if *unit >= smallest {
            return None;
        }
        smallest = *unit;
        sum = sum.saturating_add(number.times(*unit));
        rest = after.trim_ascii_start();
    }
    (smallest < u128::MAX).then_some(sum)
}

/// Hours, minutes and seconds, as .NET and Python write them.
fn with_colons(text: &[u8]) -> Option<u128> {
    let mut parts = text.split(|&byte| byte == b':');
    let mut sum = 0_u128;
    for unit in [HOUR, MINUTE, SECOND] {
        let (number, rest) = Number::prefix(parts.next()?)?;
        if !rest.is_empty() {
            return None;
        }
        sum = sum.saturating_add(number.times(unit));
    }
    parts.next().is_none().then_some(sum)
}
