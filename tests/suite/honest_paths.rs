//! Paths that are sent in good faith are charged to one endpoint, the right one, whatever the ids in
//! them are and however they are escaped. And the rules by which other paths are charged to several.

use std::collections::BTreeSet;

use bolna_rate_limit::{Endpoint, Policy, Quota};
use http::Uri;
use serde::Deserialize;

use crate::read::read;

/// The most bytes of a request target that `http::Uri`, and so hyper, takes.
const LONGEST_TARGET: usize = 65_534;

/// Kinds of id. A server might read some others differently, so they are not among these: `all` and
/// `all.json`, ids of dots only, and ids with a slash, a backslash, `;`, `?`, `#`, `%` or a control
/// character.
const IDS: [&str; 88] = [
    // Of one character.
    "7",
    "x",
    "-",
    "_",
    "~",
    "\u{e9}",
    "\u{905}",
    "\u{1f600}",
    // What databases and libraries make.
    "42",
    "0",
    "18446744073709551615",
    "-1",
    "0x7fff",
    "5bc97541-e320-4d95-a3a5-242cfe45621d",
    "5BC97541-E320-4D95-A3A5-242CFE45621D",
    "{5bc97541-e320-4d95-a3a5-242cfe45621d}",
    "urn:uuid:5bc97541-e320-4d95-a3a5-242cfe45621d",
    "3c90c3cc0d444b5088888dd25736052a",
    "01HQXYZ123ABC456DEF",
    "507f1f77bcf86cd799439011",
    "V1StGXR8_Z5jdHi6B-myT",
    "dGhlIHF1aWNrIGJyb3duIGZveA==",
    "dGhlIHF1aWNrIGJyb3duIGZveA",
    "_-8_-w",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "arn:aws:iam::123456789012:user",
    "OPENAI_API_KEY",
    // People, and what belongs to them.
    "ada@example.com",
    "ada.lovelace+calls@mail.example.com",
    "\"ada lovelace\"@example.com",
    "Ada Lovelace",
    "O'Brien",
    "Lovelace, Ada",
    "@ada",
    "~ada",
    "ada!home",
    "+919876543210",
    "(020) 7946-0018",
    "tel:+1-201-555-0123",
    "10.0.0.1",
    "2001:db8::1",
    "api.example.com:8443",
    // Versions, dates, names of files, prices, expressions.
    "1.2.3",
    "v2.0.0-rc.1+build.5",
    "2026-11-29",
    "2026-11-29T05:01:24.000Z",
    "2026-11-29T05:01:24+05:30",
    "report.pdf",
    "ada@firma.pl",
    "deploy.py",
    "index.php",
    "archive.tar.gz",
    "Call recording (2).wav",
    "call.txt",
    ".env",
    "$9.99",
    "a=b",
    "a=b&c=d",
    "a,b,c",
    "a:b",
    "x*y",
    "*",
    "!",
    "wow!",
    "(x)",
    "a|b",
    "a^b",
    "[1]",
    "<3",
    "one two  three",
    // Words in many scripts.
    "caf\u{e9}",
    "I\u{15e}IK \u{131}l\u{131}k \u{130}",
    "cafe\u{301}",
    "\u{41d}\u{430}\u{434}\u{44f}",
    "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} \u{926}\u{941}\u{928}\u{93f}\u{92f}\u{93e}",
    "\u{ba4}\u{bae}\u{bbf}\u{bb4}\u{bcd}",
    "\u{645}\u{631}\u{62d}\u{628}\u{627}",
    "\u{4f60}\u{597d}",
    "\u{c548}\u{b155}",
    "\u{1f469}\u{200d}\u{1f4bb}\u{1f44d}\u{1f3fd}",
    "\u{1d11e}",
    // A part of a word of the templates, or more than the word.
    "al",
    "all-hands",
    "ALL_HANDS",
    "caller",
    "executions2",
    "agents",
];

