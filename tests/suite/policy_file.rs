//! Policies that are read from files: their content, and errors with the file, the line and the
//! rule of a mistake.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use bolna_rate_limit::policy::{LimitBuilder, PolicyFileError};
use bolna_rate_limit::{Endpoint, Enforcement, Policy, Quota};
use proptest::prelude::*;

use crate::support::{DecideNow, organization, percent, stopped_limiter};

type Read = fn(&str) -> Result<Policy, PolicyFileError>;

/// The same policy in both formats.
const TOML: &str = r#"
base = "bolna"
enforce = 90
exempt = ["/healthz", "/public/{*file}"]

[default]
limit = 600
per = "minute"
burst = 200
enforce = "shadow"
paths = ["/v2/agent/all", "/search/help"]

[[endpoint]]
name = "call"
limit = 100
per = "second"
burst = 10
paths = ["/call", "/v2/call"]

[[endpoint]]
name = "agent"
enforce = 25

[[endpoint]]
name = "search"
limit = 0x05
per = "10 seconds"
paths = ["/search", "/search/{topic}"]
"#;

const JSON: &str = r#"{
    "endpoint": [
        { "name": "call", "limit": 100, "per": "second", "burst": 10, "paths": ["/call", "/v2/call"] },
        { "name": "agent", "enforce": 25 },
        { "paths": ["\/search", "/search/{topic}"], "per": "10 seconds", "limit": 5, "name": "s\u0065arch" }
    ],
    "default": {
        "limit": 600,
        "per": "minute",
        "burst": 200,
        "enforce": "shadow",
        "paths": ["/v2/agent/all", "/search/help"]
    },
    "exempt": ["/healthz", "/public/{*file}"],
    "enforce": 90,
    "base": "bolna"
}"#;

/// The same policy, built.
fn built() -> Policy {
    Policy::builder()
        .endpoint("executions", Quota::per_minute(500), ["/v2/agent/{agent_id}/executions"])
        .endpoint("agent", Quota::per_minute(500), ["/v2/agent/{agent_id}"])
        .endpoint("call", Quota::per_second(100).burst(10), ["/call", "/v2/call"])
        .endpoint("search", Quota::per(5, Duration::from_secs(10)), ["/search", "/search/{topic}"])
        .default_quota(Quota::per_minute(600).burst(200))
        .default_paths(["/v2/agent/all", "/search/help"])
        .exempt(["/healthz", "/public/{*file}"])
        .enforcement(percent(90))
        .enforce("agent", percent(25))
        .enforce("default", Enforcement::SHADOW)
        .build()
        .unwrap()
}

/// A policy with every sort of limit, in both formats.
const LIMITS_TOML: &str = r#"
[[endpoint]]
name = "call"
limit = 500
per = "minute"
cost = 3
user_share = 20
concurrent = 10

[[endpoint.also]]
name = "call-day"
scope = "account"
limit = 20000
per = "day"
burst = 500
cost = 2
enforce = 25

[default]
burst = 100
concurrent = 1000000000

[[default.also]]
name = "default-user"
scope = "user"
concurrent = 100
cost = 2
enforce = "shadow"

[[shared]]
name = "day"
limit = 100000
per = "day"
cost = 7
endpoints = ["agent", "default", "agent"]

[[shared]]
name = "all"
scope = "everyone"
limit = 9000
per = "second"
enforce = "shadow"
endpoints = ["executions", "agent"]

[[shared]]
name = "all-concurrent"
scope = "everyone"
concurrent = 0x3E8
endpoints = ["executions", "agent"]

[unidentified]
limit = 60
per = "minute"
burst = 20
cost = 2
enforce = "shadow"
"#;

const LIMITS_JSON: &str = r#"{
    "unidentified": {
        "enforce": "shadow", "cost": 2, "burst": 20, "per": "minute", "limit": 60
    },
    "shared": [
        {
            "endpoints": ["agent", "default", "agent"],
            "name": "day",
            "limit": 100000,
            "per": "day",
            "cost": 7
        },
        {
            "endpoints": ["executions", "agent"],
            "name": "all",
            "scope": "everyone",
            "limit": 9000,
            "per": "second",
            "enforce": "shadow"
        },
        {
            "endpoints": ["executions", "agent"],
            "concurrent": 1000,
            "scope": "everyone",
            "name": "all-concurrent"
        }
    ],
    "default": {
        "also": [
            {
                "name": "default-user",
                "scope": "user",
                "enforce": "shadow",
                "cost": 2,
                "concurrent": 100
            }
        ],
        "concurrent": 1000000000,
        "burst": 100
    },
    "endpoint": [
        {
            "also": [
                {
                    "name": "call-day",
                    "scope": "account",
                    "limit": 20000,
                    "per": "day",
                    "burst": 500,
                    "cost": 2,
                    "enforce": 25
                }
            ],
            "concurrent": 10,
            "user_share": 20,
            "name": "call",
            "limit": 500,
            "per": "minute",
            "cost": 3
        }
    ]
}"#;

/// The same policy, built.
fn built_limits() -> Policy {
    let call_day = LimitBuilder::account("call-day", Quota::per_day(20_000).burst(500));
    let default_user = LimitBuilder::user("default-user", Quota::concurrent(100)).cost(2);
    let day = LimitBuilder::account("day", Quota::per_day(100_000)).cost(7);
    let all = LimitBuilder::everyone("all", Quota::per_second(9000));
    let all_concurrent = LimitBuilder::everyone("all-concurrent", Quota::concurrent(1000));
    Policy::bolna()
        .cost("call", 3)
        .user_share("call", 20)
        .concurrent("call", 10)
        .also("call", call_day.cost(2).enforce(percent(25)))
        .default_quota(Quota::per_minute(1000).burst(100))
        .concurrent("default", 1_000_000_000)
        .also("default", default_user.enforce(Enforcement::SHADOW))
        .shared(day, ["agent", "default"])
        .shared(all.enforce(Enforcement::SHADOW), ["executions", "agent"])
        .shared(all_concurrent, ["executions", "agent"])
        .unidentified_quota(Quota::per_minute(60).burst(20))
        .cost("unidentified", 2)
        .enforce("unidentified", Enforcement::SHADOW)
        .build()
        .unwrap()
}

fn assert_same(read: &Policy, built: &Policy) {
    assert_eq!(read.limits(), built.limits());
    assert!(read == built, "{read:?} is not {built:?}");
    assert_eq!(read.endpoints().collect::<Vec<_>>(), built.endpoints().collect::<Vec<_>>());
    for (endpoint, _) in built.endpoints() {
        assert_eq!(read.enforcement_of(endpoint), built.enforcement_of(endpoint), "{endpoint}");
    }
    let paths = [
        "/call",
        "/v2/call",
        "/%63all",
        "//call",
        "/x/..;/call",
        "/v2/call/",
        "/call%00.png",
        "/search",
        "/search/books",
        "/search/help",
        "/search/%68elp",
        "/search/../call",
        "/healthz",
        "/healthz/",
        "/public/a/b",
        "/public/../call",
        "/v2/agent/all",
        "/v2/agent/17",
        "/v2/agent/17/executions",
        "/v2//agent/17/executions",
        "/nowhere",
        "*",
        "",
    ];
    for path in paths {
        assert_eq!(read.endpoint_of(path), built.endpoint_of(path), "{path}");
    }
}

#[test]
fn a_file_says_what_a_builder_says() {
    assert_same(&Policy::from_toml(TOML).unwrap(), &built());
    assert_same(&Policy::from_json(JSON).unwrap(), &built());
    // Files as editors on Windows write them.
    let windows = format!("\u{feff}{}", TOML.replace('\n', "\r\n"));
    assert_same(&Policy::from_toml(&windows).unwrap(), &built());
    assert_same(&Policy::from_json(&format!("\u{feff}{JSON}")).unwrap(), &built());
}

