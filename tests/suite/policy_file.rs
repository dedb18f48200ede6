//! Policies that are read from files: their content, and errors with the file, the line and the
//! rule of a mistake.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use bolna_rate_limit::policy::PolicyFileError;
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

fn assert_same(read: &Policy, built: &Policy) {
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
    for key in ["limit", "burst", "enforce"] {
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
        ("@exmpt = []\n", &["\"exmpt\" of the policy", "base, enforce, exempt, default, endpoint"]),
        (
            "[default]\n@brust = 5\n",
            &["\"brust\" of endpoint \"default\"", "limit, per, burst, enforce, paths"],
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
        (
            &format!("{call}limit = @0\nper = \"minute\"\n"),
            &["quota of endpoint \"call\": limit is 0"],
        ),
        (
            &format!("{call}limit = 5\nper = @\"0 seconds\"\n"),
            &["quota of endpoint \"call\": period is 0"],
        ),
        (&format!("{call}burst = @0\n"), &["quota of endpoint \"call\": burst is 0"]),
        ("[default]\nper = \"hour\"\nlimit = @0\n", &["quota of endpoint \"default\": limit is 0"]),
        ("[default]\nper = \"40000 days\"\nlimit = @1\n", &["endpoint \"default\"", "100 years"]),
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
            &["\"exmpt\" of the policy", "base, enforce, exempt, default, endpoint"],
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
        (
            &call("\"per\": \"minute\",\n      \"limit\": @0"),
            &["quota of endpoint \"call\": limit is 0"],
        ),
        (
            &call("\"limit\": 5,\n      \"per\": @\"0 hours\""),
            &["quota of endpoint \"call\": period is 0"],
        ),
        (&call("\"burst\": @0"), &["quota of endpoint \"call\": burst is 0"]),
        (
            "{\"default\":\n{ \"per\": \"40000 days\",\n\"limit\": @1 }}",
            &["endpoint \"default\"", "100 years"],
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
    let rule = "quota of endpoint \"call\": limit is 0, which would refuse everything for ever: it \
                must be at least 1 request per period";
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
    limiter.set_policy(Policy::from_toml(text).unwrap());
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
        for (read, good) in [(Policy::from_toml as Read, TOML), (Policy::from_json, JSON)] {
            let text = mutated(good, &mutations);
            if let Err(error) = read(&text) {
                prop_assert!(error.line().is_some_and(|line| line <= text.matches('\n').count() + 1), "{error}");
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}
