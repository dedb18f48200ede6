//! The fields by which a refusal says when a request may be sent again.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName};

use super::Standings;
use super::exchange::Exchange;
use super::later::Unit::{Milliseconds, Seconds};
use super::later::{self, LONGEST, Later, Unit};

/// The fields that say when a request may be sent again, the more precise ones first.
static WAITS: [(HeaderName, Unit); 9] = [
    // OpenAI, and Azure.
    (HeaderName::from_static("retry-after-ms"), Milliseconds),
    (HeaderName::from_static("x-ms-retry-after-ms"), Milliseconds),
    // RFC 9110, section 10.2.3.
    (RETRY_AFTER, Seconds),
    // Better Auth.
    (HeaderName::from_static("x-retry-after"), Seconds),
    // tower_governor and actix-governor.
    (HeaderName::from_static("x-ratelimit-after"), Seconds),
    // MailerLite, Wildberries, and Smoobu with a Unix time.
    (HeaderName::from_static("x-ratelimit-retry-after"), Seconds),
    // Guides to Bucket4j.
    (HeaderName::from_static("x-rate-limit-retry-after-seconds"), Seconds),
    // Discord.
    (HeaderName::from_static("x-ratelimit-reset-after"), Seconds),
    (HeaderName::from_static("x-ratelimit-reset-ms"), Milliseconds),
];

/// The fields that say when a limit begins anew, which may not be the one that refused the request.
static RESETS: [(HeaderName, Unit); 4] = [
    (HeaderName::from_static("ratelimit-reset"), Seconds),
    (HeaderName::from_static("x-ratelimit-reset"), Seconds),
    // X, Okta and Yii.
    (HeaderName::from_static("x-rate-limit-reset"), Seconds),
    // OpenAI and Groq.
    (HeaderName::from_static("x-ratelimit-reset-requests"), Seconds),
];

/// How long a response asks the client to wait, by the first of the fields above that is
/// understood. `None` if none is.
pub(in crate::client) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    asked(&Exchange::alone(headers))
}

/// How long a refusal asks the client to wait: by a field for that, or else until an exhausted
/// limit has units again. `None` if nothing is understood.
pub(in crate::client) fn wait(
    exchange: &Exchange<'_>,
    standings: Option<&Standings>,
) -> Option<Duration> {
    let exhausted = standings.and_then(Standings::exhausted);
    if exhausted.is_some_and(|exhausted| is_in_milliseconds(exchange, exhausted)) {
        return exhausted;
    }
    // A limit that has begun anew is not the one that refused the request.
    let reset = || first_of(exchange, &RESETS).filter(|reset| !reset.is_zero());
    asked(exchange).or(exhausted).or_else(reset)
}

/// The time in `Retry-After`, if there is one.
pub(super) fn standard(exchange: &Exchange<'_>) -> Option<Duration> {
    exchange.longest(&RETRY_AFTER, Seconds)
}

fn asked(exchange: &Exchange<'_>) -> Option<Duration> {
    first_of(exchange, &WAITS)
}

fn first_of(exchange: &Exchange<'_>, fields: &[(HeaderName, Unit)]) -> Option<Duration> {
    let wait = fields.iter().find_map(|(name, unit)| exchange.longest(name, *unit))?;
    Some(wait.min(LONGEST))
}

