//! Dates.

use std::time::{Duration, UNIX_EPOCH};

use super::number::{Number, SECOND, duration};

const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The zones that have a name in RFC 5322, section 4.3, and the hours that each is behind GMT.
/// Other abbreviations have several meanings.
const ZONES: [(&str, i64); 12] = [
    ("GMT", 0),
    ("UTC", 0),
    ("UT", 0),
    ("Z", 0),
    ("EDT", 4),
    ("EST", 5),
    ("CDT", 5),
    ("CST", 6),
    ("MDT", 6),
    ("MST", 7),
    ("PDT", 7),
    ("PST", 8),
];

/// A date, as the time since 1970. It has one of these forms:
/// * the three forms of an HTTP-date (RFC 9110, section 5.6.7);
/// * the first of them with another zone: `Sun, 06 Nov 1994 09:49:37 +0100`;
/// * what JavaScript makes of a `Date`:
///   `Sun Nov 06 1994 09:49:37 GMT+0100 (Central European Standard Time)`;
/// * `1994-11-06T08:49:37.5Z` (RFC 3339), with any offset. Without one, it is in UTC.
///
/// A date before 1970 counts as its beginning. The weekday does not matter.
pub(super) fn date(text: &str) -> Option<Duration> {
    let http = || httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok();
    http().or_else(|| iso(text)).or_else(|| words(text))
}

pub(super) fn is_weekday(word: &[u8]) -> bool {
    place(&WEEKDAYS, word).is_some()
}

/// The index of a name, which may be abbreviated to three letters.
fn place(names: &[&str], word: &[u8]) -> Option<usize> {
    names.iter().position(|name| {
        let name = name.as_bytes();
        name.eq_ignore_ascii_case(word) || name[..3].eq_ignore_ascii_case(word)
    })
}

/// The parts of a date.
#[derive(Default)]
struct Parts {
    year: Option<i64>,
    /// From 1 to 12.
    month: Option<i64>,
    day: Option<i64>,
    /// The nanoseconds since midnight.
    time: Option<u128>,
    /// How many seconds the zone is ahead of GMT.
    ahead: Option<i64>,
}

impl Parts {
    fn since_1970(&self) -> Option<Duration> {
        let (year, month, day) = (self.year?, self.month?, self.day?);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if !(1..=days).contains(&day) {
            return None;
        }
        let midnight = days_since_1970(year, month, day) * 86_400 - self.ahead?;
        let nanos = i128::from(midnight) * 1_000_000_000 + i128::try_from(self.time?).ok()?;
        Some(duration(u128::try_from(nanos).unwrap_or_default()))
    }
}

/// By the Gregorian calendar. The year begins in March, so that a leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From 1 March of the year 0 to 1970 it is 719,468 days.
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// `1994-11-06T08:49:37Z`.
fn iso(text: &str) -> Option<Duration> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut numbers = date.split('-').map(number);
    let rest = rest.strip_prefix(['T', 't', ' ', '_'])?;
    let end =
        rest.find(|character: char| !(character.is_ascii_digit() || ":.".contains(character)));
    let (time, offset) = rest.split_at(end.unwrap_or(rest.len()));
    // Go adds the zone's name to the offset.
    let offset = offset.split_ascii_whitespace().next().unwrap_or_default();
    let parts = Parts {
        year: numbers.next()?,
        month: numbers.next()?,
        day: numbers.next()?,
        time: time_of_day(time),
        ahead: if offset.is_empty() { Some(0) } else { zone(offset) },
    };
    if numbers.next().is_some() { None } else { parts.since_1970() }
}

/// The words of a date in any order, but the day before the year.
fn words(text: &str) -> Option<Duration> {
    // What is in parentheses is the zone's name.
    let text = text.split('(').next().unwrap_or_default();
    let mut parts = Parts::default();
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let is_day_of_year = word.starts_with(|character: char| character.is_ascii_digit());
        if is_day_of_year && word.contains('-') {
            // `06-Nov-94`
            word.split('-').try_for_each(|word| add(&mut parts, word))?;
        } else {
            add(&mut parts, word)?;
        }
    }
    parts.since_1970()
}

/// Adds a word. `None` if it is there for the second time, or makes no sense.
fn add(parts: &mut Parts, word: &str) -> Option<()> {
    if is_weekday(word.as_bytes()) {
        return Some(());
    }
    if let Some(month) = place(&MONTHS, word.as_bytes()) {
        return set(&mut parts.month, i64::try_from(month + 1).ok()?);
    }
    if word.contains(':') && parts.time.is_none() {
        return set(&mut parts.time, time_of_day(word)?);
    }
    match number(word) {
        Some(number) if word.len() <= 2 && parts.day.is_none() => set(&mut parts.day, number),
        // Years of two digits are those from 1970 to 2069.
        Some(number) if word.len() == 2 => {
            set(&mut parts.year, number + if number < 70 { 2000 } else { 1900 })
        }
        Some(number) if word.len() == 4 => set(&mut parts.year, number),
        Some(_) => None,
        None => set(&mut parts.ahead, zone(word)?),
    }
}

fn set<T>(part: &mut Option<T>, value: T) -> Option<()> {
    part.replace(value).is_none().then_some(())
}

/// `08:49:37.5` or `08:49`, in nanoseconds. The sixtieth second is a leap second.
fn time_of_day(text: &str) -> Option<u128> {
    let mut parts = text.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let second = match parts.next() {
        Some(second) => {
            let (second, rest) = Number::prefix(second.as_bytes())?;
            rest.is_empty().then(|| second.times(SECOND))?
        }
        None => 0,
    };
    let is_valid = hour < 24 && minute < 60 && second < 61 * SECOND && parts.next().is_none();
    let seconds = u128::try_from(hour * 3600 + minute * 60).ok()?;
    is_valid.then(|| seconds * SECOND + second)
}

/// `GMT`, `+0100`, `+01:00`, `-05` or `GMT+0100`: how many seconds the zone is ahead of GMT.
fn zone(text: &str) -> Option<i64> {
    let sign = text.find(['+', '-']).unwrap_or(text.len());
    let (name, offset) = text.split_at(sign);
    let behind = match ZONES.iter().find(|(zone, _)| zone.eq_ignore_ascii_case(name)) {
        Some((_, behind)) if offset.is_empty() || *behind == 0 => *behind,
        None if name.is_empty() => 0,
        _ => return None,
    };
    if offset.is_empty() {
        return Some(-behind * 3600);
    }
    let (sign, digits) = offset.split_at(1);
    let (hours, minutes) = match digits.as_bytes() {
        [_, _] => (digits, "0"),
        [_, _, _, _] => digits.split_at_checked(2)?,
        [_, _, b':', _, _] => digits.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let ahead = hours * 3600 + minutes * 60;
    (hours < 24 && minutes < 60).then_some(if sign == "-" { -ahead } else { ahead })
}

/// A number of at most four digits, without a sign.
fn number(text: &str) -> Option<i64> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}
