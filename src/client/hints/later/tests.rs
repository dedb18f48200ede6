#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

/// In words: `in 2.863 s`, or `at 1764412345.678`.
fn said(text: &str, unit: Unit) -> String {
    words(read(text.as_bytes(), unit))
}

fn words(later: Option<Later>) -> String {
    let number = |time: Duration| {
        let nanos = format!(".{:09}", time.subsec_nanos());
        format!("{}{}", time.as_secs(), nanos.trim_end_matches('0').trim_end_matches('.'))
    };
    match later {
        Some(Later::In(wait)) => format!("in {} s", number(wait)),
        Some(Later::At(time)) => format!("at {}", number(time)),
        None => "nothing".to_owned(),
    }
}

#[track_caller]
fn all_are(unit: Unit, vectors: &[(&str, &str)]) {
    for (text, expected) in vectors {
        assert_eq!(&said(text, unit), expected, "{text:?}");
    }
}

// Each with a server or library that sends it, where there is one.

#[test]
fn numbers_are_waits_in_seconds() {
    all_are(
        Unit::Seconds,
        &[
            ("120", "in 120 s"), // RFC 9110, section 10.2.3.
            ("0", "in 0 s"),
            ("0000120", "in 120 s"),
            (" \t7 ", "in 7 s"),
            ("\"30\"", "in 30 s"),
            ("60;w=60", "in 60 s"),  // Docker Hub, of other RateLimit fields.
            ("2.863", "in 2.863 s"), // rate-limiter-flexible's README.
            ("299.997", "in 299.997 s"), // opensearch-project/data-prepper#6927
            ("292.052427053", "in 292.052427053 s"), // getsentry/sentry#7919
            ("0.493", "in 0.493 s"), // SpaceTradersAPI/api-docs#24
            ("1.000", "in 1 s"),
            ("1.0000000001", "in 1.000000001 s"),
            ("1.00000000000000000000000000000000000000001", "in 1.000000001 s"),
            ("0.9999999999", "in 1 s"),
            ("1000000000", "in 1000000000 s"),
        ],
    );
}

#[test]
fn numbers_are_waits_in_milliseconds_where_the_field_is() {
    all_are(
        Unit::Milliseconds,
        &[
            ("118", "in 0.118 s"),
            ("0", "in 0 s"),
            ("1.5", "in 0.0015 s"),
            ("0.0000001", "in 0.000000001 s"),
            ("2s", "in 2 s"),
            ("1764412345678", "at 1764412345.678"),
        ],
    );
}

#[test]
fn large_numbers_are_points_in_time_by_their_magnitude() {
    all_are(
        Unit::Seconds,
        &[
            ("1771404540", "at 1771404540"), // openclaw/clawhub#407, in Retry-After.
            ("1372700873", "at 1372700873"), // GitHub.
            ("1764412345.678", "at 1764412345.678"), // slowapi.
            ("1470173023.123", "at 1470173023.123"), // Discord.
            ("1764412345678", "at 1764412345.678"),
            ("1764412345678901", "at 1764412345.678901"),
            ("1764412345678901234", "at 1764412345.678901234"),
            ("1764412345678.5", "at 1764412345.6785"),
            ("1000000000.5", "at 1000000000.5"),
            ("100000000000", "at 100000000000"),
            ("100000000001", "at 100000000.001"),
            // Too large for any of them.
            ("100000000000000000001", "in 3155760000 s"),
            ("99999999999999999999999999", "in 3155760000 s"),
        ],
    );
    assert_eq!(said(&"9".repeat(10_000), Unit::Seconds), "in 3155760000 s");
    assert_eq!(said(&"9".repeat(10_000), Unit::Milliseconds), "in 3155760000 s");
}

#[test]
fn times_may_have_units() {
    all_are(
        Unit::Seconds,
        &[
            ("1s", "in 1 s"), // OpenAI, as the following.
            ("6m0s", "in 360 s"),
            ("20ms", "in 0.02 s"),
            ("2m59.56s", "in 179.56 s"), // Groq.
            ("7.66s", "in 7.66 s"),
            ("1h0m0s", "in 3600 s"), // Go's time.Duration, as the following.
            ("1.5\u{b5}s", "in 0.0000015 s"),
            ("1.5\u{3bc}s", "in 0.0000015 s"),
            ("100ns", "in 0.0000001 s"),
            ("120 seconds", "in 120 s"),
            ("1 minute", "in 60 s"),
            ("1 Minute 30 Seconds", "in 90 s"),
            ("2 hours", "in 7200 s"),
            ("1d", "in 86400 s"),
            ("PT30S", "in 30 s"), // Java's Duration, as the following.
            ("PT1M30.5S", "in 90.5 s"),
            ("PT1H", "in 3600 s"),
            ("P1D", "in 86400 s"), // ISO 8601, as the following.
            ("P1DT2H", "in 93600 s"),
            ("P2W", "in 1209600 s"),
            ("P1DT0H0M0.5S", "in 86400.5 s"),
            ("P0D", "in 0 s"),
            ("00:00:30", "in 30 s"), // .NET's TimeSpan, as the following.
            ("00:00:00.033", "in 0.033 s"),
            ("0:01:30.250000", "in 90.25 s"), // Python's timedelta.
            ("99999999999999999999d", "in 3155760000 s"),
        ],
    );
}

