//! Feeds request targets to the classifier of Bolna's policy. It checks for every target that
//!
//! 1. nothing panics;
//! 2. the cost is bounded: a plain path allocates nothing, nor does an odd path of more than
//!    [`LONGEST_ODD_PATH`] bytes, and any other path costs at most [`ceiling`];
//! 3. no path escapes: no server in `servers` routes a path to an endpoint that comes before the
//!    endpoint to which it is billed, and a plain path is billed to exactly the endpoint that axum
//!    matches;
//! 4. no respelling escapes: if a server reads a respelled path as the same path, the respelled
//!    path does not escape through that server either.
//!
//! A path is odd if servers may read it in several ways, and plain otherwise.
//!
//! Run it from the root of the repository:
//!
//! ```text
//! mkdir -p fuzz/corpus/classify
//! cargo +nightly fuzz run classify fuzz/corpus/classify fuzz/seeds -- \
//!     -max_total_time=600 -dict=fuzz/classify.dict
//! ```

#![no_main]

use std::sync::LazyLock;

use bolna_rate_limit::Policy;
use bolna_rate_limit_fuzz::cost::{self, Cost, Counting};
use bolna_rate_limit_fuzz::servers::{Class, Proxy, Server};
use bolna_rate_limit_fuzz::spelling::Input;
use http::Uri;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static POLICY: LazyLock<Policy> = LazyLock::new(Policy::default);

/// The length in bytes of the longest odd path that is analysed. A longer one is billed to the
/// first endpoint.
const LONGEST_ODD_PATH: usize = 512;

/// The most that the classifier may allocate for an odd path. It keeps up to 64 readings, none of
/// them longer than the path.
fn ceiling(path: &str) -> Cost {
    const READINGS: usize = 64;
    Cost {
        allocations: READINGS * 24,
        bytes: READINGS * 32 * (path.len() + 8),
        peak: READINGS * 2 * (path.len() + 64),
    }
}

fn within(cost: Cost, most: Cost) -> bool {
    cost.allocations <= most.allocations && cost.bytes <= most.bytes && cost.peak <= most.peak
}

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
});

/// Bills a path and counts the cost of that.
fn bill(path: &str) -> (Class, Cost) {
    // Not counted: the first use builds the policy.
    let policy = LazyLock::force(&POLICY);
    let (endpoint, cost) = cost::of(|| policy.endpoint_of(path));
    let endpoint = endpoint.expect("nothing is exempt");
    (Class::named(endpoint.name()).expect("a class of Bolna's table"), cost)
}

fn check(path: &str, input: &Input) {
    let (billed, cost) = bill(path);
    if !path.starts_with('/') {
        assert_eq!((billed, cost), (Class::Default, Cost::default()), "{path:?} is no path");
        return;
    }
    if is_plain(path) {
        assert_eq!(cost, Cost::default(), "the plain path {path:?} allocates");
        for server in Server::ALL {
            assert_eq!(
                server.route(path.as_bytes()),
                billed,
                "{server:?} reads the plain path {path:?}"
            );
        }
        return check_respelling(path, input);
    }
    if path.len() > LONGEST_ODD_PATH {
        assert_eq!(
            (billed, cost),
            (Class::Executions, Cost::default()),
            "an odd path of {} bytes",
            path.len()
        );
        return;
    }
    let most = ceiling(path);
    assert!(within(cost, most), "{path:?} costs {cost:?}, more than {most:?}");
    // `endpoint_of` expects a path without its query, and promises nothing for a raw `?` or `#`.
    if path.contains(['?', '#']) {
        return;
    }
    for server in Server::ALL {
        let routed = server.route(path.as_bytes());
        assert!(
            billed <= routed,
            "{path:?} escapes: billed {billed:?}, {server:?} routes it to {routed:?}"
        );
    }
    if cfg!(feature = "beyond") {
        check_beyond(path, billed);
    }
    check_respelling(path, input);
}

/// Checks what the classifier does not promise: that no path escapes through any pair of a proxy
/// and a server, nor through any server in `BEYOND`. With `--features beyond` this shows where the
/// promise ends.
fn check_beyond(path: &str, billed: Class) {
    for server in Server::BEYOND {
        let routed = server.route(path.as_bytes());
        assert!(
            billed <= routed,
            "{path:?} escapes: billed {billed:?}, {server:?} routes it to {routed:?}"
        );
    }
    for proxy in Proxy::ALL {
        let forwarded = proxy.forward(path.as_bytes());
        for server in Server::ALL {
            let routed = server.route(&forwarded);
            assert!(
                billed <= routed,
                "{path:?} escapes: billed {billed:?}, {server:?} behind {proxy:?} routes it to \
                 {routed:?}"
            );
        }
    }
}

/// Respells the path in one way, which the input chooses. All ways every time would be the same
/// checks, but far slower.
fn check_respelling(path: &str, input: &Input) {
    let respelling = input.respelling();
    if path.len() > LONGEST_ODD_PATH {
        return;
    }
    let Some(respelled) = respelling.apply(path, &mut input.choices()) else {
        return;
    };
    let (billed, _) = bill(&respelled);
    for server in respelling.blind() {
        let routed = server.route(path.as_bytes());
        let rerouted = server.route(respelled.as_bytes());
        assert_eq!(routed, rerouted, "{server:?} tells {path:?} from {respelled:?}");
        assert!(
            billed <= routed,
            "{respelled:?} escapes: billed {billed:?}, {server:?} routes it, like {path:?}, to \
             {routed:?}"
        );
    }
}

/// Whether every server reads the path literally. Such a path has no `%`, `//`, `/.`, `;`, `\`,
/// trailing slash or control character. It also has no space, `?` or `#`, which no path may have.
fn is_plain(path: &str) -> bool {
    let odd = |character: char| character.is_ascii_control() || " %;\\?#".contains(character);
    !path.contains(odd)
        && !path.contains("//")
        && !path.contains("/.")
        && (path == "/" || !path.ends_with('/'))
}
