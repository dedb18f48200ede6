//! Texts that say "later": how long to wait, or until when.

mod date;
mod number;
mod span;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub(super) use number::duration;

/// The longest wait that is returned: 100 years, so that sums of waits and times do not overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

/// A wait, or the time at which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// This long after the response was made.
    In(Duration),
    /// This long after the beginning of 1970, by the server's clock.
    At(Duration),
}

/// What a number without a unit counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// Reads one value. `None` if it is not understood.
///
/// * `120`, `2.863`: a number in `unit`. A fraction is rounded up to the nanosecond. A number that
///   is too large for a wait, more than 31 years, is a Unix time in seconds, milliseconds,
///   microseconds or nanoseconds, told apart by its magnitude.
/// * `6m0s`, `120 seconds`, `PT1M30S`, `P1DT2H`, `0:01:30`: a time with units.
/// * `Sun, 06 Nov 1994 08:49:37 GMT`: a date, see [`date::date`].
pub(super) fn read(text: &[u8], unit: Unit) -> Option<Later> {
    let text = unquoted(without_parameters(text).trim_ascii());
    number::read(text, unit).or_else(|| span::read(text).map(Later::In)).or_else(|| {
        let text = std::str::from_utf8(text).ok()?;
        date::date(text).map(Later::At)
    })
}

/// Reads a value that is a number without a unit.
pub(super) fn number(text: &[u8]) -> Option<Later> {
    number::read(text.trim_ascii(), Unit::Seconds)
}

/// A whole number of seconds, or a Unix time.
pub(super) fn of_number(number: u64) -> Later {
    number::later(number::Number::from(number), Unit::Seconds)
}

/// The values of a list with commas. In `Sun, 06 Nov 1994 08:49:37 GMT`, the comma belongs to the
/// date.
pub(super) fn values(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    let mut next = move || {
        let line = rest?;
        let comma = |from: usize| {
            line[from..].iter().position(|&byte| byte == b',').map(|comma| from + comma)
        };
        let end = comma(0).and_then(|at| {
            if date::is_weekday(line[..at].trim_ascii()) { comma(at + 1) } else { Some(at) }
        });
        rest = end.map(|end| &line[end + 1..]);
        Some(line[..end.unwrap_or(line.len())].trim_ascii())
    };
    std::iter::from_fn(move || {
        loop {
            let value = next()?;
            if !value.is_empty() {
                return Some(value);
            }
        }
    })
}

/// The parameters of an Item (RFC 9651, section 3.3) say nothing about the time.
fn without_parameters(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == b';').next().unwrap_or_default()
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text).trim_ascii()
}
