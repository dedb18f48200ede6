//! The `Retry-After` field.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The longest wait that is returned: 100 years, so that sums of waits and times do not overflow.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

/// How long the response asks the client to wait: by `retry-after-ms`, which is more precise, or
/// else by `Retry-After` (RFC 9110, section 10.2.3). `None` if neither has a valid value.
pub(in crate::client) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    wait(headers, system_clock)
}

/// The time of a response in whole seconds since 1970. It is the time in the response's own `Date`
/// field, so that a wrong clock here does not matter, or else the time of the system's clock.
pub(super) fn unix_now(headers: &HeaderMap) -> u64 {
    time_of(headers, system_clock)
}

fn wait(headers: &HeaderMap, clock: impl FnOnce() -> u64) -> Option<Duration> {
    if let Some(millis) = single(headers, &RETRY_AFTER_MS).and_then(digits) {
        return Some(Duration::from_millis(millis).min(LONGEST));
    }
    let value = single(headers, &RETRY_AFTER)?;
    let seconds = match digits(value) {
        Some(seconds) => seconds,
        // Servers round both times down to seconds, so the difference is never too short because of
        // that.
        None => date(value)?.saturating_sub(time_of(headers, clock)),
    };
    Some(Duration::from_secs(seconds).min(LONGEST))
}

fn time_of(headers: &HeaderMap, clock: impl FnOnce() -> u64) -> u64 {
    single(headers, &DATE).and_then(date).unwrap_or_else(clock)
}

fn system_clock() -> u64 {
    seconds_since_1970(SystemTime::now())
}

fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The value of a field that occurs once, or several times with the same value: the fields read
/// here are not lists.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.any(|value| value != first) {
        return None;
    }
    Some(first.to_str().ok()?.trim_matches([' ', '\t']))
}

/// `1*DIGIT`, of any length. `str::parse` would accept a sign, and fail if the number is too large.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.chars().try_fold(0_u64, |number, character| {
        Some(number.saturating_mul(10).saturating_add(character.to_digit(10)?.into()))
    })
}

/// An HTTP-date in any of its three forms, as seconds since 1970.
fn date(text: &str) -> Option<u64> {
    httpdate::parse_http_date(text).ok().map(seconds_since_1970)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What the system's clock says here: 06 Nov 1994 08:49:37.
    const NOW: u64 = 784_111_777;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn asks(fields: &[(&'static str, &str)], expected: impl Into<Option<u64>>) {
        let expected = expected.into().map(Duration::from_millis);
        assert_eq!(wait(&headers(fields), || NOW), expected, "{fields:?}");
    }

    #[test]
    fn seconds_are_digits() {
        asks(&[("retry-after", "0")], 0);
        asks(&[("retry-after", "1")], 1000);
        asks(&[("retry-after", "0000120")], 120_000);
        asks(&[("retry-after", " \t7 ")], 7000);
        for value in [
            "", " ", "-1", "+1", "1.5", "1e3", "0x10", "soon", "NaN", "inf", "1, 1", "1s", "1 000",
            "\u{661}",
        ] {
            asks(&[("retry-after", value)], None);
        }
        asks(&[], None);
    }

    #[test]
    fn a_wait_that_does_not_fit_is_a_hundred_years() {
        let longest = u64::try_from(LONGEST.as_millis()).unwrap();
        asks(&[("retry-after", "3155760001")], longest);
        asks(&[("retry-after", "18446744073709551616")], longest);
        asks(&[("retry-after", &"9".repeat(10_000))], longest);
        asks(&[("retry-after-ms", &"9".repeat(10_000))], longest);
        asks(&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], longest);
    }

    #[test]
    fn milliseconds_come_first_if_they_make_sense() {
        asks(&[("retry-after-ms", "118"), ("retry-after", "1")], 118);
        asks(&[("retry-after-ms", "0"), ("retry-after", "1")], 0);
        asks(&[("retry-after-ms", "118")], 118);
        for value in ["", "-1", "1.5", "soon"] {
            asks(&[("retry-after-ms", value), ("retry-after", "1")], 1000);
            asks(&[("retry-after-ms", value)], None);
        }
        asks(&[("retry-after-ms", "1"), ("retry-after-ms", "2"), ("retry-after", "1")], 1000);
    }

    #[test]
    fn a_date_has_three_forms() {
        for form in [
            "Sun, 06 Nov 1994 08:49:47 GMT",
            "Sunday, 06-Nov-94 08:49:47 GMT",
            "Sun Nov  6 08:49:47 1994",
        ] {
            asks(&[("retry-after", form)], 10_000);
        }
        for value in [
            "Sun, 06 Nov 1994 08:49:47",
            "Mon, 06 Nov 1994 08:49:47 GMT",
            "Sun, 31 Feb 1994 08:49:47 GMT",
        ] {
            asks(&[("retry-after", value)], None);
        }
    }

    #[test]
    fn a_date_that_has_passed_is_no_wait() {
        asks(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], 0);
        asks(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")], 0);
    }

    #[test]
    fn a_date_is_measured_from_the_date_of_the_response() {
        let retry_after = ("retry-after", "Wed, 07 Feb 2035 10:00:30 GMT");
        asks(&[("date", "Wed, 07 Feb 2035 10:00:00 GMT"), retry_after], 30_000);
        asks(&[("date", "Wed, 07 Feb 2035 10:00:31 GMT"), retry_after], 0);

        let retry_after = ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT");
        asks(&[("date", "today"), retry_after], 10_000);
        let (one, another) = ("Sun, 06 Nov 1994 08:49:46 GMT", "Sun, 06 Nov 1994 08:49:45 GMT");
        asks(&[("date", one), ("date", another), retry_after], 10_000);
    }

    #[test]
    fn several_values_have_to_agree() {
        asks(&[("retry-after", "1"), ("retry-after", "1")], 1000);
        asks(&[("retry-after", "1"), ("retry-after", "2")], None);
        asks(&[("retry-after", "1"), ("retry-after", "soon")], None);
    }

    #[test]
    fn the_time_is_that_of_the_response() {
        assert_eq!(unix_now(&headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")])), NOW);
        assert!(unix_now(&HeaderMap::new()) > NOW);
    }
}
