//! Feeds request targets to Bolna's policy. It checks for every target that
//!
//! 1. nothing panics;
//! 2. the cost is bounded: to find the endpoint of a path allocates nothing, and to list all
//!    endpoints allocates the list;
//! 3. no path escapes: wherever a server in `servers` routes it, alone or behind a proxy, the
//!    endpoint of that route is among those that the path is charged to, and it is not exempt;
//! 4. no respelling escapes: if a server reads a respelled path as the same path, the endpoint of
//!    its route is among those that the respelled path is charged to;
//! 5. a plain path, and one with an honest id, is charged to one endpoint, the right one.
//!
//! The time is not measured, but a path has up to 64 KiB: with `-timeout=2`, more than linear time
//! is found.
//!
//! Run it from the root of the repository:
//!
//! ```text
//! mkdir -p fuzz/corpus/classify
//! cargo +nightly fuzz run classify fuzz/corpus/classify fuzz/seeds -- \
//!     -max_total_time=600 -timeout=2 -dict=fuzz/classify.dict
//! ```

#![no_main]

use std::sync::LazyLock;

use bolna_rate_limit::{Endpoint, Policy};
use bolna_rate_limit_fuzz::cost::{self, Cost, Counting};
use bolna_rate_limit_fuzz::servers::routers::{Route, exact};
use bolna_rate_limit_fuzz::servers::steps::hex_pair;
use bolna_rate_limit_fuzz::servers::{PROXIES, SERVERS, Server};
use bolna_rate_limit_fuzz::spelling::Input;
use http::Uri;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static BOLNA: LazyLock<Policy> = LazyLock::new(Policy::default);

static EXEMPTING: LazyLock<Policy> = LazyLock::new(|| {
    Policy::bolna().exempt(["/assets/{*file}", "/healthz"]).build().expect("it is valid")
});

/// The length in bytes of the longest path that is sent through every pair of a proxy and a server.
const LONGEST_IN_PAIRS: usize = 1024;

fuzz_target!(|input: Input| {
    let text = std::str::from_utf8(&input.target).ok();
    let uri = Uri::try_from(input.target.as_slice()).ok();
    let from_uri = uri.as_ref().map(Uri::path);
    if let Some(path) = from_uri {
        // The models of the servers assume that a path has no query and no fragment.
        assert!(!path.contains(['?', '#']), "{path:?}");
        check(path, &input);
    }
    if let Some(path) = text.filter(|_| text != from_uri) {
        check(path, &input);
    }
    if let Some(text) = text {
        check_honest(text, &input);
    }
});

/// The names of the endpoints that a path is charged to. Checks what that costs.
fn charged(policy: &Policy, path: &str) -> Vec<&'static str> {
    let (first, cost) = cost::of(|| policy.endpoint_of(path));
    assert_eq!(cost, Cost::default(), "{path:?} allocates");
    let (endpoints, cost) = cost::of(|| policy.endpoints_of(path));
    let list = endpoints.capacity() * size_of::<Endpoint>();
    assert!(cost.allocations <= 1 && cost.bytes <= list, "the list of {path:?} costs {cost:?}");
    assert_eq!(endpoints.first(), first.as_ref(), "the first endpoint of {path:?}");
    let names: Vec<_> = endpoints.iter().map(|endpoint| endpoint.name()).collect();
    let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
    assert_eq!(twice, None, "{path:?} is charged twice");
    names
}

fn check(path: &str, input: &Input) {
    // Not counted: the first use builds the policy.
    let (bolna, exempting) = (LazyLock::force(&BOLNA), LazyLock::force(&EXEMPTING));
    let charges = charged(bolna, path);
    let with_exemptions = charged(exempting, path);
    if !path.starts_with('/') {
        assert_eq!(charges, ["default"], "{path:?} is no path");
        return;
    }
    if with_exemptions.is_empty() {
        assert!(is_exempt(path), "{path:?} is exempt");
    }
    // `endpoints_of` expects a path without its query, and promises nothing for a raw `?` or `#`.
    if path.contains(['?', '#']) {
        return;
    }
    let written = exact(path.as_bytes()).endpoint().unwrap_or("default");
    if is_plain(path) {
        assert_eq!(charges, [written], "the plain path {path:?}");
    }
    // A trailing slash is no part of the path as it is written.
    if !path.ends_with('/') {
        assert_eq!(charges[0], written, "{path:?} as it is written");
    }
    check_servers(path, |by, server, routed| {
        let Some(endpoint) = routed.endpoint() else { return };
        let escapes = |charges: &[&str]| !charges.contains(&endpoint);
        assert!(
            !escapes(&charges),
            "{path:?} escapes: {server:?}{by} routes it to {routed:?}, it is charged to {charges:?}"
        );
        assert!(
            !escapes(&with_exemptions),
            "{path:?} escapes by exemption: {server:?}{by} routes it to {routed:?}, it is charged \
             to {with_exemptions:?}"
        );
    });
    check_respelling(path, input);
}