/// Whether `Retry-After` is in milliseconds by mistake, as fastify-rate-limit 8.0.0 sent it: 60000,
/// where the limit begins anew in 58 s (fastify/fastify-rate-limit#301).
///
/// Milliseconds have to fit that time: they are the same to the second, or those of a whole window
/// that ends then. And seconds have to be far from it: there may be another limit, of a day.
fn is_in_milliseconds(exchange: &Exchange<'_>, exhausted: Duration) -> bool {
    let Some(value) = exchange.headers.get(RETRY_AFTER) else { return false };
    let Some(Later::In(asked)) = later::number(value.as_bytes()) else { return false };
    let (fits, second) = (asked / 1000, Duration::from_secs(1));
    let is_whole = fits.subsec_nanos() == 0 && fits + second >= exhausted;
    asked > 100 * (exhausted + second) && (is_whole || fits.abs_diff(exhausted) <= second)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::client::hints::{Memo, Names, standings};
    use crate::values::Endpoint;

    /// A date from which others are measured, since the system's clock is not within a second of
    /// it.
    const DATE: (&str, &str) = ("date", "Wed, 07 Feb 2035 10:00:00 GMT");
    const UNIX_TIME: u64 = 2_054_455_200;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    /// How long a refusal with these fields asks to wait.
    fn wait_of(headers: &HeaderMap) -> Option<Duration> {
        let names = Names { rates: [Endpoint::CALL.into()].into(), concurrent: [].into() };
        let exchange = Exchange::alone(headers);
        let standings = standings(&exchange, &names, &mut Memo::default());
        wait(&exchange, standings.as_ref())
    }

    #[track_caller]
    fn asks(fields: &[(&'static str, &str)], millis: impl Into<Option<u64>>) {
        let expected = millis.into().map(Duration::from_millis);
        assert_eq!(wait_of(&headers(fields)), expected, "{fields:?}");
    }

    #[track_caller]
    fn asks_from_date(field: (&'static str, &str), millis: impl Into<Option<u64>>) {
        asks(&[DATE, field], millis);
    }

    #[test]
    fn the_more_precise_field_counts() {
        asks(&[("retry-after-ms", "118"), ("retry-after", "1")], 118);
        asks(&[("retry-after-ms", "0"), ("retry-after", "1")], 0);
        asks(&[("retry-after-ms", "118")], 118);
        asks(&[("x-ms-retry-after-ms", "9"), ("retry-after", "1")], 9);
        // What is not understood counts as absent.
        for value in ["", "-1", "soon"] {
            asks(&[("retry-after-ms", value), ("retry-after", "1")], 1000);
            asks(&[("retry-after-ms", value)], None);
            asks(&[("retry-after", value), ("x-ratelimit-after", "3")], 3000);
            asks(&[("retry-after", value)], None);
        }
        asks(&[], None);
    }

    #[test]
    fn fields_of_many_limiters_are_known() {
        for (fields, millis) in [
            // tower_governor and actix-governor.
            (&[("retry-after", "2"), ("x-ratelimit-after", "2")][..], 2000),
            (&[("x-ratelimit-after", "2")], 2000),
            // rate-limiter-flexible's README.
            (&[("retry-after", "2.863"), ("x-ratelimit-remaining", "0")], 2863),
            // Discord.
            (&[("x-ratelimit-reset-after", "1.5")], 1500),
            (&[("retry-after", "2"), ("x-ratelimit-reset-after", "1.5")], 2000),
            (&[("x-retry-after", "12")], 12_000),
            (&[("x-ratelimit-retry-after", "1s")], 1000),
            (&[("x-rate-limit-retry-after-seconds", "59")], 59_000),
            (&[("x-ratelimit-reset-ms", "1500")], 1500),
            // OpenAI: the last of these is about another limit.
            (&[("x-ratelimit-reset-requests", "6m0s")], 360_000),
            (&[("x-ratelimit-reset-requests", "6m0s"), ("retry-after-ms", "20")], 20),
            // Datadog sends it twice (DataDog/datadog-api-client-python#3460).
            (&[("x-ratelimit-reset", "7"), ("x-ratelimit-reset", "7")], 7000),
            // WHOOP.
            (
                &[
                    ("x-ratelimit-limit", "100, 100;window=60, 10000;window=86400"),
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "3"),
                ],
                3000,
            ),
        ] {
            asks(fields, millis);
        }
    }

    #[test]
    fn points_in_time_are_measured_from_the_date_of_the_response() {
        // X-RateLimit-Reset: GitHub, and with a fraction slowapi.
        asks(&[DATE, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2054455207")], 7000);
        asks(
            &[DATE, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2054455207.678")],
            7678,
        );
        // GitLab.
        asks(&[DATE, ("ratelimit-remaining", "0"), ("ratelimit-reset", "2054455207")], 7000);
        asks(&[DATE, ("ratelimit-remaining", "0"), ("ratelimit-reset", "2054455207.5")], 7500);
        for (time, millis) in [
            // cloudfoundry/cloud_controller_ng#2544
            ("2054455212", 12_000),
            ("2054455212001", 12_001),
            ("2054455212001000", 12_001),
            ("2054455212001000000", 12_001),
            ("Wed, 07 Feb 2035 10:00:12 GMT", 12_000),
            ("Wednesday, 07-Feb-35 10:00:12 GMT", 12_000),
            ("Wed Feb  7 10:00:12 2035", 12_000),
            ("Wed, 07 Feb 2035 11:00:12 +0100", 12_000),
            ("2035-02-07T10:00:12.25Z", 12_250),
            // A time that has passed is no wait.
            ("Wed, 07 Feb 2035 10:00:00 GMT", 0),
            ("Wed, 07 Feb 2035 09:59:59 GMT", 0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("2054455199", 0),
        ] {
            asks_from_date(("retry-after", time), millis);
        }
        // A reset that has passed says nothing about the refusal.
        asks_from_date(("x-ratelimit-reset", "2054455199"), None);
        asks(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "0")], None);
        // X and Okta: the remaining units are not read.
        asks_from_date(("x-rate-limit-reset", "2054455207"), 7000);
        let longest = u64::try_from(LONGEST.as_millis()).unwrap();
        asks_from_date(("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"), longest);
        asks_from_date(("retry-after", "99999999999"), longest);
    }

    #[test]
    fn the_longest_of_several_values_counts() {
        asks(&[("retry-after", "1"), ("retry-after", "1")], 1000);
        asks(&[("retry-after", "1"), ("retry-after", "2")], 2000);
        asks(&[("retry-after", "2, 1")], 2000);
        asks(&[("retry-after", "7, 7")], 7000);
        asks(&[("retry-after", "1"), ("retry-after", "soon")], 1000);
        asks(&[("retry-after", "soon, 1")], 1000);
        asks_from_date(("retry-after", "5, Wed, 07 Feb 2035 10:00:12 GMT, 7"), 12_000);
        asks(&[("retry-after-ms", "1"), ("retry-after-ms", "2"), ("retry-after", "1")], 2);
    }

    #[test]
    fn the_age_of_a_response_is_taken_off() {
        asks(&[("age", "0"), ("retry-after", "60")], 60_000);
        asks(&[("age", "20"), ("retry-after", "60")], 40_000);
        asks(&[("age", "20, 0"), ("retry-after", "60")], 40_000);
        // Nothing is known once the time is over.
        asks(&[("age", "60"), ("retry-after", "60")], None);
        asks(&[("age", "300"), ("retry-after", "60")], None);
        // An invalid age is ignored.
        for age in ["", "-7200", "abc", "+5"] {
            asks(&[("age", age), ("retry-after", "60")], 60_000);
        }
        // What was left when the response was made does not matter any more.
        asks(&[("age", "300"), ("ratelimit", "\"call\";r=0;t=50")], None);
        asks(&[("age", "0"), ("ratelimit", "\"call\";r=0;t=50")], 50_000);
        // A point in time stays what it is, but Date is of no use.
        let soon = std::time::SystemTime::now() + Duration::from_secs(1000);
        let soon = httpdate::fmt_http_date(soon);
        let wait = wait_of(&headers(&[DATE, ("age", "300"), ("retry-after", &soon)])).unwrap();
        assert!((990..=1000).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn milliseconds_by_mistake_are_found_by_the_reset_beside_them() {
        let with_reset = |asked: &str, reset: &str, millis: u64| {
            asks(
                &[
                    ("retry-after", asked),
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", reset),
                ],
                millis,
            );
        };
        // fastify/fastify-rate-limit#301: those of the whole window.
        with_reset("60000", "58", 58_000);
        with_reset("60000", "1", 1000);
        // Those that are left.
        with_reset("6457", "6.457", 6457);
        with_reset("6457", "7", 7000);
        // In seconds: another limit, of a day.
        with_reset("43217", "58", 43_217_000);
        with_reset("600", "58", 600_000);
        with_reset("3600", "60", 3_600_000);
        with_reset("60", "60", 60_000);
        with_reset("5000", "60", 5_000_000);
        // Nothing says otherwise.
        asks(&[("retry-after", "60000")], 60_000_000);
    }

    #[test]
    fn the_system_clock_counts_without_a_date() {
        for date in [None, Some("today"), Some("12")] {
            let soon = std::time::SystemTime::now() + Duration::from_secs(1000);
            let soon = httpdate::fmt_http_date(soon);
            let mut fields = vec![("retry-after", &soon[..])];
            fields.extend(date.map(|date| ("date", date)));
            let wait = wait_of(&headers(&fields)).unwrap();
            assert!((990..=1000).contains(&wait.as_secs()), "{wait:?} with {date:?}");
        }
        // Two dates count as none.
        let (one, another) =
            (("date", "Wed, 07 Feb 2035 10:00:00 GMT"), ("date", "Wed, 07 Feb 2035 10:00:01 GMT"));
        let wait = wait_of(&headers(&[one, another, ("retry-after", "2054455212")])).unwrap();
        assert!(wait > Duration::from_secs(12), "{wait:?}");
    }

    /// A text for a point in time.
    fn written(time: Duration, form: usize) -> String {
        let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + time);
        match form {
            0 => time.as_secs().to_string(),
            1 => time.as_millis().to_string(),
            2 => format!("{}.{:03}", time.as_secs(), time.subsec_millis()),
            3 => date,
            _ => date.replace("GMT", "+0000"),
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_too_short(
            millis in 0..100_000_u64,
            more in 0..100_000_u64,
            form in 0..5_usize,
            is_first in any::<bool>(),
        ) {
            // Three of the forms have whole seconds.
            let millis = if matches!(form, 1 | 2) { millis } else { millis / 1000 * 1000 };
            let one = written(Duration::from_millis(UNIX_TIME * 1000 + millis), form);
            let other = format!("{}.{:03}", more / 1000, more % 1000);
            let list = if is_first { format!("{one}, {other}") } else { format!("{other}, {one}") };
            let wait = wait_of(&headers(&[DATE, ("retry-after", &list)]));
            prop_assert_eq!(wait, Some(Duration::from_millis(millis.max(more))));
        }

        #[test]
        fn no_bytes_are_too_strange(
            fields in prop::collection::vec(
                (0..WAITS.len() + RESETS.len() + 2, prop::collection::vec(32_u8.., 0..30)),
                0..8,
            ),
        ) {
            let mut headers = HeaderMap::new();
            for (at, value) in fields {
                let names = WAITS.iter().chain(&RESETS).map(|(name, _)| name.clone());
                let mut all = names.chain([http::header::AGE, http::header::DATE]);
                let name = all.nth(at).unwrap();
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(name, value);
                }
            }
            prop_assert!(wait_of(&headers).is_none_or(|wait| wait <= LONGEST));
            prop_assert!(retry_after(&headers).is_none_or(|wait| wait <= LONGEST));
        }
    }
}