#[test]
fn a_file_has_every_limit_that_a_builder_has() {
    let toml = Policy::from_toml(LIMITS_TOML).unwrap();
    assert_same(&toml, &built_limits());
    assert_same(&Policy::from_json(LIMITS_JSON).unwrap(), &built_limits());
    let limits: Vec<_> = toml.limits_of(Endpoint::CALL).map(|it| it.to_string()).collect();
    let expected = [
        "call, 500 requests per minute for each account",
        "call-user, 100 requests per minute for each user",
        "call-concurrent, 10 requests at once for each account",
        "call-day, 20000 requests per day for each account",
    ];
    assert_eq!(limits, expected);
    // TOML's inline tables, and an endpoint that the base does not have.
    let inline = r#"
        shared = [
            { name = "day", limit = 9, per = "day", endpoints = ["search", "call"] },
        ]
        unidentified = { limit = 60, per = "minute" }
        [[endpoint]]
        name = "search"
        limit = 5
        per = "minute"
        paths = ["/search"]
        also = [{ name = "search-hour", limit = 50, per = "hour", cost = 50 }]
    "#;
    let hour = LimitBuilder::account("search-hour", Quota::per_hour(50)).cost(50);
    let built = Policy::bolna()
        .endpoint("search", Quota::per_minute(5), ["/search"])
        .also("search", hour)
        .shared(LimitBuilder::account("day", Quota::per_day(9)), ["search", "call"])
        .unidentified_quota(Quota::per_minute(60))
        .build();
    assert_same(&Policy::from_toml(inline).unwrap(), &built.unwrap());
}

/// A share is of the limit that the endpoint has in the end.
#[test]
fn a_users_share_is_of_the_files_limit() {
    let text = "[[endpoint]]\nname = \"call\"\nuser_share = 10\nlimit = 70\nper = \"hour\"\n";
    let policy = Policy::from_toml(text).unwrap();
    let shares = policy.limits_of(Endpoint::CALL).map(|limit| limit.quota()).nth(1);
    assert_eq!(shares, Quota::per_hour(7).build().ok());
}

