//! One caller, who respells paths to get more than its limits.

use std::time::Duration;

use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Policy};
use http::Method;

use super::{CALL, admitted, caller, charged};
use crate::support::{now, request, send, stopped_limiter};

/// They reach `call` behind some server, and another endpoint of the policy behind others.
const SPELLINGS: [&str; 7] = [
    "/v2/agent/x/executions%3f/../../../../../call",
    "/v2/agent/x%3f/../../../../call",
    "/v2/agent/x%23/../../../../call",
    "/x/..;/call",
    "//call",
    CALL,
    "/call/",
];

#[test]
fn no_spelling_adds_the_quota_of_another_endpoint() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    assert_eq!(admitted(&limiter, &caller(), "/call", 600), 500);
    for path in SPELLINGS {
        assert!(charged(&limiter.policy(), path).contains(&"call"), "{path}");
        assert_eq!(admitted(&limiter, &caller(), path, 100), 0, "{path}");
    }
}

#[test]
fn all_spellings_together_get_the_limit_in_any_order() {
    for first in 0..SPELLINGS.len() {
        let (limiter, clock) = stopped_limiter(Policy::default());
        let spellings = SPELLINGS.iter().cycle().skip(first).take(SPELLINGS.len());
        let all = spellings.chain(["/call"].iter());
        assert_eq!(all.map(|path| admitted(&limiter, &caller(), path, 600)).sum::<usize>(), 500);
        // And what comes back in the time.
        clock.advance(Duration::from_secs(6));
        let again = SPELLINGS.iter().map(|path| admitted(&limiter, &caller(), path, 20));
        assert_eq!(again.sum::<usize>(), 50);
    }
}

#[test]
fn a_path_of_default_gets_no_more_by_way_of_call() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    assert_eq!(admitted(&limiter, &caller(), "/user/me", 1100), 1000);
    for path in ["/call%3f/../user/me", "/call%00/../user/me", "/call/..%2fuser/me"] {
        assert!(charged(&limiter.policy(), path).contains(&"default"), "{path}");
        assert_eq!(admitted(&limiter, &caller(), path, 600), 0, "{path}");
    }
    assert_eq!(admitted(&limiter, &caller(), "/call", 600), 500);
}

#[tokio::test]
async fn through_the_layer_the_calls_are_at_most_the_limit() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    let mut calls = 0;
    for path in ["/call"].iter().chain(&SPELLINGS) {
        for _ in 0..600 {
            let response = send(&layer, request(Method::POST, path, "u-1", "o-1")).await;
            calls += usize::from(response.status() == 200);
        }
    }
    assert_eq!(calls, 500);
}

#[test]
fn no_spelling_walks_around_a_block() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let hour = Duration::from_secs(3600);
    now(limiter.block(caller(), Endpoint::CALL, hour)).unwrap();
    for path in SPELLINGS {
        let ruling = super::check(&limiter, &caller(), path);
        assert!(!ruling.is_admitted(), "{path}");
        assert_eq!(ruling.outcome().name(), "blocked", "{path}");
        assert_eq!(ruling.retry_after(), Some(hour), "{path}");
    }
    // A blocked limit has nothing left to tell.
    let untouched = [("executions", 500), ("agent", 500), ("call", 0), ("default", 1000)];
    assert_eq!(super::left(&limiter, &caller()), untouched);
    // Paths that do not reach it are not concerned.
    assert!(super::check(&limiter, &caller(), "/user/me").is_admitted());
    now(limiter.block(caller(), Endpoint::CALL, Duration::ZERO)).unwrap();
    assert_eq!(super::left(&limiter, &caller())[2], ("call", 500));
    now(limiter.block(caller(), Endpoint::CALL, hour)).unwrap();
    clock.advance(hour);
    assert!(super::check(&limiter, &caller(), CALL).is_admitted());
}