/// Words of the templates. As an id each of them is an id like any other.
const WORDS: [&str; 9] =
    ["call", "agent", "executions", "execution", "v2", "stop", "user", "default", "dispositions"];

fn escape(byte: u8, upper: bool) -> String {
    if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") }
}

/// The id with an escape for each byte that `escaped` names.
fn spelled(id: &str, upper: bool, escaped: impl Fn(u8) -> bool) -> String {
    let mut spelled = String::new();
    for character in id.chars() {
        let mut buffer = [0; 4];
        let bytes = character.encode_utf8(&mut buffer).bytes();
        if character.is_ascii() && !bytes.clone().any(&escaped) {
            spelled.push(character);
        } else {
            spelled.extend(bytes.map(|byte| escape(byte, upper)));
        }
    }
    spelled
}

/// The spellings in which clients send an id.
fn spellings(id: &str) -> Vec<String> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let of_a_segment = move |byte| unreserved(byte) || b"!$&'()*+,=:@".contains(&byte);
    let mut spellings = vec![
        id.to_owned(),
        // As `encodeURIComponent` does, nearly.
        spelled(id, true, |byte| !unreserved(byte)),
        spelled(id, false, |byte| !unreserved(byte)),
        // Only what needs it: RFC 3986, section 3.3.
        spelled(id, true, |byte| !of_a_segment(byte)),
        spelled(id, true, |_| true),
        spelled(id, false, |_| true),
    ];
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

/// The template with the id in the place of every parameter.
fn filled(template: &str, id: &str) -> String {
    let mut filled = String::with_capacity(template.len() + id.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        filled.push_str(id);
        rest = after.split_once('}').unwrap().1;
    }
    filled + rest
}

/// Checks the path if hyper takes it. Returns whether it does.
fn assert_charged(policy: &Policy, path: &str, expected: &[&str]) -> bool {
    // `http::Uri` refuses spaces, for example, and takes what follows `?` and `#` for no part of
    // the path.
    let Ok(uri) = path.parse::<Uri>() else { return false };
    if uri.path() != path {
        return false;
    }
    let charged = policy.endpoints_of(path);
    let names: Vec<_> = charged.iter().map(Endpoint::name).collect();
    assert_eq!(names, expected, "{}", excerpt(path));
    assert_eq!(policy.endpoint_of(path), charged.first().copied(), "{}", excerpt(path));
    true
}

fn excerpt(path: &str) -> String {
    if path.len() <= 200 {
        return path.to_owned();
    }
    let start: String = path.chars().take(100).collect();
    format!("{start}\u{2026} ({} bytes)", path.len())
}

/// Checks every id in every spelling in a template, with and without a trailing slash.
fn assert_every_id_is_charged(policy: &Policy, template: &str, expected: &[&str]) {
    assert_every_id_with_ends(policy, template, &["", "/"], expected);
}

/// Checks every id in every spelling in a template, with each of these ends.
fn assert_every_id_with_ends(policy: &Policy, template: &str, ends: &[&str], expected: &[&str]) {
    for id in IDS.iter().chain(&WORDS) {
        let mut sent = 0;
        for id in spellings(id) {
            for end in ends {
                let path = filled(template, &id) + end;
                sent += usize::from(assert_charged(policy, &path, expected));
            }
        }
        assert!(sent >= 2, "hyper takes no more than {sent} spellings of {id:?} in {template}");
    }
}

/// Ids of the given length, of one character each, and as clients spell them.
fn long_ids(bytes: usize) -> Vec<String> {
    ["x", "a.b-", "A", "\u{e9}", "\u{928}", "\u{4f60}", "\u{1f600}", "@:~+,!$'()=&*"]
        .iter()
        .flat_map(|unit| spellings(unit))
        .map(|unit| unit.repeat((bytes / unit.len()).max(1)))
        .collect()
}