#[test]
fn what_is_not_set_stays_as_the_base_has_it() {
    let bolna = Policy::default();
    assert_same(&Policy::from_toml("base = \"bolna\"").unwrap(), &bolna);
    assert_same(&Policy::from_toml("enforce = \"full\"").unwrap(), &bolna);
    assert_same(&Policy::from_toml("[default]").unwrap(), &bolna);
    assert_same(&Policy::from_json(r#"{"endpoint": [{"name": "call"}]}"#).unwrap(), &bolna);
    let empty = Policy::builder().build().unwrap();
    assert_same(&Policy::from_toml("base = \"empty\"").unwrap(), &empty);
    assert_same(
        &Policy::from_json(r#"{"base": "empty", "exempt": [], "endpoint": []}"#).unwrap(),
        &empty,
    );
}

#[test]
fn a_burst_alone_keeps_the_limit_and_a_limit_alone_resets_the_burst() {
    let quota = |text: &str| Policy::from_toml(text).unwrap().quota_of(Endpoint::CALL);
    let call = "[[endpoint]]\nname = \"call\"\n";
    assert_eq!(quota(&format!("{call}burst = 7")), Quota::per_minute(500).burst(7).build().ok());
    assert_eq!(quota(&format!("{call}limit = 9\nper = \"hour\"")), Quota::per_hour(9).build().ok());
    let default =
        Policy::from_json(r#"{"default": {"burst": 5}}"#).unwrap().quota_of(Endpoint::DEFAULT);
    assert_eq!(default, Quota::per_minute(1000).burst(5).build().ok());
}

#[test]
fn periods_are_words() {
    for (per, seconds) in [
        ("second", 1),
        ("minute", 60),
        ("hour", 3600),
        ("day", 86_400),
        ("1 minute", 60),
        ("10 seconds", 10),
        ("90 minutes", 5400),
        ("7 days", 604_800),
    ] {
        let policy = Policy::from_toml(&format!("[default]\nlimit = 3\nper = \"{per}\"")).unwrap();
        let built = Quota::per(3, Duration::from_secs(seconds)).build().ok();
        assert_eq!(policy.quota_of(Endpoint::DEFAULT), built, "{per}");
    }
}

/// The number of a period is written as JSON writes one: in digits, without a sign or a leading
/// zero.
#[test]
fn a_period_in_another_spelling_is_an_error() {
    for per in [
        "",
        "+1 seconds",
        "-0 seconds",
        "01 seconds",
        "00 seconds",
        "1_000 seconds",
        "1,000 seconds",
        "0x10 seconds",
        "1e3 seconds",
        "1.0 seconds",
        "\u{0661} seconds",
        "\u{ff11} seconds",
        " 1 second",
        "1 second ",
        "1  second",
        "1\t second",
        "1\tsecond",
        "1\u{a0}second",
        "1second",
        "1 secondss",
        "1 second s",
        "1 Second",
        "1 s",
        "1 ",
        "s",
        "seconds",
        "second ",
        "5 day s",
        "5",
        "+",
        "+ seconds",
        " seconds",
        "1 minute 30 seconds",
        "one second",
    ] {
        let quoted = serde_json::Value::from(per);
        let toml = format!("[default]\nlimit = 3\nper = {quoted}");
        let json = format!("{{\"default\": {{\"limit\": 3, \"per\": {quoted}}}}}");
        for error in [Policy::from_toml(&toml).unwrap_err(), Policy::from_json(&json).unwrap_err()]
        {
            let says = format!("\"10 seconds\", found {per:?}");
            assert!(error.to_string().contains(&says), "{error}");
        }
    }
}

/// Only a whole number is a limit, a burst or a percentage.
#[test]
fn a_number_in_another_spelling_is_an_error() {
    let odd = ["-0", "1.0", "1e1", "-1", "01", "+", "1_", "0x", "1 0", "\u{0661}", "\"5\"", ""];
    for key in ["limit", "burst", "cost", "enforce", "user_share", "concurrent"] {
        for number in odd {
            let per = if key == "limit" { "per = \"minute\"" } else { "" };
            let toml = format!("[default]\n{key} = {number}\n{per}");
            assert!(Policy::from_toml(&toml).is_err(), "{toml}");
        }
        for number in odd.into_iter().chain(["+1", "1_0", "0x1", "1e0"]) {
            let per = if key == "limit" { ", \"per\": \"minute\"" } else { "" };
            let json = format!("{{\"default\": {{\"{key}\": {number}{per}}}}}");
            assert!(Policy::from_json(&json).is_err(), "{json}");
        }
    }
    // By the rules of TOML each of these is the whole number 50.
    for number in ["50", "+50", "5_0", "0x32", "0o62", "0b110010"] {
        let policy = Policy::from_toml(&format!("[default]\nburst = {number}")).unwrap();
        let quota = Quota::per_minute(1000).burst(50).build();
        assert_eq!(policy.quota_of(Endpoint::DEFAULT), quota.ok(), "{number}");
    }
}

/// The text without its marker `@`, and the line and the column of the marker.
fn unmark(marked: &str) -> (String, (usize, usize)) {
    let (before, after) = marked.split_once('@').unwrap();
    let last = before.rsplit('\n').next().unwrap_or_default();
    (format!("{before}{after}"), (before.matches('\n').count() + 1, last.chars().count() + 1))
}

fn assert_told(read: Read, marked: &str, says: &[&str]) {
    let (text, place) = unmark(marked);
    let error = read(&text).expect_err(&text);
    assert_eq!(
        (error.line(), error.column()),
        (Some(place.0), Some(place.1)),
        "{error}, in\n{marked}"
    );
    let shown = error.to_string();
    assert_eq!(shown, format!("line {}, column {}: {}", place.0, place.1, error.message()));
    assert!(
        says.iter().all(|part| shown.contains(part)) && !shown.contains('\n'),
        "{shown:?} does not say {says:?}"
    );
    assert_eq!(error.path(), None);
}

#[test]
fn a_mistake_in_toml_is_told_by_its_place() {
    let new = "[[endpoint]]\nname = \"new\"\nlimit = 5\nper = \"minute\"\n";
    let call = "[[endpoint]]\nname = \"call\"\n";
    let mistakes: &[(&str, &[&str])] = &[
        // Syntax.
        ("base = \"bolna\"\n??@\n", &[]),
        ("base = \"bolna\"\nexempt = @/healthz\n", &[]),
        ("base = \"bolna\"\n\n@base = \"empty\"\n", &["duplicate key"]),
        ("[default]\nlimit = 5\nper = \"minute\"\n[@default]\n", &["duplicate key"]),
        // Nothing is set.
        ("@", &["nothing is set", "base"]),
        ("@# base = \"bolna\"\n", &["nothing is set"]),
        // Keys.
        (
            "@exmpt = []\n",
            &["\"exmpt\" of the policy", "base, enforce, exempt, stripped_prefixes, ignored"],
        ),
        (
            "[default]\n@brust = 5\n",
            &[
                "\"brust\" of endpoint \"default\"",
                "limit, per, burst, cost, enforce, user_share, concurrent, paths",
            ],
        ),
        (
            &format!("{call}@path = [\"/call\"]\n"),
            &["\"path\" of endpoint \"call\"", "name, limit, per"],
        ),
        (
            "[default]\nburst = 5\n@exempt = [\"/x\"]\n",
            &["\"exempt\"", "whole policy", "above the first `[`"],
        ),
        ("[default]\n@name = \"default\"\n", &["\"name\" of endpoint \"default\""]),
        // Types.
        ("base = @7\n", &["base of the policy", "\"bolna\" or \"empty\"", "found 7"]),
        ("base = @\"bolnar\"\n", &["\"bolnar\"", "\"bolna\" or \"empty\""]),
        (
            "exempt = @\"/healthz\"\n",
            &["exempt of the policy", "a list of paths", "found \"/healthz\""],
        ),
        ("exempt = [\n  \"/healthz\",\n  @3,\n]\n", &["a list of paths", "found 3"]),
        (
            "exempt = [\n  \"/healthz\",\n  @[[[[[\"/x\"]]]]],\n]\n",
            &["a list of paths", "found a list"],
        ),
        ("default = @5\n", &["endpoint \"default\": wanted a table, found 5"]),
        (
            "[@endpoint.call]\nlimit = 5\n",
            &["endpoint of the policy", "[[endpoint]]", "found a table"],
        ),
        ("endpoint = [\n  @1,\n]\n", &["an endpoint: wanted a table, found 1"]),
        ("@[[endpoint]]\nlimit = 5\nper = \"minute\"\n", &["has no name"]),
        (
            "[[endpoint]]\nname = @1979-05-27\n",
            &["name of an endpoint: wanted a text, found 1979-05-27"],
        ),
        (
            &format!("{call}paths = @{{}}\n"),
            &["paths of endpoint \"call\"", "a list of paths", "found a table"],
        ),
        // Numbers.
        (
            &format!("{call}limit = @-5\nper = \"minute\"\n"),
            &["limit of endpoint \"call\"", "1 to 4294967295", "found -5"],
        ),
        (&format!("{call}limit = @1.5\nper = \"minute\"\n"), &["whole number", "found 1.5"]),
        (&format!("{call}limit = @nan\nper = \"minute\"\n"), &["whole number", "found nan"]),
        (&format!("{call}limit = @inf\nper = \"minute\"\n"), &["whole number", "found inf"]),
        (
            &format!("{call}limit = @\"500\"\nper = \"minute\"\n"),
            &["whole number", "found \"500\""],
        ),
        (
            &format!("{call}limit = @4294967296\nper = \"minute\"\n"),
            &["whole number", "found 4294967296"],
        ),
        (
            &format!("{call}limit = @99999999999999999999\nper = \"minute\"\n"),
            &["found 99999999999999999999"],
        ),
        (
            &format!("{call}burst = @true\n"),
            &["burst of endpoint \"call\"", "whole number", "found true"],
        ),
        (
            &format!("{call}limit = 5\nper = @60\n"),
            &["per of endpoint \"call\"", "\"10 seconds\"", "found 60"],
        ),
        (&format!("{call}limit = 5\nper = @\"minutes\"\n"), &["\"minute\"", "found \"minutes\""]),
        (&format!("{call}limit = 5\nper = @\"-1 seconds\"\n"), &["found \"-1 seconds\""]),
        (&format!("{call}limit = 5\nper = @\"1.5 seconds\"\n"), &["found \"1.5 seconds\""]),
        ("enforce = @101\n", &["enforce of the policy", "percent from 0 to 100", "found 101"]),
        ("enforce = @0.25\n", &["percent from 0 to 100", "found 0.25"]),
        (
            &format!("{call}enforce = @\"25 %\"\n"),
            &["enforce of endpoint \"call\"", "found \"25 %\""],
        ),
        ("[default]\nenforce = @-1\n", &["enforce of endpoint \"default\"", "found -1"]),
        // Half a quota.
        (&format!("{call}limit = @5\n"), &["limit of endpoint \"call\"", "it needs a period"]),
        (&format!("{call}per = @\"minute\"\n"), &["per of endpoint \"call\"", "set `limit` too"]),
        (
            "[[endpoint]]\nname = @\"new\"\npaths = [\"/new\"]\n",
            &["\"new\"", "limit, per and paths"],
        ),
        (
            "[[endpoint]]\nname = @\"cal\"\nlimit = 5\nper = \"minute\"\n",
            &[
                "endpoint \"cal\": base \"bolna\" has no endpoint of that name",
                "limit, per and paths",
            ],
        ),
        ("base = \"empty\"\n[[endpoint]]\nname = @\"call\"\n", &["base \"empty\" has no endpoint"]),
        // Quotas that make no sense.
        (&format!("{call}limit = @0\nper = \"minute\"\n"), &["quota of \"call\": limit is 0"]),
        (&format!("{call}limit = 5\nper = @\"0 seconds\"\n"), &["quota of \"call\": period is 0"]),
        (&format!("{call}burst = @0\n"), &["quota of \"call\": burst is 0"]),
        ("[default]\nper = \"hour\"\nlimit = @0\n", &["quota of \"default\": limit is 0"]),
        ("[default]\nper = \"40000 days\"\nlimit = @1\n", &["quota of \"default\"", "100 years"]),
        (
            "[default]\nper = @\"18446744073709551615 days\"\nlimit = 1\n",
            &["per of endpoint \"default\"", "too long", "found \"18446744073709551615 days\""],
        ),
        (
            "[default]\nper = @\"99999999999999999999 seconds\"\nlimit = 1\n",
            &["too long", "found \"99999999999999999999 seconds\""],
        ),
        (
            "[default]\nburst = 4294967295\nlimit = @1\nper = \"hour\"\n",
            &["burst 4294967295", "100 years"],
        ),
        // Names.
        (
            &new.replace("\"new\"", "@\"a b\"").replace("limit", "paths = [\"/new\"]\nlimit"),
            &["\"a b\"", "1 to 64 characters"],
        ),
        ("[[endpoint]]\nname = @\"default\"\n", &["everything else", "table `default`"]),
        (
            &format!("{call}burst = 5\n\n{}", call.replace("\"call\"", "@\"call\"")),
            &["\"call\"", "it is taken"],
        ),
        // Paths.
        (&format!("{new}paths = @[]\n"), &["\"new\"", "no paths"]),
        (&format!("{call}paths = @[]\n"), &["\"call\"", "no paths"]),
        (
            &format!("{new}paths = [\n  \"/new\",\n  @\"/new/\",\n]\n"),
            &["\"/new/\"", "trailing slash"],
        ),
        (
            &format!("{new}paths = [\n  \"/new\",\n  @\"/new/:id\",\n]\n"),
            &["\"/new/:id\"", "`{name}`"],
        ),
        (
            &format!("{new}paths = [\n  \"/new\",\n  @\"/new\",\n]\n"),
            &["\"/new\"", "same paths as `/new`"],
        ),
        (&format!("{new}paths = [@\"/call\"]\n"), &["\"/call\"", "same paths as `/call`"]),
        (
            &format!("exempt = [\"/x\", @\"/call\"]\n{call}burst = 5\n"),
            &["\"/call\"", "same paths"],
        ),
        (&format!("exempt = [@\"/new\"]\n{new}paths = [\"/new\"]\n"), &["\"/new\"", "same paths"]),
        ("exempt = [@\"healthz\"]\n", &["\"healthz\"", "starts with `/`"]),
        (
            "stripped_prefixes = [\"/api\", @\"/v1/\"]\n",
            &["stripped prefix \"/v1/\"", "trailing slash"],
        ),
        ("stripped_prefixes = [@\"/\"]\n", &["stripped prefix \"/\"", "trailing slash"]),
        ("stripped_prefixes = [@\"/{*all}\"]\n", &["stripped prefix", "the last segment"]),
        ("stripped_prefixes = @\"/api\"\n", &["a list of paths", "found \"/api\""]),
        (
            "ignored_spellings = [\"capitals\", @\"case\"]\n",
            &[
                "\"case\" in ignored_spellings of the policy",
                "the kinds are capitals, format-suffix",
            ],
        ),
        ("ignored_spellings = @7\n", &["a list of kinds of spelling", "found 7"]),
        (
            "[default]\npaths = [\n  @\"/v2/agent/{id}\",\n]\n",
            &["same paths as `/v2/agent/{agent_id}`"],
        ),
        (
            "[[endpoint]]\nname = \"agent\"\npaths = [\n  \"/a\",\n  @\"/call\",\n]\n",
            &["same paths as `/call`"],
        ),
    ];
    for (marked, says) in mistakes {
        assert_told(Policy::from_toml, marked, says);
    }
}

#[test]
fn a_mistake_in_a_limit_in_toml_is_told_by_its_place() {
    let call = |rest: &str| format!("[[endpoint]]\nname = \"call\"\n{rest}");
    let also = |rest: &str| call(&format!("[[endpoint.also]]\n{rest}"));
    let limit = |name: &str| format!("name = {name}\nlimit = 9\nper = \"day\"\n");
    let day = |rest: &str| also(&format!("{}{rest}", limit("\"call-day\"")));
    let shared = |rest: &str| format!("[[shared]]\n{}{rest}", limit("\"day\""));
    let more = |name: &str| format!("[[endpoint.also]]\n{}", limit(name));
    let default_also = format!("[[default.also]]\n{}", limit("@\"call-user\""));
    let call_at = "[[endpoint]]\nname = @\"call\"\n";
    let three = ["\"a\"", "\"b\"", "\"c\""].map(more).concat();
    let shares = |endpoints: &str| {
        let shared = |name: &str| format!("[[shared]]\n{}{endpoints}", limit(name));
        ["\"a\"", "\"b\"", "\"c\""].map(shared).concat()
    };
    let long = "x".repeat(60);
    let new = format!("name = \"{long}\"\nlimit = 5\nper = \"minute\"\npaths = [\"/x\"]\n");
    let mistakes: &[(&str, &[&str])] = &[
        // Keys.
        (
            &day("@brust = 5\n"),
            &[
                "key \"brust\" of limit \"call-day\": there is no such key",
                "the keys are name, scope, limit, per, burst, concurrent, cost, enforce",
            ],
        ),
        (
            &day("@paths = [\"/call\"]\n"),
            &["\"paths\" of limit \"call-day\"", "above the further limits"],
        ),
        (&day("@exempt = []\n"), &["\"exempt\"", "above the first `[`"]),
        (
            &shared("@paths = []\n"),
            &["\"paths\" of limit \"day\"", "burst, concurrent, cost, enforce, endpoints"],
        ),
        (
            "[unidentified]\nlimit = 9\nper = \"day\"\n@scope = \"user\"\n",
            &["\"scope\" of limit \"unidentified\"", "keys are limit, per, burst, cost, enforce"],
        ),
        (
            "[unidentified]\n@concurrent = 5\nlimit = 9\nper = \"day\"\n",
            &[
                "key \"concurrent\" of limit \"unidentified\": there is no such key",
                "this limit must be a rate",
            ],
        ),
        // Types.
        (
            &call("also = @5\n"),
            &["also of endpoint \"call\"", "`[[endpoint.also]]`", "`[[default.also]]`", "found 5"],
        ),
        (&call("also = [@5]\n"), &["a limit: wanted a table, found 5"]),
        ("@[shared]\nname = \"day\"\n", &["shared of the policy", "[[shared]]", "found a table"]),
        ("unidentified = @60\n", &["limit \"unidentified\": wanted a table, found 60"]),
        (
            &shared("endpoints = @\"call\"\n"),
            &["endpoints of limit \"day\"", "a list of endpoints"],
        ),
        (&shared("endpoints = [\"call\", @7]\n"), &["a list of endpoints", "found 7"]),
        // What is missing.
        (&call("@[[endpoint.also]]\nlimit = 9\nper = \"day\"\n"), &["a limit has no name"]),
        (
            &also("name = @\"call-day\"\n"),
            &["limit \"call-day\": it needs limit and per, or concurrent"],
        ),
        (
            &also("name = @\"call-day\"\nburst = 5\n"),
            &["limit \"call-day\": it needs limit and per"],
        ),
        (
            &also("name = \"call-day\"\nlimit = @9\n"),
            &["limit of limit \"call-day\"", "set `per` too"],
        ),
        (
            "[[shared]]\nname = @\"day\"\nendpoints = [\"call\"]\n",
            &["limit \"day\": it needs limit and per, or concurrent"],
        ),
        (
            "[[shared]]\nname = @\"day\"\nlimit = 9\nper = \"day\"\n",
            &["limit \"day\": it needs endpoints"],
        ),
        ("[[shared]]\nname = @\"day\"\nconcurrent = 9\n", &["limit \"day\": it needs endpoints"]),
        ("@[[shared]]\nlimit = 9\nper = \"day\"\n", &["a limit has no name"]),
        (
            "enforce = 5\n@[unidentified]\nburst = 20\n",
            &["limit \"unidentified\": it needs limit and per"],
        ),
        ("[unidentified]\nper = @\"day\"\n", &["per of limit \"unidentified\"", "`limit` too"]),
        // Scopes.
        (
            &day("scope = @\"address\"\n"),
            &[
                "scope of limit \"call-day\": wanted \"account\", \"user\" or \"everyone\"",
                "found \"address\"",
            ],
        ),
        (&day("scope = @\"User\"\n"), &["\"user\" or \"everyone\", found \"User\""]),
        (&shared("scope = @3\n"), &["scope of limit \"day\"", "found 3"]),
        // Costs and shares.
        (
            &call("cost = @0\n"),
            &["cost of limit \"call\": it is 0, and must be from 1 to the burst, 500"],
        ),
        (&call("cost = @501\n"), &["cost of limit \"call\": it is 501"]),
        (&call("burst = 5\ncost = @6\n"), &["it is 6, and must be from 1 to the burst, 5"]),
        (
            &call("cost = @4294967296\n"),
            &["cost of endpoint \"call\"", "whole number from 1 to 4294967295"],
        ),
        (&day("cost = @0\n"), &["cost of limit \"call-day\": it is 0"]),
        (&day("cost = @10\n"), &["cost of limit \"call-day\": it is 10", "the burst, 9"]),
        (&day("cost = @1.5\n"), &["cost of limit \"call-day\"", "whole number", "found 1.5"]),
        (
            &shared("endpoints = [\"call\"]\ncost = @10\n"),
            &["cost of limit \"day\": it is 10", "the burst, 9"],
        ),
        (
            "[unidentified]\nlimit = 9\nper = \"day\"\ncost = @0\n",
            &["cost of limit \"unidentified\": it is 0"],
        ),
        (
            "[unidentified]\ncost = @4\nlimit = 9\nper = \"day\"\nburst = 3\n",
            &["cost of limit \"unidentified\": it is 4", "the burst, 3"],
        ),
        (
            &call("user_share = @0\n"),
            &["user share of endpoint \"call\": it is 0, and must be from 1 to 100 percent"],
        ),
        (&call("user_share = @101\n"), &["it is 101, and must be from 1 to 100 percent"]),
        ("[default]\nuser_share = @101\n", &["user share of endpoint \"default\": it is 101"]),
        (
            &call("user_share = @256\n"),
            &["user_share of endpoint \"call\"", "percent from 1 to 100, found 256"],
        ),
        // 27,000 days for one unit of the share, of which it would hold two.
        (
            &call("user_share = @50\nlimit = 3\nper = \"27000 days\"\nburst = 4\n"),
            &["quota of \"call-user\"", "100 years"],
        ),
        // Quotas.
        (
            &also("name = \"call-day\"\nlimit = @0\nper = \"day\"\n"),
            &["quota of \"call-day\": limit is 0"],
        ),
        (
            &also("name = \"call-day\"\nlimit = 9\nper = @\"0 days\"\n"),
            &["quota of \"call-day\": period is 0"],
        ),
        (&day("burst = @0\n"), &["quota of \"call-day\": burst is 0"]),
        (
            &also("name = \"call-day\"\nlimit = @1\nper = \"40000 days\"\n"),
            &["quota of \"call-day\"", "100 years"],
        ),
        (&shared("burst = @0\nendpoints = [\"call\"]\n"), &["quota of \"day\": burst is 0"]),
        (
            "[unidentified]\nlimit = 5\nper = \"day\"\nburst = @0\n",
            &["quota of \"unidentified\": burst is 0"],
        ),
        // Requests in flight.
        (&call("concurrent = @0\n"), &["quota of \"call-concurrent\": limit is 0"]),
        (
            &call("concurrent = @1000000001\n"),
            &["quota of \"call-concurrent\": limit is 1000000001 requests", "at most 1000000000"],
        ),
        (
            &call("concurrent = @4294967296\n"),
            &["concurrent of endpoint \"call\"", "from 1 to 1000000000, found 4294967296"],
        ),
        (
            "[default]\nconcurrent = @\"10\"\n",
            &["concurrent of endpoint \"default\"", "whole number of requests", "found \"10\""],
        ),
        (
            &also("name = \"places\"\nconcurrent = @0\n"),
            &["quota of \"places\": limit is 0, which would refuse everything"],
        ),
        (
            "[[shared]]\nname = \"day\"\nconcurrent = @2000000000\nendpoints = [\"call\"]\n",
            &["quota of \"day\": limit is 2000000000 requests in flight"],
        ),
        (
            "[[endpoint]]\nname = @\"new\"\nconcurrent = 5\npaths = [\"/new\"]\n",
            &["endpoint \"new\"", "a new one needs limit, per and paths"],
        ),
        // ... which are not mistaken for the rate of the same table.
        (&call("concurrent = 5\nburst = @0\n"), &["quota of \"call\": burst is 0"]),
        (
            &day("concurrent = @5\n"),
            &[
                "concurrent of limit \"call-day\": a limit is a rate, with `limit` and `per`",
                "make two limits of it",
            ],
        ),
        (
            &shared("endpoints = [\"call\"]\nconcurrent = @5\n"),
            &["concurrent of limit \"day\"", "make two limits of it"],
        ),
        (
            &also("name = \"places\"\nconcurrent = 5\nburst = @5\n"),
            &[
                "burst of limit \"places\": a limit of requests in flight has no burst",
                "leave it out",
            ],
        ),
        (
            &also("name = \"places\"\nconcurrent = 5\nper = @\"day\"\n"),
            &["per of limit \"places\""],
        ),
        (
            &also("name = \"places\"\nconcurrent = 5\ncost = @6\n"),
            &["cost of limit \"places\": it is 6, and must be from 1 to 5, the most requests that"],
        ),
        (
            &format!("[[endpoint]]\n{new}concurrent = @5\n"),
            &[&format!("limit name \"{long}-concurrent\": a name is 1 to 64 characters")],
        ),
        (
            &call(&format!("concurrent = 5\n{}", more("@\"call-concurrent\""))),
            &["limit name \"call-concurrent\": it is taken"],
        ),
        (
            &format!(
                "{call_at}user_share = 5\nconcurrent = 5\n{}",
                ["\"a\"", "\"b\""].map(more).concat()
            ),
            &["endpoint \"call\": it has 5 limits", "at most 4"],
        ),
        // Names.
        (
            &also("name = @\"a b\"\nlimit = 9\nper = \"day\"\n"),
            &["limit name \"a b\": a name is 1 to 64 characters"],
        ),
        (
            &also("name = @7\nlimit = 9\nper = \"day\"\n"),
            &["name of a limit: wanted a text, found 7"],
        ),
        (
            &format!("[[endpoint]]\n{new}user_share = @5\n"),
            &[&format!("limit name \"{long}-user\": a name is 1 to 64 characters")],
        ),
        (&day(&more("@\"call-day\"")), &["limit name \"call-day\": it is taken"]),
        (&also(&limit("@\"agent\"")), &["limit name \"agent\": it is taken", "an endpoint"]),
        (&also(&limit("@\"call\"")), &["limit name \"call\": it is taken"]),
        (&also(&limit("@\"default\"")), &["limit name \"default\": it is taken"]),
        (
            &format!("{}\n[[endpoint]]\n{new}", also(&limit(&format!("@\"{long}\"")))),
            &[&format!("limit name \"{long}\": it is taken")],
        ),
        (
            &call(&format!("user_share = 5\n{}", more("@\"call-user\""))),
            &["limit name \"call-user\": it is taken"],
        ),
        (
            &format!("{default_also}\n[default]\nuser_share = 5\n")
                .replace("call-user", "default-user"),
            &["\"default-user\": it is taken"],
        ),
        (
            &day(&shared("endpoints = [\"agent\"]\n")
                .replace("\"day\"\nlimit", "@\"call-day\"\nlimit")),
            &["limit name \"call-day\": it is taken"],
        ),
        (
            &format!(
                "{}[unidentified]\nlimit = 5\nper = \"day\"\n",
                also(&limit("@\"unidentified\""))
            ),
            &["limit name \"unidentified\": it is taken"],
        ),
        (
            &format!(
                "[[endpoint]]\n{}@[unidentified]\n{}",
                new.replace(&long, "unidentified"),
                &limit("")[7..]
            ),
            &["limit name \"unidentified\": it is taken"],
        ),
        // The valid one of two limits with the same name is not blamed for the other's quota.
        (
            &also(&format!("{}burst = 0\n{}", limit("\"d\""), more("@\"d\""))),
            &["limit name \"d\": it is taken"],
        ),
        // Too many limits.
        (
            &format!("{call_at}{three}{}", more("\"d\"")),
            &["endpoint \"call\": it has 5 limits", "at most 4"],
        ),
        (
            &format!("{call_at}user_share = 5\n{three}"),
            &["endpoint \"call\": it has 5 limits", "at most 4"],
        ),
        (
            &format!("{call_at}burst = 5\n{}{}", more("\"d\""), shares("endpoints = [\"call\"]\n")),
            &["endpoint \"call\": it has 5 limits"],
        ),
        (
            &format!(
                "enforce = 5\n@[default]\nuser_share = 5\n{}",
                shares("endpoints = [\"default\"]\n")
            ),
            &["endpoint \"default\": it has 5 limits"],
        ),
        // ... of an endpoint that has no table in the file.
        (
            &format!(
                "{}[[shared]]\n{}endpoints = [\"call\", @\"agent\"]\n",
                shares("endpoints = [\"agent\"]\n"),
                limit("\"d\"")
            ),
            &["endpoint \"agent\": it has 5 limits"],
        ),
        // What a shared limit is of.
        (&shared("endpoints = @[]\n"), &["limit \"day\": it names no endpoint"]),
        (
            &shared("endpoints = [\"call\", @\"cal\", \"default\"]\n"),
            &[
                "endpoint \"cal\" of limit \"day\"",
                "the names are executions, agent, call, default",
            ],
        ),
        (
            &shared("endpoints = [@\"day\"]\n"),
            &["endpoint \"day\" of limit \"day\"", "neither the base nor the file"],
        ),
    ];
    for (marked, says) in mistakes {
        assert_told(Policy::from_toml, marked, says);
    }
}

#[test]
fn a_mistake_in_json_is_told_by_its_place() {
    let call = |rest: &str| {
        format!(
            "{{\n  \"endpoint\": [\n    {{\n      \"name\": \"call\",\n      {rest}\n    }}\n  ]\n}}\n"
        )
    };
    let new = |rest: &str| {
        call(&format!("\"limit\": 5,\n\"per\": \"minute\",\n{rest}")).replace("\"call\"", "\"new\"")
    };
    let mistakes: &[(&str, &[&str])] = &[
        // Syntax.
        ("@", &["EOF"]),
        ("{\n  \"base\": \"bolna\"@\n", &["EOF"]),
        ("{\n  \"enforce\": 5\n  @\"base\": \"bolna\"\n}", &["expected `,` or `}`"]),
        ("{\n  \"base\": \"bolna\",\n@}", &["trailing comma"]),
        ("{\n  \"base\": @bolna\n}", &["expected value"]),
        ("{\n  \"base\": \"bolna\"\n}\n@x", &["trailing characters"]),
        ("{\n  \"base\": \"\\ud800@\"\n}", &["hex escape"]),
        ("{\n  \"base\": \"bolna\",\n  @\"base\": \"empty\"\n}", &["key \"base\"", "twice"]),
        (&call("\"burst\": 5,\n      @\"b\\u0075rst\": 6"), &["key \"burst\"", "twice"]),
        // Nothing is set.
        ("\n@{}", &["nothing is set"]),
        // Keys.
        (
            "{\n  @\"exmpt\": []\n}",
            &["\"exmpt\" of the policy", "base, enforce, exempt, stripped_prefixes, ignored"],
        ),
        (
            "{ \"default\": {\n  \"limit\": 5,\n  @\"\\u0062rust\": 5 } }",
            &["\"brust\" of endpoint \"default\""],
        ),
        (&call("@\"path\": []"), &["\"path\" of endpoint \"call\"", "name, limit, per"]),
        // Types.
        ("\n @[]", &["the policy: wanted a table, found a list"]),
        ("@null", &["the policy: wanted a table, found null"]),
        (
            "{\n  \"base\": @null\n}",
            &["base of the policy", "\"bolna\" or \"empty\"", "found null"],
        ),
        ("{\n  \"base\": @\"bolnar\"\n}", &["\"bolnar\"", "\"bolna\" or \"empty\""]),
        ("{\n  \"exempt\": [\n    \"/x\",\n    @3\n  ]\n}", &["a list of paths", "found 3"]),
        (
            "{\n  \"exempt\": [\n    \"/x\",\n    @[[[[[]]]]]\n  ]\n}",
            &["a list of paths", "found a list"],
        ),
        ("{\n  \"default\": @[]\n}", &["endpoint \"default\": wanted a table, found a list"]),
        ("{\n  \"endpoint\": @{ \"call\": {} }\n}", &["endpoint of the policy", "found a table"]),
        ("{\n  \"endpoint\": [\n    @1\n  ]\n}", &["an endpoint: wanted a table, found 1"]),
        ("{\n  \"endpoint\": [\n    @{ \"limit\": 5 }\n  ]\n}", &["has no name"]),
        (
            "{\n  \"endpoint\": [\n    { \"name\": @true }\n  ]\n}",
            &["name of an endpoint: wanted a text, found true"],
        ),
        // Numbers.
        (
            &call("\"per\": \"minute\",\n      \"limit\": @-5"),
            &["limit of endpoint \"call\"", "found -5"],
        ),
        (&call("\"per\": \"minute\",\n      \"limit\": @1.5"), &["whole number", "found 1.5"]),
        (&call("\"per\": \"minute\",\n      \"limit\": @5e2"), &["whole number", "found 5e2"]),
        (
            &call("\"per\": \"minute\",\n      \"limit\": @\"500\""),
            &["whole number", "found \"500\""],
        ),
        (&call("\"per\": \"minute\",\n      \"limit\": @4294967296"), &["found 4294967296"]),
        (
            &call("\"per\": \"minute\",\n      \"limit\": @99999999999999999999"),
            &["found 99999999999999999999"],
        ),
        (&call("\"per\": \"minute\",\n      \"limit\": @NaN"), &["expected value"]),
        (&call("\"burst\": @null"), &["burst of endpoint \"call\"", "found null"]),
        (
            &call("\"limit\": 5,\n      \"per\": @60"),
            &["per of endpoint \"call\"", "\"10 seconds\"", "found 60"],
        ),
        (
            "{\n  \"enforce\": @101\n}",
            &["enforce of the policy", "percent from 0 to 100", "found 101"],
        ),
        (&call("\"enforce\": @0.25"), &["enforce of endpoint \"call\"", "found 0.25"]),
        // Half a quota.
        (&call("\"limit\": @5"), &["limit of endpoint \"call\"", "it needs a period"]),
        (&call("\"per\": @\"minute\""), &["per of endpoint \"call\"", "set `limit` too"]),
        (
            "{\"endpoint\": [\n{ \"name\": @\"new\", \"paths\": [\"/new\"] }\n]}",
            &["\"new\"", "limit, per and paths"],
        ),
        // Quotas that make no sense.
        (&call("\"per\": \"minute\",\n      \"limit\": @0"), &["quota of \"call\": limit is 0"]),
        (&call("\"limit\": 5,\n      \"per\": @\"0 hours\""), &["quota of \"call\": period is 0"]),
        (&call("\"burst\": @0"), &["quota of \"call\": burst is 0"]),
        (
            "{\"default\":\n{ \"per\": \"40000 days\",\n\"limit\": @1 }}",
            &["quota of \"default\"", "100 years"],
        ),
        // Names.
        (
            &new("\"paths\": [\"/new\"]").replace("\"new\"", "@\"caf\u{e9}\""),
            &["\"caf\u{e9}\"", "1 to 64 characters"],
        ),
        (
            "{\"endpoint\": [\n  { \"name\": @\"default\" }\n]}",
            &["everything else", "table `default`"],
        ),
        (
            "{\"endpoint\": [\n  { \"name\": \"call\" },\n  { \"name\": @\"call\" }\n]}",
            &["\"call\"", "it is taken"],
        ),
        // Paths.
        (&new("\"paths\": @[]"), &["\"new\"", "no paths"]),
        (&new("\"paths\": [\n\"/new\",\n@\"/new/\"\n]"), &["\"/new/\"", "trailing slash"]),
        (&new("\"paths\": [\n\"/new\",\n@\"/new\"\n]"), &["\"/new\"", "same paths as `/new`"]),
        (&new("\"paths\": [@\"\\/call\"]"), &["\"/call\"", "same paths as `/call`"]),
        (
            "{\n  \"exempt\": [\n    \"/caf\u{e9}\", @\"healthz\"\n  ]\n}",
            &["\"healthz\"", "starts with `/`"],
        ),
        (
            "{\"default\": { \"paths\": [\n  @\"/v2/agent/{id}\"\n] }}",
            &["same paths as `/v2/agent/{agent_id}`"],
        ),
        (
            "{\"endpoint\": [{ \"name\": \"agent\", \"paths\": [\n\"/a\",\n@\"/call\"\n] }]}",
            &["same paths as `/call`"],
        ),
    ];
    for (marked, says) in mistakes {
        assert_told(Policy::from_json, marked, says);
    }
}

#[test]
fn a_mistake_in_a_limit_in_json_is_told_by_its_place() {
    let call = |rest: &str| format!("{{\"endpoint\": [\n{{ \"name\": \"call\",\n{rest} }}\n]}}");
    let limit = |rest: &str| format!("{{ \"limit\": 9, \"per\": \"day\",\n{rest} }}");
    let also = |rest: &str| call(&format!("\"also\": [{}]", limit(rest)));
    let day = |rest: &str| also(&format!("\"name\": \"call-day\", {rest}"));
    let shared = |rest: &str| {
        let rest = format!("\"name\": \"day\", \"endpoints\": [\"call\"], {rest}");
        format!("{{\"shared\": [{}]}}", limit(&rest))
    };
    let more = |names: &[&str]| {
        let limits: Vec<_> = names.iter().map(|it| limit(&format!("\"name\": {it}"))).collect();
        format!("\"also\": [\n{}]", limits.join(",\n"))
    };
    let mistakes: &[(&str, &[&str])] = &[
        // Keys and types.
        (&day("@\"brust\": 5"), &["\"brust\" of limit \"call-day\"", "name, scope, limit, per"]),
        (
            "{\"unidentified\": {\"limit\": 9, \"per\": \"day\",\n@\"name\": \"x\" }}",
            &["\"name\" of limit \"unidentified\"", "limit, per, burst, cost, enforce"],
        ),
        (&call("\"also\": @{}"), &["also of endpoint \"call\"", "found a table"]),
        (&call("\"also\": [\n@[]]"), &["a limit: wanted a table, found a list"]),
        (&day("\"burst\": @[[[]]]"), &["burst of limit \"call-day\"", "found a list or table"]),
        (&day("\"scope\": @null"), &["\"account\", \"user\" or \"everyone\", found null"]),
        // What is missing.
        (&call("\"also\": [\n@{}]"), &["a limit has no name"]),
        (
            &call("\"also\": [{ \"name\": @\"d\" }]"),
            &["limit \"d\": it needs limit and per, or concurrent"],
        ),
        ("{\"unidentified\": @{}}", &["limit \"unidentified\": it needs limit and per"]),
        (
            "{\"shared\": [{ \"limit\": 5, \"per\": \"day\", \"name\": @\"d\" }]}",
            &["limit \"d\": it needs endpoints"],
        ),
        // Costs, shares and quotas.
        (&call("\"cost\": @0"), &["cost of limit \"call\": it is 0"]),
        (&day("\"cost\": @10"), &["cost of limit \"call-day\": it is 10", "the burst, 9"]),
        (&call("\"user_share\": @0"), &["from 1 to 100 percent"]),
        (&call("\"user_share\": @101"), &["it is 101, and must be from 1 to 100 percent"]),
        (&call("\"concurrent\": @0"), &["quota of \"call-concurrent\": limit is 0"]),
        (&call("\"concurrent\": @-1"), &["concurrent of endpoint \"call\"", "found -1"]),
        (&day("\"concurrent\": @5"), &["concurrent of limit \"call-day\"", "make two limits"]),
        (
            &call("\"also\": [{ \"name\": \"d\", \"burst\": @5, \"concurrent\": 5 }]"),
            &["burst of limit \"d\"", "has no burst"],
        ),
        (&day("\"burst\": @0"), &["quota of \"call-day\": burst is 0"]),
        (&shared("\"burst\": @0"), &["quota of \"day\": burst is 0"]),
        // Names.
        (&also("\"name\": @\"\""), &["limit name \"\": a name is 1 to 64 characters"]),
        (&also("\"name\": @\"agent\""), &["limit name \"agent\": it is taken"]),
        (&call(&more(&["\"d\"", "@\"d\""])), &["limit name \"d\": it is taken"]),
        // Too many limits, and what a shared limit is of.
        (
            &call(&more(&["\"a\"", "\"b\"", "\"c\"", "\"d\""])).replace("\"call\"", "@\"call\""),
            &["endpoint \"call\": it has 5 limits", "at most 4"],
        ),
        (
            &format!("{{\"default\": @{{ {} }}}}", more(&["\"a\"", "\"b\"", "\"c\"", "\"d\""])),
            &["endpoint \"default\": it has 5 limits"],
        ),
        (&shared("").replace("[\"call\"], ", "@[]"), &["limit \"day\": it names no endpoint"]),
        (
            &shared("").replace("\"call\"], ", "\"call\", @\"cal\"]"),
            &["endpoint \"cal\" of limit \"day\""],
        ),
    ];
    for (marked, says) in mistakes {
        assert_told(Policy::from_json, marked, says);
    }
}

/// Asserts that the error of a text, in which `LONG` stands for a long value, quotes the first 100
/// characters of the value and says that there are more. The place is that of the marker `@`.
#[track_caller]
fn assert_cut(read: Read, marked: &str) {
    for letter in ["J", "\u{e9}", "7"] {
        let is_number = !marked.contains("\"LONG") && !marked.contains("/LONG");
        if is_number != (letter == "7") {
            continue;
        }
        let (text, place) = unmark(marked);
        let error = read(&text.replace("LONG", &letter.repeat(200_000))).expect_err(marked);
        let shown = error.message().matches(letter).count();
        assert!(error.message().contains('\u{2026}'), "{}", error.message());
        assert!((95..=103).contains(&shown), "{shown} of {letter:?} in {}", error.message());
        assert_eq!((error.line(), error.column()), (Some(place.0), Some(place.1)), "{marked}");
        assert!(error.to_string().len() < 1000);
    }
}

#[test]
fn an_error_quotes_at_most_a_hundred_characters_of_a_value() {
    let endpoint = |rest: &str| format!("[[endpoint]]\nname = \"new\"\n{rest}");
    for marked in [
        "base = @\"LONG\"\n",
        "base = @LONG\n",
        "@\"LONG\" = 1\n",
        "[default]\n@\"LONG\" = 1\n",
        "default = @\"LONG\"\n",
        "enforce = @\"LONG\"\n",
        "exempt = @\"LONG\"\n",
        "exempt = [\n@\"LONG\"]\n",
        "[default]\nper = \"minute\"\nlimit = @\"LONG\"\n",
        "[default]\nper = \"minute\"\nlimit = @LONG\n",
        "[default]\nper = \"minute\"\nlimit = @-LONG\n",
        "[default]\nlimit = 5\nper = @\"LONG\"\n",
        "[default]\nlimit = 5\nper = @\"LONG seconds\"\n",
        "[[endpoint]]\nname = @\"LONG\"\n",
        "[[endpoint]]\nname = @\"LONG\"\nlimit = 5\nper = \"minute\"\npaths = [\"/x\"]\n",
        "[[endpoint]]\nname = \"LONG\"\n@foo = 5\n",
        "[[default.also]]\nname = @\"LONG\"\n",
        "[[default.also]]\nname = \"LONG\"\n@foo = 5\n",
        "[[default.also]]\nname = \"x\"\nscope = @\"LONG\"\n",
        "[[shared]]\nname = \"x\"\nlimit = 5\nper = \"day\"\nendpoints = [@\"LONG\"]\n",
        &endpoint("limit = 5\nper = \"minute\"\npaths = [\n@\"LONG\"]\n"),
        &endpoint("limit = 5\nper = \"minute\"\npaths = [\n@\"/:LONG\"]\n"),
    ] {
        assert_cut(Policy::from_toml, marked);
    }
    for marked in [
        "{\"base\": @\"LONG\"}",
        "{\"base\": @0.LONG}",
        "{\n@\"LONG\": 1}",
        "{\"LONG\": 1,\n@\"LONG\": 1}",
        "{\"exempt\": [\n@\"LONG\"]}",
        "{\"default\": {\n\"per\": \"minute\", \"limit\": @\"LONG\"}}",
        "{\"default\": {\n\"per\": \"minute\", \"limit\": @-0.LONG}}",
        "{\"default\": {\"limit\": 5, \"per\": @\"LONG\"}}",
        "{\"endpoint\": [{\"name\": @\"LONG\"}]}",
    ] {
        assert_cut(Policy::from_json, marked);
    }
}

/// A folder that is gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bolna-rate-limit-{}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_extension_says_the_format() {
    let folder = Folder::new("formats");
    assert_same(&Policy::read(folder.file("limits.toml", TOML)).unwrap(), &built());
    assert_same(&Policy::read(folder.file("limits.JSON", JSON)).unwrap(), &built());
    for name in ["limits.yaml", "limits", ".toml"] {
        let path = folder.file(name, TOML);
        let error = Policy::read(&path).unwrap_err();
        assert_eq!(
            (error.path(), error.line(), error.column()),
            (Some(path.as_path()), None, None)
        );
        assert!(
            error
                .to_string()
                .ends_with(&format!("{name}: the name of a policy's file ends in .toml or .json"))
        );
    }
}

#[test]
fn the_file_in_the_guide_is_valid() {
    let guide = include_str!("../../src/guide/limits.md");
    let blocks = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let files: Vec<_> = blocks.filter(|block| block.contains("[[endpoint]]")).collect();
    assert_eq!(files.len(), 1);
    for file in files {
        assert!(Policy::from_toml(file).is_ok(), "{file}: {:?}", Policy::from_toml(file));
    }
}

#[test]
fn the_examples_files_say_the_same() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let toml = Policy::read(examples.join("limits.toml")).unwrap();
    assert_same(&Policy::read(examples.join("limits.json")).unwrap(), &toml);
    assert_eq!(toml.quota_of(Endpoint::CALL), Quota::per_minute(60).burst(10).build().ok());
    assert_eq!(
        toml.enforcement_of(toml.endpoint_of("/search").unwrap()),
        Some(Enforcement::SHADOW)
    );
}

#[test]
fn a_mistake_in_a_file_names_the_file() {
    let folder = Folder::new("mistakes");
    let path =
        folder.file("limits.toml", "[[endpoint]]\nname = \"call\"\nlimit = 0\nper = \"minute\"\n");
    let error = Policy::read(&path).unwrap_err();
    assert_eq!(
        (error.path(), error.line(), error.column()),
        (Some(path.as_path()), Some(3), Some(9))
    );
    let rule = "quota of \"call\": limit is 0, which would refuse everything for ever: it \
                must be at least 1 request";
    assert_eq!(error.to_string(), format!("{}:3:9: {rule}", path.display()));
    assert!(error.source().is_none());

    let error =
        Policy::read(folder.file("latin1.toml", b"base = \"bolna\"\n# caf\xe9\n")).unwrap_err();
    assert_eq!((error.line(), error.column()), (Some(2), Some(6)), "{error}");
    assert!(error.message().contains("UTF-8"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_reason() {
    let path = Path::new("/nowhere/limits.toml");
    let error = Policy::read(path).unwrap_err();
    assert_eq!((error.path(), error.line()), (Some(path), None));
    assert!(
        error.to_string().starts_with("/nowhere/limits.toml: the file can't be read: "),
        "{error}"
    );
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_policy_from_a_file_keeps_what_was_spent() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let caller = organization("org-4");
    for _ in 0..250 {
        assert!(limiter.decide_now(&caller, "/call").unwrap().is_allowed());
    }
    // Half of the bucket is spent, and it is full again in 30 s. By the new quota this is half of
    // the bucket too.
    let text = "[[endpoint]]\nname = \"call\"\nlimit = 100\nper = \"minute\"\n";
    limiter.set_policy(Policy::from_toml(text).unwrap()).unwrap();
    let decision = limiter.decide_now(&caller, "/call").unwrap();
    assert_eq!(
        (decision.is_allowed(), decision.quota().limit(), decision.remaining()),
        (true, 100, 49)
    );
    clock.advance(Duration::from_secs(30));
    assert_eq!(limiter.decide_now(&caller, "/call").unwrap().remaining(), 98);
}

#[test]
fn what_nests_without_end_is_refused() {
    let depth = 100_000;
    let deep = [
        format!("{{\"base\": {}{}}}", "[".repeat(depth), "]".repeat(depth)),
        format!("{{\"base\": {}", "{\"a\":".repeat(depth)),
    ];
    for text in deep {
        assert!(Policy::from_json(&text).is_err());
    }
    let key = vec!["a"; depth].join(".");
    let inline = format!("{{\n{} = ", vec!["a"; 100].join(".")).repeat(70);
    let deep = [
        format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)),
        format!("{key} = 1"),
        format!("[{key}]"),
        format!("a = {inline}1{}", "}".repeat(70)),
    ];
    for text in deep {
        assert!(Policy::from_toml(&text).is_err());
    }
}

/// If the work grew with the square of their number, this test would take many times as long.
#[test]
fn a_file_may_have_as_many_paths_as_it_takes() {
    // Neither in the order of their spellings nor all under one parent.
    let path = |number: u32| {
        let mixed = number.wrapping_mul(0x9e37_79b9);
        [format!("/{mixed:x}"), format!("/v2/{mixed:x}/{{id}}")]
    };
    let paths = |numbers: std::ops::Range<u32>| {
        numbers.flat_map(path).map(|path| format!("{path:?}")).collect::<Vec<_>>().join(",\n")
    };
    let (exempt, one) = (paths(0..25_000), paths(25_000..50_000));
    let toml = format!(
        "exempt = [{exempt}]\n[[endpoint]]\nname = \"one\"\nlimit = 5\nper = \"minute\"\npaths = [{one}]"
    );
    let json = format!(
        r#"{{"exempt": [{exempt}],
             "endpoint": [{{"name": "one", "limit": 5, "per": "minute", "paths": [{one}]}}]}}"#
    );
    for policy in [Policy::from_toml(&toml), Policy::from_json(&json)] {
        let policy = policy.unwrap();
        for number in (0..50_000).step_by(4_999) {
            let endpoint = (number >= 25_000).then_some("one");
            for path in path(number) {
                let path = path.replace("{id}", "7");
                assert_eq!(policy.endpoint_of(&path).map(|it| it.name()), endpoint, "{path}");
            }
        }
        assert_eq!(policy.endpoint_of("/v2/7"), Some(Endpoint::DEFAULT));
    }
}

/// The same for limits.
#[test]
fn a_file_may_have_as_many_limits_as_it_takes() {
    const MANY: u32 = 50_000;
    let limits = |rest: &str| {
        let limit = |number| format!(r#"{{"name": "{number}", "limit": 9, "per": "day"{rest}}}"#);
        (0..MANY).map(limit).collect::<Vec<_>>().join(",\n")
    };
    let endpoint = |limits: &str| format!(r#"{{"endpoint": [{limits}]}}"#);
    let also = format!(r#"{{"default": {{"also": [{}]}}}}"#, limits(""));
    let shared = format!(r#"{{"shared": [{}]}}"#, limits(r#", "endpoints": ["default"]"#));
    let also_toml = "[[default.also]]\nname = \"NUMBER\"\nlimit = 9\nper = \"day\"\n";
    let also_toml: String =
        (0..MANY).map(|number| also_toml.replace("NUMBER", &number.to_string())).collect();
    for read in
        [Policy::from_json(&also), Policy::from_toml(&also_toml), Policy::from_json(&shared)]
    {
        let error = read.unwrap_err().to_string();
        assert!(error.contains("endpoint \"default\": it has 50001 limits"), "{error}");
    }
    // One limit of each, which are more names than a process can have.
    let endpoints = (0..MANY)
        .map(|number| {
            let also = format!(r#"{{"name": "{number}-day", "limit": 9, "per": "day"}}"#);
            format!(
                r#"{{"name": "{number}", "limit": 9, "per": "day", "paths": ["/{number}"],
                     "user_share": 20, "concurrent": 10, "also": [{also}]}}"#
            )
        })
        .collect::<Vec<_>>()
        .join(",\n");
    let error = Policy::from_json(&endpoint(&endpoints)).unwrap_err();
    assert!(error.to_string().contains("distinct names that a process can have"), "{error}");
    assert!(error.line().is_some_and(|line| line > 1), "{error}");
    // An endpoint that is named over and over has the limit once.
    let names = vec!["\"call\""; MANY as usize].join(",");
    let shared = r#"{"name": "day", "limit": 9, "per": "day", "endpoints": ["#;
    let policy = Policy::from_json(&format!("{{\"shared\": [{shared}{names}]}}]}}")).unwrap();
    assert_eq!(policy.limits_of(Endpoint::CALL).count(), 2);
}

/// Inserts, replaces and removes pieces of a text. Places are fractions of its length.
fn mutated(text: &str, mutations: &[(u16, u8, String)]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for (place, removed, put) in mutations {
        let at = usize::from(*place) * text.len() / usize::from(u16::MAX);
        let end = text.len().min(at + usize::from(*removed));
        text.splice(at..end, put.chars());
    }
    text.into_iter().collect()
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        for read in [Policy::from_toml, Policy::from_json] {
            if let Err(error) = read(&text) {
                prop_assert!(error.line().is_some_and(|line| line <= text.matches('\n').count() + 1), "{error}");
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), json in any::<bool>()) {
        let folder = Folder::new("bytes");
        let path = folder.file(if json { "limits.json" } else { "limits.toml" }, bytes);
        if let Err(error) = Policy::read(&path) {
            prop_assert!(error.line().is_some(), "{error}");
        }
    }

    #[test]
    fn no_mutation_of_a_good_file_panics(
        mutations in prop::collection::vec((any::<u16>(), 0..12_u8, "[\"\\[\\]{},:=.0-9a-z/#\n -]{0,6}"), 1..4),
    ) {
        for (read, good) in [
            (Policy::from_toml as Read, TOML),
            (Policy::from_json, JSON),
            (Policy::from_toml, LIMITS_TOML),
            (Policy::from_json, LIMITS_JSON),
        ] {
            let text = mutated(good, &mutations);
            if let Err(error) = read(&text) {
                prop_assert!(error.line().is_some_and(|line| line <= text.matches('\n').count() + 1), "{error}");
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}

#[test]
fn an_error_about_an_unknown_endpoint_names_at_most_sixteen() {
    let endpoint = |number: u32| {
        format!(
            "[[endpoint]]\nname = \"named-{number}\"\nlimit = 1\nper = \"minute\"\n\
             paths = [\"/named/{number}\"]\n"
        )
    };
    let endpoints = (0..30).map(endpoint).collect::<String>();
    let shared = "[[shared]]\nname = \"d\"\nlimit = 9\nper = \"day\"\nendpoints = [\"x\"]\n";
    let error = Policy::from_toml(&format!("base = \"empty\"\n{endpoints}{shared}")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the names are named-0, named-1, "), "{text}");
    assert!(text.ends_with(", named-15 and 15 more"), "{text}");
}