#[test]
fn dates_have_the_forms_of_http_and_of_others() {
    all_are(
        Unit::Seconds,
        &[
            // RFC 9110, section 5.6.7.
            ("Sun, 06 Nov 1994 08:49:37 GMT", "at 784111777"),
            ("Sunday, 06-Nov-94 08:49:37 GMT", "at 784111777"),
            ("Sun Nov  6 08:49:37 1994", "at 784111777"),
            // The weekday is redundant.
            ("Mon, 06 Nov 1994 08:49:37 GMT", "at 784111777"),
            ("06 Nov 1994 08:49:37 GMT", "at 784111777"),
            // RFC 5322: Python's email.utils.formatdate without `usegmt`, as the following.
            ("Sun, 06 Nov 1994 08:49:37 -0000", "at 784111777"),
            ("Sun, 06 Nov 1994 08:49:37 +0000", "at 784111777"),
            ("Sun, 6 Nov 1994 08:49:37 UTC", "at 784111777"), // Go's time.RFC1123.
            ("Sun, 06 Nov 1994 09:49:37 +0100", "at 784111777"),
            ("Sun, 06 Nov 1994 14:19:37 +0530", "at 784111777"),
            ("Sun, 06 Nov 1994 03:49:37 EST", "at 784111777"),
            ("Sun, 06 Nov 1994 01:49:37 PDT", "at 784111777"),
            ("Sunday, 06-Nov-94 03:49:37 EST", "at 784111777"),
            // JavaScript's Date: lemlist, and rate-limiter-flexible's README.
            ("Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)", "at 1613462562"),
            ("Sun Nov 06 1994 08:49:37 GMT+0000 (Coordinated Universal Time)", "at 784111777"),
            // Go's time.Time.
            ("1994-11-06 09:49:37.5 +0100 CET", "at 784111777.5"),
            ("1994-11-06 08:49:37.5 +0000 UTC m=+1.25", "at 784111777.5"),
            // RFC 3339: Anthropic, and JavaScript's toISOString.
            ("1994-11-06T08:49:37Z", "at 784111777"),
            ("1994-11-06T08:49:37.123Z", "at 784111777.123"),
            ("1994-11-06t08:49:37z", "at 784111777"),
            ("1994-11-06T09:49:37+01:00", "at 784111777"),
            ("1994-11-06T09:49:37.5+0100", "at 784111777.5"),
            ("1994-11-06T03:49:37-05", "at 784111777"),
            ("1994-11-06 08:49:37 UTC", "at 784111777"), // Ruby's Time.
            ("1994-11-06 08:49:37 +0000", "at 784111777"),
            // Python's isoformat, of a time without a zone.
            ("1994-11-06T08:49:37.123456", "at 784111777.123456"),
            ("1994-11-06T08:49Z", "at 784111740"),
            // The edges of the calendar.
            ("1970-01-01T00:00:00Z", "at 0"),
            ("1969-12-31T23:59:59Z", "at 0"),
            ("Thu, 01 Jan 1970 00:00:00 +0100", "at 0"),
            ("2000-02-29T00:00:00Z", "at 951782400"),
            ("2024-02-29T23:59:60Z", "at 1709251200"),
            ("2100-03-01T00:00:00Z", "at 4107542400"),
            ("9999-12-31T23:59:59Z", "at 253402300799"),
            ("Fri, 31 Dec 9999 23:59:59 GMT", "at 253402300799"),
        ],
    );
}

#[test]
fn anything_else_is_not_understood() {
    for text in [
        "",
        " ",
        "\"\"",
        "-1",
        "+1",
        "1e3",
        "1.",
        ".5",
        "1.5.5",
        "0x10",
        "soon",
        "NaN",
        "inf",
        "1 000",
        "1,5",
        "\u{661}",
        "s",
        "1x",
        "1s1s",
        "1s 1m",
        "1 s soon",
        "PT",
        "P",
        "P1",
        "P1DT",
        "P1H",
        "P1M",
        "P1Y",
        "P1MT1M",
        "P1D 1H",
        "P-1D",
        "1:30",
        "0:00:00:00",
        "0:x:1",
        "1 second 5",
        "Sun",
        "Sun, 06 Nov 1994",
        "08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 IST",
        "Sun, 06 Nov 1994 08:49:37 EST+0100",
        "Sun, 31 Feb 1994 08:49:47 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT GMT",
        "Sun, 06 Nov Nov 1994 08:49:37 GMT",
        "Sun, 06 07 08 Nov 1994 08:49:37 GMT",
        "Sun, 006 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +1",
        "Sun, 06 Nov 1994 08:49:37 +2400",
        "Sun, 06 Nov 1994 08:49:37 +0160",
        "2026-11-29",
        "2026-11-29T",
        "2026-11-29T08",
        "2026-13-29T08:00:00Z",
        "2026-00-01T08:00:00Z",
        "2026-11-00T08:00:00Z",
        "2023-02-29T00:00:00Z",
        "2026-11-29T08:00:00X",
        "2026-11-29T08:00:00+1",
        "2026/11/29 08:00:00",
        "20261129T080000Z",
        "26-11-2029T08:00:00Z",
    ] {
        assert_eq!(said(text, Unit::Seconds), "nothing", "{text:?}");
    }
    for bytes in [&b"\xff"[..], b"1\xff", b"2026-11-2\xc3\xa9T08:00:00Z", b"\xc3"] {
        assert_eq!(words(read(bytes, Unit::Seconds)), "nothing", "{bytes:?}");
    }
}