/// Calls `check` with the route of each server, alone and behind each proxy.
fn check_servers(path: &str, check: impl Fn(&str, &Server, Route)) {
    for server in SERVERS {
        check("", server, server.route(path.as_bytes()));
    }
    if path.len() > LONGEST_IN_PAIRS {
        return;
    }
    // Most proxies forward the same.
    let mut forwarded = vec![path.as_bytes().to_vec()];
    for proxy in PROXIES {
        let target = proxy.forward(path.as_bytes());
        if !forwarded.contains(&target) {
            let by = format!(" behind {proxy:?}");
            for server in SERVERS {
                check(&by, server, server.route(&target));
            }
            forwarded.push(target);
        }
    }
}

/// Respells the path in one way, which the input chooses. All ways every time would be the same
/// checks, but far slower.
fn check_respelling(path: &str, input: &Input) {
    let respelling = input.respelling();
    if path.len() > LONGEST_IN_PAIRS {
        return;
    }
    let Some(respelled) = respelling.apply(path, &mut input.choices()) else {
        return;
    };
    let charges = charged(&BOLNA, &respelled);
    for name in respelling.blind() {
        let server = Server::named(name).expect("a model");
        let routed = server.route(path.as_bytes());
        let rerouted = server.route(respelled.as_bytes());
        assert_eq!(routed, rerouted, "{server:?} tells {path:?} from {respelled:?}");
        if let Some(endpoint) = routed.endpoint() {
            assert!(
                charges.contains(&endpoint),
                "{respelled:?} escapes: {server:?} routes it, like {path:?}, to {routed:?}, it is \
                 charged to {charges:?}"
            );
        }
    }
}

/// Checks that an id is charged to one endpoint, however it is escaped, if no server reads it as
/// anything else.
fn check_honest(id: &str, input: &Input) {
    let id: String = id
        .chars()
        .filter(|character| !character.is_control() && !"/\\%;?#".contains(*character))
        .take(64)
        .collect();
    let trimmed = id.trim_matches(|character: char| character.is_whitespace() || character == '.');
    let is_list = trimmed.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("all"));
    if trimmed.is_empty() || is_list || id.contains("..") {
        return;
    }
    let mut choices = input.choices();
    let mut escaped = String::new();
    for byte in id.bytes() {
        if byte.is_ascii_graphic() && !choices.is_yes() {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    let slash = if choices.is_yes() { "/" } else { "" };
    for (rest, endpoint) in
        [("", "agent"), ("/executions", "executions"), ("/stop", "default"), ("/x/y", "default")]
    {
        let path = format!("/v2/agent/{escaped}{rest}{slash}");
        assert_eq!(charged(&BOLNA, &path), [endpoint], "the honest path {path:?}");
    }
}

/// Whether every server reads the path literally: it has words, and slashes between them. An id may
/// be spelled otherwise in such a path, but that is for `check_honest`.
fn is_plain(path: &str) -> bool {
    path.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-_~".contains(&byte))
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
}

/// Whether a path may be exempt: it is spelled like what the policy exempts, and nothing in it is
/// malformed.
fn is_exempt(path: &str) -> bool {
    let (bytes, mut decoded, mut at) = (path.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match hex_pair(&bytes[at..]) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None if bytes[at] == b'%' => return false,
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    let written =
        path == "/healthz" || path.strip_prefix("/assets/").is_some_and(|it| !it.is_empty());
    written && String::from_utf8(decoded).is_ok()
}
