//! Times in the texts of errors.

use std::fmt;
use std::time::Duration;

const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// A time that people read, such as `20.5s`, `5min 0.1s` or `1d 12h`, with few digits.
///
/// A wait is rounded up and a bound is rounded down, so that a wait which is a little longer than
/// a bound does not look the same.
#[derive(Clone, Copy)]
pub(super) enum Readable {
    Wait(Duration),
    Bound(Duration),
}

impl Readable {
    /// In units of that many nanoseconds.
    const fn rounded(self, unit: u128) -> u128 {
        match self {
            Self::Wait(time) => time.as_nanos().div_ceil(unit),
            Self::Bound(time) => time.as_nanos() / unit,
        }
    }
}

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.rounded(1);
        if nanos < 1_000 {
            return write!(f, "{nanos}ns");
        }
        for (unit, name, end) in [
            (1_000, "\u{b5}s", 1_000),
            (1_000_000, "ms", 1_000),
            (SECOND, "s", 2 * MINUTE / SECOND),
        ] {
            let tenths = self.rounded(unit / 10);
            if tenths < end * 10 {
                return write!(f, "{}.{}{name}", tenths / 10, tenths % 10);
            }
        }
        let (units, step) = match nanos {
            0..HOUR => (&[(MINUTE, "min")][..], SECOND / 10),
            HOUR..DAY => (&[(HOUR, "h"), (MINUTE, "min")][..], SECOND),
            _ => (&[(DAY, "d"), (HOUR, "h"), (MINUTE, "min")][..], MINUTE),
        };
        let mut rest = self.rounded(step) * step;
        let mut space = "";
        for (unit, name) in units {
            if rest >= *unit {
                write!(f, "{space}{}{name}", rest / unit)?;
                space = " ";
            }
            rest %= unit;
        }
        match (rest / SECOND, rest % SECOND / (SECOND / 10)) {
            (0, 0) => Ok(()),
            (seconds, 0) => write!(f, "{space}{seconds}s"),
            (seconds, tenths) => write!(f, "{space}{seconds}.{tenths}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_few_digits() {
        for (nanos, wait, bound) in [
            (1, "1ns", "1ns"),
            (1_001, "1.1\u{b5}s", "1.0\u{b5}s"),
            (1_000_000, "1.0ms", "1.0ms"),
            (999_999_999, "1.0s", "999.9ms"),
            (SECOND, "1.0s", "1.0s"),
            (40 * SECOND, "40.0s", "40.0s"),
            (300 * SECOND, "5min", "5min"),
            (300 * SECOND + 1, "5min 0.1s", "5min"),
            (HOUR - 1, "60min", "59min 59.9s"),
            (HOUR, "1h", "1h"),
            (HOUR + 2 * MINUTE + 3 * SECOND + 1, "1h 2min 4s", "1h 2min 3s"),
            (DAY, "1d", "1d"),
            (DAY + 2 * HOUR + 1, "1d 2h 1min", "1d 2h"),
        ] {
            let time = Duration::from_nanos(u64::try_from(nanos).expect("small"));
            assert_eq!(Readable::Wait(time).to_string(), wait);
            assert_eq!(Readable::Bound(time).to_string(), bound);
        }
        assert_eq!(Readable::Bound(Duration::MAX).to_string(), "213503982334601d 7h");
    }
}