#[test]
fn a_list_is_split_at_commas_but_not_within_a_date() {
    for (line, expected) in [
        ("120", &["120"][..]),
        ("120, 60", &["120", "60"]),
        (",, 1 ,\t2,", &["1", "2"]),
        ("", &[]),
        ("Sun, 06 Nov 1994 08:49:37 GMT", &["Sun, 06 Nov 1994 08:49:37 GMT"]),
        ("5, Sunday, 06-Nov-94 08:49:37 GMT, 7", &["5", "Sunday, 06-Nov-94 08:49:37 GMT", "7"]),
        ("Sun", &["Sun"]),
        ("Sun, x", &["Sun, x"]),
    ] {
        let found: Vec<_> =
            values(line.as_bytes()).map(|it| std::str::from_utf8(it).unwrap()).collect();
        assert_eq!(found, expected, "{line:?}");
    }
}

/// Pieces of all forms, well-formed or not.
const PIECES: [&str; 37] = [
    "0",
    "1",
    "60",
    "1764412345",
    "99999999999999999999",
    ".",
    ",",
    ", ",
    " ",
    ":",
    "-",
    "+",
    "s",
    "ms",
    "m",
    "h",
    "PT",
    "P1DT",
    "Sun",
    "06",
    "Nov",
    "1994",
    "08:49:37",
    "GMT",
    "EST",
    "+0100",
    "1994-11-06",
    "T",
    "Z",
    "(",
    ")",
    "\"",
    ";",
    "\u{e9}",
    "\u{b5}s",
    "e",
    "inf",
];

proptest! {
    #[test]
    fn no_text_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..40)) {
        read_all(&text);
    }

    #[test]
    fn no_mixture_is_too_strange(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12),
    ) {
        read_all(pieces.concat().as_bytes());
    }

    #[test]
    fn a_date_is_read_as_it_was_written(seconds in 0..253_402_300_800_u64) {
        let time = Duration::from_secs(seconds);
        let date = httpdate::fmt_http_date(UNIX_EPOCH + time);
        for date in [date.clone(), date.replace("GMT", "+0000"), date.replace("GMT", "UTC")] {
            let read = read(date.as_bytes(), Unit::Seconds);
            prop_assert_eq!(read, Some(Later::At(time)), "{}", date);
        }
    }

    // Against calculations that share nothing with the reader.
    #[test]
    fn a_fraction_is_never_rounded_down(millis in 0..1_000_000_000_u32, digits in "[0-9]{0,12}") {
        let (seconds, rest) = (millis / 1000, millis % 1000);
        let text = format!("{seconds}.{rest:03}{digits}");
        let Some(Later::In(wait)) = read(text.as_bytes(), Unit::Seconds) else { panic!("{text}") };
        prop_assert!(wait >= Duration::from_millis(millis.into()));
        prop_assert!(wait <= Duration::from_millis(u64::from(millis) + 1));
    }

    #[test]
    fn go_writes_a_wait_and_it_is_read(
        hours in 0..100_u64,
        minutes in 0..60_u64,
        millis in 0..60_000_u64,
    ) {
        let text = format!("{hours}h{minutes}m{}.{:03}s", millis / 1000, millis % 1000);
        let wait = Duration::from_millis((hours * 60 + minutes) * 60_000 + millis);
        prop_assert_eq!(read(text.as_bytes(), Unit::Seconds), Some(Later::In(wait)));
    }

    #[test]
    fn an_offset_is_taken_off(
        seconds in 100_000..4_000_000_000_u64,
        hours in 0..24_u64,
        quarters in 0..4_u64,
    ) {
        let offset = hours * 3600 + quarters * 900;
        let local = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds + offset));
        let date = local.replace("GMT", &format!("+{hours:02}{:02}", quarters * 15));
        let time = Duration::from_secs(seconds);
        prop_assert_eq!(read(date.as_bytes(), Unit::Seconds), Some(Later::At(time)), "{}", date);
    }
}

fn read_all(text: &[u8]) {
    for value in std::iter::once(text).chain(values(text)) {
        for unit in [Unit::Seconds, Unit::Milliseconds] {
            if let Some(Later::In(wait)) = read(value, unit) {
                assert!(wait <= LONGEST);
            }
        }
    }
}