/// Checks ids from a byte to the longest that hyper takes.
fn assert_every_length_is_charged(policy: &Policy, template: &str, expected: &[&str]) {
    let room = LONGEST_TARGET - filled(template, "").len() - "/".len();
    let mut longest = 0;
    for bytes in [1, 15, 16, 17, 250, 511, 512, 513, 1_000, 4_096, 20_000, room] {
        for id in long_ids(bytes) {
            let path = filled(template, &id);
            assert!(assert_charged(policy, &path, expected), "hyper takes {}", excerpt(&path));
            let path = path + "/";
            assert!(assert_charged(policy, &path, expected), "hyper takes {}", excerpt(&path));
            longest = longest.max(path.len());
        }
    }
    assert_eq!(longest, LONGEST_TARGET);
}

#[derive(Deserialize)]
struct BolnaEndpoints {
    endpoints: Vec<BolnaEndpoint>,
}

#[derive(Deserialize)]
struct BolnaEndpoint {
    template: String,
    endpoint: String,
}

#[test]
fn every_id_in_every_public_endpoint_of_bolna_is_charged_to_its_endpoint_alone() {
    let policy = Policy::default();
    let BolnaEndpoints { endpoints } = read("bolna_endpoints.json");
    let with_ids: Vec<_> =
        endpoints.iter().filter(|endpoint| endpoint.template.contains('{')).collect();
    assert!(with_ids.len() > 30);
    for BolnaEndpoint { template, endpoint } in with_ids {
        assert_every_id_is_charged(&policy, template, &[endpoint]);
    }
}

#[test]
fn every_length_of_an_id_is_charged_to_its_endpoint_alone() {
    let policy = Policy::default();
    for (template, endpoint) in [
        ("/v2/agent/{id}/executions", "executions"),
        ("/v2/agent/{id}", "agent"),
        ("/v2/agent/{id}/stop", "default"),
        ("/call/{id}/status", "default"),
        ("/batches/{id}", "default"),
        ("/workflow-campaigns/{id}:start", "default"),
    ] {
        assert_every_length_is_charged(&policy, template, &[endpoint]);
    }
}

/// An API with literals beside parameters, parameters in a row, and the rest of a path.
const LIBRARY: [(&str, &str); 14] = [
    ("me", "/users/me"),
    ("user", "/users/{user}"),
    ("keys", "/users/{user}/keys"),
    ("users", "/users"),
    ("repository", "/repositories/{owner}/{name}"),
    ("issues", "/repositories/{owner}/{name}/issues"),
    ("comments", "/repositories/{owner}/{name}/issues/comments"),
    ("issue", "/repositories/{owner}/{name}/issues/{number}"),
    ("stars", "/repositories/starred/{name}/stars"),
    ("files", "/repositories/{owner}/{name}/files/{*path}"),
    ("new", "/projects/new"),
    ("project", "/projects/{project}"),
    ("search", "/search/{*query}"),
    ("version", "/v1/{service}/versions/{version}"),
];

fn library() -> Policy {
    LIBRARY
        .iter()
        .fold(Policy::builder(), |builder, &(endpoint, template)| {
            builder.endpoint(endpoint, Quota::per_minute(100), [template])
        })
        .exempt(["/assets/{*file}", "/healthz"])
        .build()
        .unwrap()
}

