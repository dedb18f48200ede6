//! Times with units.

use std::time::Duration;

use super::LONGEST;
use super::number::{Number, SECOND, duration};

const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// The names of each unit, and its length in nanoseconds.
const UNITS: [(&[&str], u128); 8] = [
    (&["w", "week", "weeks"], 7 * DAY),
    (&["d", "day", "days"], DAY),
    (&["h", "hr", "hrs", "hour", "hours"], HOUR),
    (&["m", "min", "mins", "minute", "minutes"], MINUTE),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"], SECOND / 1000),
    // With the micro sign, or with the Greek letter.
    (&["us", "\u{b5}s", "\u{3bc}s", "usec", "microsecond", "microseconds"], SECOND / 1_000_000),
    (&["ns", "nanosecond", "nanoseconds"], 1),
];

/// Reads a text that is a time with units: `6m0s`, `1.5 seconds`, `PT1M30S` or `P1DT2H` (ISO 8601),
/// or without their names: `0:01:30.5`. The larger unit comes first.
pub(super) fn read(text: &[u8]) -> Option<Duration> {
    let nanos = match text.strip_prefix(b"P") {
        Some(period) => iso_8601(period),
        None => with_colons(text).or_else(|| with_units(text, 0)),
    };
    Some(duration(nanos?).min(LONGEST))
}

/// Weeks and days before the `T`, and hours, minutes and seconds after it. An `M` before it would
/// be months, which have no certain length, as years have none.
fn iso_8601(period: &[u8]) -> Option<u128> {
    let Some(end) = period.iter().position(|&byte| byte == b'T') else {
        return with_units(period, DAY);
    };
    let (days, time) = (&period[..end], &period[end + 1..]);
    let days = if days.is_empty() { 0 } else { with_units(days, DAY)? };
    Some(days.saturating_add(with_units(time, 0)?))
}

/// Numbers with units, none of which is shorter than `least`.
fn with_units(text: &[u8], least: u128) -> Option<u128> {
    let mut rest = text;
    let (mut sum, mut smallest) = (0_u128, u128::MAX);
    while !rest.is_empty() {
        let (number, after) = Number::prefix(rest)?;
        let after = after.trim_ascii_start();
        let is_end = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace();
        let end = after.iter().position(is_end).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let is_it = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
        let (_, unit) = UNITS.iter().find(|(names, _)| names.iter().any(is_it))?;
        if *unit >= smallest || *unit < least {
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
