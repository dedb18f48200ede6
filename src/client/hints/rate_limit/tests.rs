#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::convert::Infallible;
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Empty;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};

use super::Memo;
use crate::Account;
use crate::client::hints::{Exchange, Names, Standing};
use crate::layer::{BolnaRateLimitLayer, Dialect, LegacyReset};
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::store::{
    Answer, Charge, Command, Decisions, Immediate, MemoryStore, Reply, Store, StoreError,
};
use crate::values::clock::ManualClock;
use crate::values::{Decision, Endpoint, Limit, LimitName, Quota};

/// A response with these fields, one per line.
fn headers(fields: &str) -> HeaderMap {
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (HeaderName::try_from(name.trim()).unwrap(), HeaderValue::try_from(value.trim()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.lines().filter(|line| !line.trim().is_empty()).map(field) {
        headers.append(name, value);
    }
    headers
}

/// Reads a response about an endpoint that has only its own limit. The time of an exhausted limit
/// is the longest of all limits.
fn standing(headers: &HeaderMap, endpoint: Endpoint, memo: &mut Memo) -> Option<Standing> {
    let names = Names { rates: [endpoint.into()].into(), concurrent: [].into() };
    let standings = super::standings(&Exchange::alone(headers), &names, memo)?;
    let own = standings.limits[0]?;
    Some(Standing { exhausted: standings.exhausted(), ..own })
}

/// Reads a response as the first one, without a cached policy.
fn first(headers: &HeaderMap, endpoint: Endpoint) -> Option<Standing> {
    standing(headers, endpoint, &mut Memo::default())
}

/// In words: `0 of 500 in 60 s, until 1 s`.
fn words(standing: Option<Standing>) -> String {
    let Some(Standing { remaining, quota, exhausted }) = standing else { return "nothing".into() };
    let quota = quota.map_or_else(String::new, |(quota, window)| {
        let window =
            window.map_or_else(String::new, |window| format!(" in {} s", window.as_secs()));
        format!(" of {quota}{window}")
    });
    let exhausted =
        exhausted.map_or_else(String::new, |until| format!(", until {} s", until.as_secs_f64()));
    format!("{remaining}{quota}{exhausted}")
}

/// What a response with these fields reports for a request to `call`.
fn read(fields: &str) -> String {
    words(first(&headers(fields), Endpoint::CALL))
}

#[test]
fn every_dialect_is_read() {
    for (fields, said) in [
        ("Content-Type: text/plain", "nothing"),
        // Versions 08 to 11.
        (
            "RateLimit: \"call\";r=499;t=60\nRateLimit-Policy: \"call\";q=500;w=60",
            "499 of 500 in 60 s",
        ),
        (
            "RateLimit: \"call\";r=0;t=7\nRateLimit-Policy: \"call\";q=500;w=60",
            "0 of 500 in 60 s, until 7 s",
        ),
        ("RateLimit: \"a\";r=5\nRateLimit-Policy: \"a\";q=10", "5 of 10"),
        ("RateLimit: call;t=60;r=4\nRateLimit-Policy: call;w=60;q=9", "4 of 9 in 60 s"),
        (
            "RateLimit: \"1-in-1min\"; r=0; t=9; pk=:cHNk:\n\
             RateLimit-Policy: \"1-in-1min\"; q=1; w=60; pk=:cHNk:",
            "0 of 1 in 60 s, until 9 s",
        ),
        // Version 07.
        (
            "RateLimit: limit=100, remaining=50, reset=5\nRateLimit-Policy: 10;w=1, 100;w=60",
            "50 of 100 in 60 s",
        ),
        ("RateLimit: limit=100, remaining=0, reset=5", "0 of 100, until 5 s"),
        ("RateLimit: remaining=3", "3"),
        ("RateLimit: limit=100, remaining=50, remaining=2, reset=5", "2 of 100"),
        // Versions 00 to 06.
        ("RateLimit-Limit: 100\nRateLimit-Remaining: 50\nRateLimit-Reset: 30", "50 of 100"),
        (
            "RateLimit-Limit: 100, 10;w=1, 100;w=60;comment=\"x\"\nRateLimit-Remaining: 0\n\
             RateLimit-Reset: 30",
            "0 of 100 in 60 s, until 30 s",
        ),
        (
            "RateLimit-Limit: 100\nRateLimit-Policy: 100;w=60\nRateLimit-Remaining: 1",
            "1 of 100 in 60 s",
        ),
        ("RateLimit-Remaining: 1", "1"),
        // The fields without a specification.
        ("X-RateLimit-Limit: 100\nX-RateLimit-Remaining: 50\nX-RateLimit-Reset: 30", "50 of 100"),
        (
            "X-RateLimit-Limit: 100\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 30",
            "0 of 100, until 30 s",
        ),
        ("X-RateLimit-Remaining: 0", "0"),
    ] {
        assert_eq!(read(fields), said, "{fields}");
    }
}

#[test]
fn the_newest_dialect_that_says_something_decides() {
    let mut fields = String::from("X-RateLimit-Remaining: 1\n");
    for (newer, said) in [
        ("RateLimit-Remaining: 2", "2"),
        ("RateLimit: remaining=3", "3"),
        ("RateLimit: \"call\";r=4", "2"), // Neither a List nor a Dictionary, with the line before.
    ] {
        fields = format!("{fields}{newer}\n");
        assert_eq!(read(&fields), said, "{fields}");
    }
    assert_eq!(read("RateLimit-Remaining: 2\nRateLimit: \"call\";r=4"), "4");
    assert_eq!(read("RateLimit-Policy: \"call\";q=500;w=60\nX-RateLimit-Remaining: 1"), "1");
}

#[test]
fn the_limit_that_is_named_as_the_endpoint_counts_and_else_the_tightest() {
    for (fields, said) in [
        ("RateLimit: \"a\";r=1, \"call\";r=7, \"b\";r=2", "7"),
        ("RateLimit: \"a\";r=1\nRateLimit: \"call\";r=7\nRateLimit: \"b\";r=2", "7"),
        ("RateLimit: \"a\";r=3, \"Call\";r=2, \"b\";r=4", "2"),
        // Two servers on the way each have a limit with that name.
        (
            "RateLimit: \"call\";r=9\nRateLimit: \"call\";r=7\n\
             RateLimit-Policy: \"call\";q=20;w=2, \"call\";q=10;w=1",
            "7 of 10 in 1 s",
        ),
        // The quota is that of the limit that counts.
        (
            "RateLimit: \"a\";r=3, \"b\";r=2\n\
             RateLimit-Policy: \"a\";q=30, \"b\";q=20, \"call\";q=10",
            "2 of 20",
        ),
        ("RateLimit: \"a\\\"\";r=3\nRateLimit-Policy: \"a\\\"\";q=30", "3 of 30"),
        ("RateLimit: \"call\";r=7\nRateLimit-Policy: \"b\";q=20", "7"),
    ] {
        assert_eq!(read(fields), said, "{fields}");
    }
}

#[test]
fn the_longest_wait_of_all_that_are_used_up_counts() {
    for (fields, said) in [
        ("RateLimit: \"call\";r=7;t=99, \"a\";r=0;t=3, \"b\";r=0;t=5, \"c\";r=0", "7, until 5 s"),
        ("RateLimit: \"call\";r=0;t=0", "0"),
        ("RateLimit: \"call\";r=0", "0"),
        ("X-RateLimit-Remaining: 3, 0\nX-RateLimit-Reset: 9, 5", "0, until 5 s"),
        ("X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 0", "0"),
    ] {
        assert_eq!(read(fields), said, "{fields}");
    }
}

/// What a response with these fields reports for a request to `call`, which has the limits `call`,
/// `user` and `day` of its own, and about other limits.
fn read_several(fields: &str, memo: &mut Memo) -> String {
    let rates = ["call", "user", "day"].map(|name| LimitName::new(name).unwrap()).into();
    let names = Names { rates, concurrent: [].into() };
    let Some(standings) = super::standings(&Exchange::alone(&headers(fields)), &names, memo) else {
        return "nothing".into();
    };
    let [call, user, day] = &standings.limits[..] else { panic!("{standings:?}") };
    let others = standings
        .others_exhausted
        .map_or_else(String::new, |until| format!(" | others until {} s", until.as_secs()));
    format!("{} | {} | {}{others}", words(*call), words(*user), words(*day))
}

#[test]
fn each_limit_is_found_by_its_name() {
    for (fields, said) in [
        ("Content-Type: text/plain", "nothing"),
        (
            "RateLimit-Policy: \"call\";q=500;w=60\nRateLimit-Policy: \"user\";q=100;w=60\n\
             RateLimit: \"call\";r=250;t=30\nRateLimit: \"user\";r=0;t=24",
            "250 of 500 in 60 s | 0 of 100 in 60 s, until 24 s | nothing",
        ),
        (
            "RateLimit-Policy: \"day\";q=9;w=86400, \"all\";q=1;w=1, \"call\";q=500;w=60\n\
             RateLimit: \"all\";r=0;t=1, \"day\";r=3, \"call\";r=7",
            "7 of 500 in 60 s | nothing | 3 of 9 in 86400 s | others until 1 s",
        ),
        // A name that is not known stands for the endpoint's own limit, one of a further limit does
        // not.
        ("RateLimit: \"user\";r=3", "nothing | 3 | nothing"),
        ("RateLimit: \"user\";r=3, \"all\";r=9, \"a\";r=8", "8 | 3 | nothing"),
        (
            "RateLimit: \"all\";r=0;t=2, \"day\";r=0;t=5\nRateLimit-Policy: \"all\";q=20;w=2",
            "0 of 20 in 2 s | nothing | 0, until 5 s | others until 2 s",
        ),
        // Two servers on the way each have a limit with that name.
        (
            "RateLimit: \"user\";r=9, \"user\";r=0;t=2, \"user\";r=0;t=1\n\
             RateLimit-Policy: \"user\";q=20;w=2, \"user\";q=10;w=1",
            "nothing | 0 of 10 in 1 s, until 2 s | nothing",
        ),
        (
            "RateLimit: \"user\";r=3, \"day\";r=9\n\
             RateLimit-Policy: \"user\";q=20;qu=\"content-bytes\"",
            "nothing | nothing | 9",
        ),
        // Without names.
        ("RateLimit: limit=100, remaining=0, reset=5", "0 of 100, until 5 s | nothing | nothing"),
        ("X-RateLimit-Remaining: 3, 2", "2 | nothing | nothing"),
    ] {
        assert_eq!(read_several(fields, &mut Memo::default()), said, "{fields}");
    }
}

/// What a response reports about the limits of requests in flight `in-call` and `in-all`, and about
/// all others: `4 of 10` may be in flight.
fn read_concurrent(fields: &str, memo: &mut Memo) -> String {
    let concurrent = ["in-call", "in-all"].map(|name| LimitName::new(name).unwrap()).into();
    let names = Names { rates: [Endpoint::CALL.into()].into(), concurrent };
    let Some(standings) = super::standings(&Exchange::alone(&headers(fields)), &names, memo) else {
        return "nothing".into();
    };
    let number = |number: Option<u32>| number.map_or_else(|| "?".into(), |it| it.to_string());
    let all = standings.concurrent.iter();
    let all: Vec<_> =
        all.map(|it| format!("{} of {}", number(it.remaining), number(it.most))).collect();
    let blamed = if standings.blames_concurrent() { ", blamed" } else { "" };
    format!("{} | {}{blamed}", words(standings.limits[0]), all.join(", "))
}

#[test]
fn each_of_many_limits_of_requests_in_flight_is_found() {
    let names = (0..100).map(|number| format!("of{}", number * 37 % 100));
    let policies: Vec<_> = names.map(|name| format!("{name};q=9;qu=concurrent-requests")).collect();
    for number in 0..100 {
        let fields = format!("RateLimit-Policy: {}\nRateLimit: of{number};r=0", policies.join(","));
        let said = read_concurrent(&fields, &mut Memo::default());
        assert_eq!(said, "nothing | ? of ?, ? of ?, 0 of 9, blamed", "of{number}");
    }
}

#[test]
fn limits_of_requests_in_flight_are_no_limits_of_a_rate() {
    const UNIT: &str = "qu=\"concurrent-requests\"";
    for (fields, said) in [
        // A name that the policy has.
        (
            "RateLimit-Policy: \"call\";q=500;w=60, \"in-call\";q=10;UNIT\n\
             RateLimit: \"call\";r=250;t=30, \"in-call\";r=4",
            "250 of 500 in 60 s | 4 of 10, ? of ?, ? of ?",
        ),
        // Another name does not stand for the endpoint's own limit, as one of a rate does.
        (
            "RateLimit-Policy: \"other\";q=10;UNIT\nRateLimit: \"other\";r=4",
            "nothing | ? of ?, ? of ?, 4 of 10",
        ),
        (
            "RateLimit-Policy: \"call\";q=10;UNIT\nRateLimit: \"call\";r=4;t=60",
            "nothing | ? of ?, ? of ?, 4 of 10",
        ),
        (
            "RateLimit-Policy: \"a\";UNIT;q=10, \"b\";q=7;UNIT, \"rate\";q=9;w=2\n\
             RateLimit: \"a\";r=1, \"b\";r=6, \"rate\";r=8",
            "8 of 9 in 2 s | ? of ?, ? of ?, 1 of 7",
        ),
        // There is no window, and one that a server reports means nothing.
        (
            "RateLimit-Policy: in-all;q=10;w=60;qu=concurrent-requests\nRateLimit: in-all;r=4",
            "nothing | ? of ?, 4 of 10, ? of ?",
        ),
        // One of the two alone.
        ("RateLimit: \"in-call\";r=0;t=1", "nothing | 0 of ?, ? of ?, ? of ?, blamed"),
        (
            "RateLimit-Policy: \"x\";q=10;UNIT\nRateLimit: \"call\";r=9",
            "9 | ? of ?, ? of ?, ? of 10",
        ),
        ("RateLimit-Policy: \"x\";q=10;UNIT", "nothing"),
        // Numbers that make no sense.
        (
            "RateLimit-Policy: \"x\";q=0;UNIT\nRateLimit: \"x\";r=-1",
            "nothing | ? of ?, ? of ?, ? of ?",
        ),
        (
            "RateLimit-Policy: \"x\";q=99999999999;UNIT\nRateLimit: \"x\";r=99999999999",
            "nothing | ? of ?, ? of ?, 4294967295 of 4294967295",
        ),
        // Which limit has refused a request.
        (
            "RateLimit-Policy: \"call\";q=500;w=60, \"x\";q=10;UNIT\n\
             RateLimit: \"call\";r=250;t=30, \"x\";r=0;t=1",
            "250 of 500 in 60 s | ? of ?, ? of ?, 0 of 10, blamed",
        ),
        (
            "RateLimit-Policy: \"call\";q=500;w=60, \"x\";q=10;UNIT\n\
             RateLimit: \"call\";r=0;t=30, \"x\";r=0;t=1",
            "0 of 500 in 60 s, until 30 s | ? of ?, ? of ?, 0 of 10",
        ),
        // Units that are not known.
        ("RateLimit-Policy: \"x\";q=10;qu=\"concurrent\"\nRateLimit: \"x\";r=0", "nothing"),
        // Older fields are read beside them.
        (
            "RateLimit-Policy: \"x\";q=10;UNIT\nRateLimit: \"x\";r=2\nX-RateLimit-Remaining: 7",
            "7 | ? of ?, ? of ?, 2 of 10",
        ),
    ] {
        let (fields, mut memo) = (fields.replace("UNIT", UNIT), Memo::default());
        for _ in 0..2 {
            assert_eq!(read_concurrent(&fields, &mut memo), said, "{fields}");
        }
    }
}

#[test]
fn what_is_remembered_of_a_policy_is_used_for_that_policy() {
    let mut memo = Memo::default();
    let limits = "RateLimit: \"call\";r=9, \"user\";r=8, \"day\";r=7\n";
    let mut says = |policies: &str| read_several(&format!("{limits}{policies}"), &mut memo);
    for _ in 0..2 {
        for (policies, said) in [
            ("RateLimit-Policy: \"call\";q=500", "9 of 500 | 8 | 7"),
            ("RateLimit-Policy: \"call\";q=500, \"user\";q=100", "9 of 500 | 8 of 100 | 7"),
            (
                "RateLimit-Policy: \"call\";q=500\nRateLimit-Policy: \"day\";q=90",
                "9 of 500 | 8 | 7 of 90",
            ),
            (
                "RateLimit-Policy: \"call\";q=500\nRateLimit-Policy: \"user\";q=90;qu=bytes",
                "9 of 500 | nothing | 7",
            ),
            ("", "9 | 8 | 7"),
        ] {
            for _ in 0..3 {
                assert_eq!(says(policies), said, "{policies}");
            }
        }
    }
}

#[test]
fn limits_of_bytes_and_the_like_are_passed_over() {
    for (fields, said) in [
        (
            "RateLimit: \"b\";r=0;t=9, \"a\";r=7\n\
             RateLimit-Policy: \"b\";q=20;qu=\"content-bytes\", \"a\";q=10;qu=\"requests\"",
            "7 of 10",
        ),
        (
            "RateLimit: \"call\";r=0;t=9\nRateLimit-Policy: \"call\";q=20;qu=\"content-bytes\"",
            "nothing",
        ),
        (
            "RateLimit: \"call\";r=0;t=9\nRateLimit-Policy: \"call\";q=20;qu=concurrent-requests",
            "nothing",
        ),
        ("RateLimit: \"call\";r=4\nRateLimit-Policy: \"call\";q=20;qu=requests", "4 of 20"),
        ("RateLimit: \"call\";r=4\nRateLimit-Policy: \"call\";q=20;qu=\"request\"", "4 of 20"),
        ("RateLimit: \"call\";r=4\nRateLimit-Policy: \"call\";q=20;qu=1", "nothing"),
        (
            "RateLimit: \"a\\\"\";r=4\nRateLimit-Policy: \"a\\\"\";q=20;qu=\"content-bytes\"",
            "nothing",
        ),
        // A policy that can't be read says nothing about units.
        ("RateLimit: \"call\";r=4\nRateLimit-Policy: \"call\";q=20;qu=\"content-bytes\",", "4"),
    ] {
        assert_eq!(read(fields), said, "{fields}");
    }
}

#[test]
fn a_malformed_list_is_ignored_as_a_whole() {
    let sound = "\"call\";r=7";
    assert_eq!(read(&format!("RateLimit: {sound}")), "7");
    for broken in [
        "",
        ",",
        "\"a",
        "\"a\\n\";r=1",
        "\"a\";R=1",
        "\"a\";1r=1",
        "\"a\";r=",
        "\"a\";r=1;",
        "\"a\" ;r=1",
        "\"a\";r =1",
        "\"a\";r=+1",
        "\"a\";r=1.",
        "\"a\";r=1.2345",
        "\"a\";r=0x1",
        "\"a\";r=1e3",
        "\"a\";r=1000000000000000",
        "\"a\";r=?2",
        "\"a\";r=:a",
        "\"a\";r=@1.5",
        "(\"a\"",
        "\"a\";r=(1 2)",
        "\"a\" \"b\"",
        "\"a\";;r=1",
        "=",
        "'a';r=1",
        "\"a\",",
        "\"a\",,\"b\"",
        "\"a\"; r = 1",
        "\"\u{e9}\";r=1",
        "\"a\";\u{663}=1",
        "\u{a0}",
    ] {
        for fields in [
            format!("RateLimit: {broken}\nRateLimit: {sound}"),
            format!("RateLimit: {sound}\nRateLimit: {broken}"),
            format!("RateLimit: {sound}, {broken}"),
        ] {
            assert_eq!(read(&fields), "nothing", "{fields}");
        }
        let policies = format!(
            "RateLimit: {sound}\nRateLimit-Policy: \"call\";q=9\nRateLimit-Policy: {broken}"
        );
        assert_eq!(read(&policies), "7", "{policies}");
    }
}

#[test]
fn a_member_that_makes_no_sense_is_ignored_alone() {
    for senseless in [
        "\"call\"",
        "\"call\";r",
        "\"call\";r=?1",
        "\"call\";r=-1",
        "\"call\";r=1.0",
        "\"call\";r=\"1\"",
        "\"call\";r=x",
        "\"call\";r=@1",
        "\"call\";r=:MQ==:",
        "\"call\";r=%\"1\"",
        "\"call\";t=1",
        "\"call\";r=1;t=-1",
        "\"call\";r=1;t=1.5",
        "\"call\";r=1;t",
        "\"call\";r=1;t=\"1\"",
        "\"call\";r=1;r=\"1\"",
        "1;r=1",
        "1.5;r=1",
        "?1;r=1",
        "@1;r=1",
        ":YQ==:;r=1",
        "(\"call\";r=1)",
        "(\"call\");r=1",
        "()",
        "%\"call\";r=1",
    ] {
        let fields = format!("RateLimit: \"x\";r=7, {senseless}");
        assert_eq!(read(&fields), "7", "{fields}");
    }
    for (sense, said) in [
        ("\"call\";r=-1;r=5", "5"),
        ("\"call\";r=0;t=x;t=5;t=6", "0, until 6 s"),
        ("\"call\";r=5;x=1.5;y=\"\";z;pk=:cHNk:;since=@1", "5"),
        ("\"call\";r=-0", "0"),
        ("\"call\";r=007", "7"),
        ("\"call\";  r=5\t,  \"b\";r=1", "5"),
    ] {
        assert_eq!(read(&format!("RateLimit: {sense}")), said, "{sense}");
    }
    for senseless in
        ["q", "q=-1", "q=1.5", "q=\"9\"", "q=0", "w=60", "q=9;w=-1", "q=9;w=1.5", "q=9;w=\"1\""]
    {
        let fields = format!("RateLimit: \"call\";r=7\nRateLimit-Policy: \"call\";{senseless}");
        assert_eq!(read(&fields), "7", "{fields}");
    }
    assert_eq!(read("RateLimit: \"call\";r=7\nRateLimit-Policy: \"call\";q=9;w=0"), "7 of 9");
}

#[test]
fn older_fields_that_make_no_sense_are_ignored() {
    for remaining in
        ["", "-1", "+1", "1.5", "\"1\"", "x", "1 2", "1,", "?1", "1000000000000000", "0x1", "(1)"]
    {
        assert_eq!(
            read(&format!("RateLimit: limit=9, remaining={remaining}")),
            "nothing",
            "{remaining}"
        );
        assert_eq!(read(&format!("RateLimit-Remaining: {remaining}")), "nothing", "{remaining}");
    }
    for (fields, said) in [
        ("RateLimit: limit=9", "nothing"),
        ("RateLimit: limit=x, remaining=0, reset=1.5", "0"),
        ("RateLimit: limit=0, remaining=1\nRateLimit-Policy: 0;w=60", "1"),
        ("RateLimit: limit=9, remaining=1\nRateLimit-Policy: 9;w=0, 8;w=60, x;w=60", "1 of 9"),
        ("RateLimit: limit=9, remaining=1\nRateLimit-Policy: 9;w=60,", "1 of 9"),
        ("RateLimit-Remaining: 1\nRateLimit-Remaining: 2", "nothing"),
        ("RateLimit-Remaining: 1\nRateLimit-Limit: x, 9", "1"),
        ("RateLimit-Remaining: 1\nRateLimit-Limit: 9,", "1"),
        ("RateLimit-Remaining: 0\nRateLimit-Reset: soon", "0"),
    ] {
        assert_eq!(read(fields), said, "{fields}");
    }
}

#[test]
fn unspecified_fields_are_plain_numbers() {
    for remaining in ["", ",", "-1", "+1", "1.5", "\"1\"", "x", "1 2", "1;w=60", "0x1", "1e3"] {
        let fields = format!("X-RateLimit-Remaining: {remaining}");
        assert_eq!(read(&fields), "nothing", "{fields}");
    }
    for reset in [
        "",
        "-1",
        "+1",
        ".",
        "1.",
        ".5",
        "1.x",
        "1.5.5",
        "x",
        "0.0",
        "0s",
        // A time that has passed.
        "Sun, 06 Nov 1994 08:49:37 GMT",
    ] {
        let fields = format!("X-RateLimit-Remaining: 0\nX-RateLimit-Reset: {reset}");
        assert_eq!(read(&fields), "0", "{fields}");
    }
    for (reset, seconds) in [
        ("1", "1"),
        ("1.5", "1.5"),
        ("1.000", "1"),
        ("0.001", "0.001"),
        (" 07 ", "7"),
        ("1.00000000000000000000001", "1.000000001"),
        ("6m0s", "360"),
        ("20ms", "0.02"),
    ] {
        let fields = format!("X-RateLimit-Remaining: 0\nX-RateLimit-Reset: {reset}");
        assert_eq!(read(&fields), format!("0, until {seconds} s"), "{fields}");
    }
    for (fields, said) in [
        ("X-RateLimit-Remaining: 9, 4\nX-RateLimit-Limit: 10, 100", "4 of 100"),
        (
            "X-RateLimit-Remaining: 9\nX-RateLimit-Remaining: 4\nX-RateLimit-Limit: 10\n\
             X-RateLimit-Limit: 100",
            "4 of 100",
        ),
        ("X-RateLimit-Remaining: 9, 4\nX-RateLimit-Limit: 10\nX-RateLimit-Reset: 1", "4"),
        ("X-RateLimit-Remaining: 0, x\nX-RateLimit-Reset: 1, 2", "0, until 1 s"),
        ("X-RateLimit-Remaining: 4\nX-RateLimit-Limit: 0", "4"),
        ("X-RateLimit-Remaining: 4\nX-RateLimit-Limit: 1.5", "4"),
    ] {
        assert_eq!(read(fields), said, "{fields}");
    }
}

#[test]
fn a_reset_may_be_a_point_in_time() {
    let date = "Date: Sun, 09 Sep 2001 01:46:50 GMT"; // 1,000,000,010
    for (reset, said) in [
        ("1000000000", "0, until 1000000000 s"),
        ("1000000001", "0"),
        ("1000000010", "0"),
        ("1000000017", "0, until 7 s"),
        ("1000000017.2", "0, until 7.2 s"),
        ("1000000017001", "0, until 7.001 s"),
        ("1000000017001000", "0, until 7.001 s"),
        ("1000000017001000000", "0, until 7.001 s"),
        ("Sun, 09 Sep 2001 01:46:57 GMT", "0, until 7 s"),
        ("Sun Sep 09 2001 03:46:57 GMT+0200 (CEST)", "0, until 7 s"),
        ("2001-09-09T01:46:57.5Z", "0, until 7.5 s"),
    ] {
        let unspecified = format!("{date}\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: {reset}");
        assert_eq!(read(&unspecified), said, "{unspecified}");
        let draft = format!("{date}\nRateLimit-Remaining: 0\nRateLimit-Reset: {reset}");
        assert_eq!(read(&draft), said, "{draft}");
    }
}

#[test]
fn a_response_from_a_cache_reports_nothing() {
    for fields in [
        "RateLimit: \"call\";r=0;t=50\nRateLimit-Policy: \"call\";q=500;w=60",
        "RateLimit-Remaining: 0\nRateLimit-Reset: 50",
        "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 50",
    ] {
        assert_eq!(read(&format!("{fields}\nAge: 300")), "nothing", "{fields}");
        for fresh in ["Age: 0", "Age: -1", "Age: soon", "X-Cache: HIT"] {
            assert_eq!(read(&format!("{fields}\n{fresh}")), read(fields), "{fields} {fresh}");
        }
    }
}

#[test]
fn a_retry_after_beside_a_reset_takes_precedence() {
    let with = |retry_after: &str| {
        read(&format!("X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 4\nRetry-After: {retry_after}"))
    };
    assert_eq!(with("3"), "0, until 3 s");
    assert_eq!(with("2.5"), "0, until 2.5 s");
    for other in ["5", "0", "soon"] {
        assert_eq!(with(other), "0, until 4 s", "{other}");
    }
}

#[test]
fn numbers_that_do_not_fit_count_as_the_largest() {
    let longest = Quota::MAX_REFILL_TIME.as_secs();
    let most = u32::MAX;
    let digits = "9".repeat(15);
    for (fields, said) in [
        (
            format!(
                "RateLimit: \"call\";r={digits}\nRateLimit-Policy: \"call\";q={digits};w={digits}"
            ),
            format!("{most} of {most} in {longest} s"),
        ),
        (format!("RateLimit: \"call\";r=0;t={digits}"), format!("0, until {longest} s")),
        (
            format!("X-RateLimit-Remaining: {0}\nX-RateLimit-Limit: {0}", "9".repeat(40)),
            format!("{most} of {most}"),
        ),
        (
            format!("X-RateLimit-Remaining: 0\nX-RateLimit-Reset: {}", "9".repeat(40)),
            format!("0, until {longest} s"),
        ),
    ] {
        assert_eq!(read(&fields), said, "{fields}");
    }
}

#[test]
fn long_fields_are_read_to_the_end() {
    let list =
        |member: &dyn Fn(u32) -> String| (0..4000).map(member).collect::<Vec<_>>().join(", ");
    let limits = list(&|n| format!("\"a{n}\";r={n};t=9"));
    let bytes = list(&|n| format!("\"a{n}\";q=9;qu=b"));
    let most = list(&|n| format!("\"a{n}\";q=9{}", if n == 3999 { "" } else { ";qu=b" }));
    assert_eq!(read(&format!("RateLimit: {limits}")), "0, until 9 s");
    assert_eq!(read(&format!("RateLimit: {limits}, \"call\";r=5")), "5, until 9 s");
    assert_eq!(read(&format!("RateLimit: {limits}\nRateLimit-Policy: {bytes}")), "nothing");
    assert_eq!(read(&format!("RateLimit: {limits}\nRateLimit-Policy: {most}")), "3999 of 9");
    assert_eq!(read(&format!("RateLimit: {}", "\"a\";r=1,".repeat(8000))), "nothing");
}

#[test]
fn nothing_is_allocated_for_what_servers_send() {
    for fields in [
        "Content-Type: text/plain",
        "RateLimit: \"call\";r=499;t=60\nRateLimit-Policy: \"call\";q=500;w=60",
        "RateLimit: \"a\";r=1, \"call\";r=499;t=60\n\
         RateLimit-Policy: \"a\";q=500;w=60, \"call\";q=500;w=60;qu=\"requests\"",
        "RateLimit: \"call\";r=499;t=60, \"call-concurrent\";r=9\n\
         RateLimit-Policy: \"call\";q=500;w=60\n\
         RateLimit-Policy: \"call-concurrent\";q=10;qu=\"concurrent-requests\"",
        "RateLimit: limit=100, remaining=50, reset=5\nRateLimit-Policy: 100;w=60",
        "RateLimit-Limit: 100, 100;w=60;comment=\"x\"\nRateLimit-Remaining: 0\nRateLimit-Reset: 30",
        "X-RateLimit-Limit: 100, 10\nX-RateLimit-Remaining: 50, 0\nX-RateLimit-Reset: 30, 30.5",
    ] {
        let headers = headers(fields);
        // Allocations are counted from the second response on: the first is cached.
        let mut memo = Memo::default();
        let concurrent = [LimitName::new("call-concurrent").unwrap()].into();
        let names = Names { rates: [Endpoint::CALL.into()].into(), concurrent };
        let _ = super::standings(&Exchange::alone(&headers), &names, &mut memo);
        let again = || {
            let _ = super::standings(&Exchange::alone(&headers), &names, &mut memo);
        };
        assert_eq!(measure(again).count_total, 0, "{fields}");
    }
}

#[test]
fn what_the_layer_sends_is_read_back() {
    let paths = [
        (Endpoint::CALL, "/call", 500_u32),
        (Endpoint::AGENT, "/v2/agent/a-1", 500),
        (Endpoint::EXECUTIONS, "/v2/agent/a-1/executions", 500),
        (Endpoint::DEFAULT, "/user/me", 1000),
    ];
    let limiter =
        Limiter::with_store(Policy::default(), MemoryStore::with_clock(ManualClock::default()))
            .unwrap();
    let inner = tower::service_fn(|_: Request<String>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(inner);
    for (endpoint, path, quota) in paths {
        // The cache is kept from one response to the next, as in a client.
        let mut memo = Memo::default();
        for sent in 1..=quota + 1 {
            let mut request = Request::get(path).body(String::new()).unwrap();
            request.extensions_mut().insert(Account::user("u-17"));
            let response = tokio_test::block_on(service.clone().oneshot(request)).unwrap();
            let expected = match quota.saturating_sub(sent) {
                0 => format!("0 of {quota} in 60 s, until 1 s"),
                left => format!("{left} of {quota} in 60 s"),
            };
            assert_eq!(
                words(standing(response.headers(), endpoint, &mut memo)),
                expected,
                "{path}, request {sent}"
            );
        }
    }
}

/// A store that says the same about every request.
struct Says(Decision);

impl Store for Says {
    type Check = Immediate;

    fn check(&self, _: Charge<'_>) -> Answer<Immediate> {
        Answer::Now(Ok(Decisions::of_one(self.0)))
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        Err(StoreError::unsupported(&command))
    }
}

/// A decision about a request, and the header fields of the response to the request. `legacy` is
/// whether it has the older fields only, and else there are those of another server before them.
fn decided(legacy: bool) -> impl Strategy<Value = (Decision, HeaderMap)> {
    let name = prop_oneof![Just("call".to_owned()), "[A-Za-z0-9_.-]{1,3}"];
    let quota = (1..u32::MAX, 1..100_000_u64, 1..u32::MAX).prop_filter_map(
        "the quota is valid",
        |(limit, period, burst)| {
            Quota::per(limit, Duration::from_secs(period)).burst(burst).build().ok()
        },
    );
    // Half of the buckets are nearly empty.
    let debt = prop_oneof![0.0..1.0_f64, 0.999_999..1.0];
    (name, quota, debt, 0..3).prop_map(move |(name, quota, debt, status)| {
        let limit = Limit::new(LimitName::new(&name).unwrap(), quota);
        let debt = quota.refill_time().mul_f64(debt);
        let decision = match status {
            0 => Decision::allowed(limit, debt),
            1 => Decision::limited(limit, debt),
            _ => Decision::blocked(limit, debt),
        };
        let limiter = Limiter::with_store(Policy::default(), Says(decision)).unwrap();
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        let layer = if legacy {
            layer.dialect(Dialect::Off).legacy_headers(LegacyReset::DeltaSeconds)
        } else {
            layer
        };
        let mut request = Request::new(String::new());
        request.extensions_mut().insert(Account::user("u"));
        let inner = tower::service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let response = tokio_test::block_on(layer.layer(inner).oneshot(request)).unwrap();
        let mut fields = if legacy {
            HeaderMap::new()
        } else {
            headers("RateLimit: \"up+stream\";r=0\nRateLimit-Policy: \"up+stream\";q=1")
        };
        for (name, value) in response.headers() {
            fields.append(name, value.clone());
        }
        (decision, fields)
    })
}

fn rounded_up(wait: Duration) -> Duration {
    Duration::from_secs(u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap())
}

/// Pieces of fields, well-formed or not.
fn pieces(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..=most).prop_map(|pieces| pieces.concat())
}

fn any_fields(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = HeaderMap> {
    let names = [
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "date",
    ];
    prop::collection::vec((prop::sample::select(names.to_vec()), value), 0..12).prop_map(|fields| {
        let valid = |(name, value): (_, Vec<u8>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.into_iter().filter_map(valid) {
            headers.append(name, value);
        }
        headers
    })
}

proptest! {
    #[test]
    fn what_the_server_says_is_read_back((decision, headers) in decided(false)) {
        let said = first(&headers, decision.name().endpoint()).unwrap();
        let quota = decision.quota();
        prop_assert_eq!(said.remaining, decision.remaining());
        let window = (quota.emission_interval() * quota.burst()).min(Quota::MAX_REFILL_TIME);
        let (units, told) = said.quota.unwrap();
        prop_assert_eq!(units, quota.burst());
        // The window follows from the limit and the period, without rounding the interval to
        // nanoseconds.
        prop_assert!(told.unwrap() <= rounded_up(window));
        let wait = (said.remaining == 0).then(|| rounded_up(decision.next_unit()));
        prop_assert_eq!(said.exhausted, wait);
    }

    #[test]
    fn what_the_server_says_in_older_fields_is_read_back(
        (decision, headers) in decided(true)
    ) {
        let said = first(&headers, decision.name().endpoint()).unwrap();
        prop_assert_eq!(said.remaining, decision.remaining());
        prop_assert_eq!(said.quota, Some((decision.quota().burst(), None)));
        if decision.reset() < Duration::from_secs(1_000_000_000) {
            // A refusal says when the next unit comes back.
            let asked = headers.get("retry-after").map(|it| it.to_str().unwrap().parse().unwrap());
            let reset = rounded_up(decision.reset());
            let until = asked.map_or(reset, |asked| reset.min(Duration::from_secs(asked)));
            let wait = (said.remaining == 0).then_some(until);
            prop_assert_eq!(said.exhausted, wait);
        }
    }

    #[test]
    fn no_bytes_are_too_strange(headers in any_fields(prop::collection::vec(32_u8.., 0..40))) {
        let _ = first(&headers, Endpoint::CALL);
    }

    #[test]
    fn no_field_is_too_strange(
        headers in any_fields(pieces(&[
            "\"call\"", "\"a\"", ";r=", ";t=", ";q=", ";w=", ";qu=", "remaining=", "limit=",
            "reset=", "requests", "0", "1", "60", "999999999999999", "99999999999999999999",
            "1.5", "-", ".", ",", ", ", " ", "\t", ";", "(", ")", "\"", "\\", "?", ":", "@",
            "%\"", "\u{e9}",
        ], 12).prop_map(String::into_bytes))
    ) {
        let _ = first(&headers, Endpoint::CALL);
    }

    // A List of one plain member is read by a path of its own, a List of two is not.
    #[test]
    fn how_a_list_is_read_makes_no_difference(
        limit in pieces(
            &[
                ";r=0", ";r=7", ";t=9", ";r=0;t=9", "", ";r=", "1", "0", "9999999", ";", "=",
                ";x", "\"b\"",
            ],
            4,
        ),
        policy in pieces(
            &[
                ";q=5", ";w=60", ";q=5;w=60", "", ";q=", "1", "0", "9999999", ";", "=",
                ";qu=requests", ";qu=b",
            ],
            4,
        ),
    ) {
        let limit = format!("\"call\"{limit}");
        let policy = format!("\"call\"{policy}");
        prop_assert_eq!(
            read(&format!("RateLimit: {limit}\nRateLimit-Policy: {policy}")),
            read(&format!("RateLimit: {limit}, x\nRateLimit-Policy: {policy}, x")),
        );
    }
}