#[test]
fn every_id_in_a_policy_of_many_endpoints_is_charged_to_its_endpoint_alone() {
    let policy = library();
    for (endpoint, template) in LIBRARY {
        if template.contains('{') {
            // With a slash at the end, the id of an issue is empty.
            let ends: &[_] = if endpoint == "issues" { &[""] } else { &["", "/"] };
            assert_every_id_with_ends(&policy, template, ends, &[endpoint]);
        } else {
            assert_charged(&policy, template, &[endpoint]);
        }
    }
    // Two ids of two kinds, the rest of a path in several segments, and what no template has.
    for (template, endpoint) in [
        ("/repositories/ada@example.com/{name}", "repository"),
        ("/repositories/{owner}/caf%C3%A9", "repository"),
        ("/repositories/starred/{name}/stars", "stars"),
        ("/repositories/{owner}/issues/issues/comments2", "issue"),
        ("/repositories/ada/tools/files/src/{module}/mod.rs", "files"),
        ("/search/{query}/by/{year}", "search"),
        ("/users/{user}/keys/{key}", "default"),
        ("/orders/{order}", "default"),
        ("/v1/{service}/version/{version}", "default"),
    ] {
        assert_every_id_is_charged(&policy, template, &[endpoint]);
    }
    assert_every_id_with_ends(&policy, "/repositories/starred/{name}/issues", &[""], &["issues"]);
    for id in ["m", "mel", "me-too", "me_", "men", "%6d%65n", "ME2", "news", "ne", "%6ee"] {
        assert_charged(&policy, &format!("/users/{id}"), &["user"]);
        assert_charged(&policy, &format!("/users/{id}/"), &["user"]);
        assert_charged(&policy, &format!("/projects/{id}"), &["project"]);
    }
}

#[test]
fn every_name_of_an_exempt_file_is_exempt() {
    let policy = library();
    for template in ["/assets/{file}", "/assets/icons/{file}", "/assets/{folder}/app.css"] {
        assert_every_id_is_charged(&policy, template, &[]);
        assert_every_length_is_charged(&policy, template, &[]);
    }
}

/// The endpoints that a path is charged to, in any order.
fn set(policy: &Policy, path: &str) -> BTreeSet<String> {
    let charged = policy.endpoints_of(path);
    let set: BTreeSet<_> = charged.iter().map(|endpoint| endpoint.name().to_owned()).collect();
    assert_eq!(set.len(), charged.len(), "{path} is charged twice to one endpoint");
    assert_eq!(policy.endpoint_of(path), charged.first().copied(), "{path}");
    set
}

#[test]
fn a_path_is_charged_to_each_endpoint_that_it_is_read_as_and_to_no_other() {
    let policy = Policy::default();
    for (path, expected) in [
        // A trailing slash is no reading of its own.
        ("/call", &["call"][..]),
        ("/call/", &["call"]),
        ("/v2/agent/x7/", &["agent"]),
        ("/v2/agent/x7/executions/", &["executions"]),
        ("/v2/agent/all/executions/", &["executions"]),
        ("/v2/agent/all/", &["default"]),
        ("/dispositions/", &["default"]),
        ("/user/me/", &["default"]),
        ("/", &["default"]),
        // An id may be empty.
        ("/v2/agent", &["default"]),
        ("/v2/agent/", &["agent", "default"]),
        ("/v2/agent//executions", &["executions", "agent", "default"]),
        // Escapes are decoded, or not.
        ("/%63all", &["call", "default"]),
        ("/%63all/", &["call", "default"]),
        ("/v2/agent/%61ll", &["agent", "default"]),
        ("/v2/agent/x7/execution%73", &["executions", "default"]),
        ("/v2/agent/x7/executions2", &["default"]),
        // Slashes are merged, or not.
        ("//call", &["call", "default"]),
        // Case matters, or not. That of an id does not.
        ("/Call", &["call", "default"]),
        ("/V2/agent/x7", &["agent", "default"]),
        ("/v2/agent/X7", &["agent"]),
        ("/v2/agent/X7/stop", &["default"]),
        // What follows a literal and a dot is a format suffix, or not. That of an id does not matter.
        ("/call.json", &["call", "default"]),
        ("/v2/agent/x7/executions.json", &["executions", "default"]),
        ("/v2/agent/x7.json", &["agent"]),
        ("/v2/agent/x7.json/executions", &["executions"]),
        // A format suffix counts in the last segment alone.
        ("/v2.json/agent/x7", &["default"]),
    ] {
        let expected: BTreeSet<_> = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(set(&policy, path), expected, "{path}");
    }
}

/// These may be charged to further endpoints, but not to fewer.
#[test]
fn a_path_that_servers_resolve_is_charged_to_what_it_is_resolved_to_and_as_it_is_written() {
    let policy = Policy::default();
    for (path, expected) in [
        ("/user/me/../../call", &["call", "default"][..]),
        ("/call/../user/me", &["default"]),
        ("/call%2f..%2fuser%2fme", &["default"]),
        // `default` is charged like any other endpoint, or a caller could read `/user/me` by way of
        // `call`.
        ("/call;/../user/me", &["call", "default"]),
        ("/call;/x", &["call", "default"]),
        ("/x/..;/call", &["call", "default"]),
        ("/v2/agent/../../call", &["call", "default"]),
        ("/v2/agent/../executions", &["executions", "default"]),
        ("/%2563all", &["call", "default"]),
        ("/%u0063all", &["call", "default"]),
        ("/c%adall", &["call", "default"]),
        ("/\\call", &["call", "default"]),
        ("/index.php/call", &["call", "default"]),
        ("/call.", &["call", "default"]),
        ("/call...", &["call", "default"]),
        ("/call%20.", &["call", "default"]),
        ("/call%00.png", &["call", "default"]),
        ("/call%0d%0ax:y", &["call", "default"]),
        ("/%%363all", &["call", "default"]),
        ("/v2/AGENT/x7", &["agent", "default"]),
    ] {
        let charged = set(&policy, path);
        for name in expected {
            assert!(charged.contains(*name), "{path} is charged to {charged:?}, not to {name}");
        }
    }
}

#[test]
fn the_endpoint_of_the_path_as_it_is_written_comes_first() {
    let policy = Policy::default();
    for (path, first) in [
        ("/%63all", Endpoint::DEFAULT),
        ("//call", Endpoint::DEFAULT),
        ("/v2/agent/%61ll", Endpoint::AGENT),
        ("/v2/agent/..", Endpoint::AGENT),
        ("/v2/agent/../executions", Endpoint::EXECUTIONS),
        ("/v2/agent/;/../../../call", Endpoint::DEFAULT),
        ("/call/", Endpoint::CALL),
    ] {
        assert_eq!(policy.endpoints_of(path).first(), Some(&first), "{path}");
        assert_eq!(policy.endpoint_of(path), Some(first), "{path}");
    }
}

#[test]
fn an_exemption_has_to_match_the_path_as_it_is_written_and_in_every_reading() {
    let policy = library();
    for path in ["/healthz", "/assets/app.css", "/assets/a/b/c", "/assets/a/", "/assets/%C3%A9"] {
        assert_eq!(policy.endpoints_of(path), [], "{path}");
        assert_eq!(policy.endpoint_of(path), None, "{path}");
    }
    for path in ["/healthz/", "/health%7a", "//healthz", "/Healthz", "/assets", "/assets/"] {
        assert_eq!(policy.endpoints_of(path), [Endpoint::DEFAULT], "{path}");
        assert_eq!(policy.endpoint_of(path), Some(Endpoint::DEFAULT), "{path}");
    }
    // One reading is another endpoint.
    for path in [
        "/assets/../users",
        "/assets/%2e%2e/users",
        "/assets/..%2fusers",
        "/assets/%252e%252e/users",
        "/assets/%u002e%u002e/users",
        "/assets/..;/users",
        "/assets/..\\users",
        "/assets/x/../../%75sers",
    ] {
        assert!(set(&policy, path).contains("users"), "{path}");
    }
}

#[test]
fn a_malformed_path_is_never_exempt() {
    let policy = library();
    for path in [
        "/assets/%",
        "/assets/%a",
        "/assets/%zz",
        "/assets/%u00",
        "/assets/a%2",
        "/assets/%g0.png",
        "/assets/%ff",
        "/assets/%c3",
        "/assets/%c3(",
        "/assets/%c0%af",
        "/assets/%ed%a0%80",
        "/assets/%/app.css",
    ] {
        assert_ne!(policy.endpoints_of(path), [], "{path}");
        assert_ne!(policy.endpoint_of(path), None, "{path}");
    }
}
