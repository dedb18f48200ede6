//! Limits of requests in flight that change, or are those of a plan or of several endpoints.

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::QuotaError;
use bolna_rate_limit::{Account, Endpoint, Enforcement, Policy, PolicyError, Quota};

use super::{Limited, admit, assert_refused, call, calls_at_once, left, member};
use crate::support::stopped_limiter;

const CALLS: &str = "call-concurrent";

#[test]
fn a_limit_is_lowered_and_raised_while_requests_are_in_flight() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(3));
    let caller = member("u", "o");
    let mut kept: Vec<_> = (0..3).map(|_| call(&limiter, &caller)).collect();
    limiter.set_policy(calls_at_once(1)).unwrap();
    // None of them is ended for it, but there is room only when fewer than the new limit are left.
    while kept.pop().is_some() {
        let is_full = !kept.is_empty();
        assert_eq!(left(&limiter, &caller, CALLS), u32::from(!is_full));
        if is_full {
            assert_refused(&limiter, &caller, &[CALLS]);
        }
    }
    let _first = call(&limiter, &caller);
    assert_refused(&limiter, &caller, &[CALLS]);
    limiter.set_policy(calls_at_once(2)).unwrap();
    let _second = call(&limiter, &caller);
    assert_refused(&limiter, &caller, &[CALLS]);
    // Without the limit, those from before still have their places, for when it comes back.
    limiter.set_policy(Policy::default()).unwrap();
    let _third = call(&limiter, &caller);
    assert_eq!(limiter.report().in_flight, 2);
    limiter.set_policy(calls_at_once(2)).unwrap();
    assert_refused(&limiter, &caller, &[CALLS]);
}

#[test]
fn a_change_of_plan_keeps_the_places() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(1));
    let (standard, paid) = (member("u", "o"), member("u", "o").with_policy(calls_at_once(3)));
    let kept: Vec<_> = (0..3).map(|_| call(&limiter, &paid)).collect();
    assert_refused(&limiter, &paid, &[CALLS]);
    assert_refused(&limiter, &standard, &[CALLS]);
    assert_eq!((left(&limiter, &paid, CALLS), left(&limiter, &standard, CALLS)), (0, 0));
    drop(kept);
    let _one = call(&limiter, &standard);
    assert_refused(&limiter, &standard, &[CALLS]);
    let _two = call(&limiter, &paid);
}

#[test]
fn a_limit_for_everyone_holds_for_accounts_with_a_plan_of_their_own() {
    let everyone = |limit| LimitBuilder::everyone("all-concurrent", Quota::concurrent(limit));
    let policy = |limit| Policy::bolna().also("call", everyone(limit)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy(2));
    // A plan's own limit for everyone has no effect.
    let paid = member("u", "o").with_policy(policy(9));
    let _kept = (call(&limiter, &paid), call(&limiter, &member("v", "p")));
    assert_refused(&limiter, &paid, &["all-concurrent"]);
    assert_refused(&limiter, &member("v", "p"), &["all-concurrent"]);
}

/// A path that some servers read as an agent, and others as the list of agents.
const ODD: &str = "/v2/agent/all.json";

fn several() -> Limited {
    let shared = LimitBuilder::account("shared-concurrent", Quota::concurrent(3));
    let policy = Policy::bolna()
        .quota("agent", Quota::per_day(10))
        .default_quota(Quota::per_day(10))
        .shared(shared, ["agent", "default"])
        .concurrent("agent", 2)
        .concurrent("default", 1)
        .build()
        .unwrap();
    assert_eq!(policy.endpoints_of(ODD), [Endpoint::AGENT, Endpoint::DEFAULT]);
    stopped_limiter(policy).0
}

#[test]
fn an_odd_path_takes_places_of_all_its_endpoints_or_none() {
    let limiter = several();
    let caller = member("u", "o");
    let of = |names: [&str; 5]| names.map(|name| left(&limiter, &caller, name));
    let all =
        || of(["agent", "default", "shared-concurrent", "agent-concurrent", "default-concurrent"]);
    let (ruling, odd) = admit(&limiter, &caller, ODD);
    assert!(ruling.is_admitted());
    assert_eq!(all(), [9, 9, 2, 1, 0], "the shared limit has one place less, not two");
    let (ruling, refused) = admit(&limiter, &caller, ODD);
    let violated: Vec<_> = ruling.violated().map(|it| it.name().name()).collect();
    assert_eq!((violated, refused.is_some()), (vec!["default-concurrent"], false));
    assert_eq!(all(), [9, 9, 2, 1, 0], "all or nothing");
    let (ruling, agent) = admit(&limiter, &caller, "/v2/agent/1");
    assert!(ruling.is_admitted());
    assert_eq!(all(), [8, 9, 1, 0, 0]);
    drop((odd, agent));
    assert_eq!(all(), [8, 9, 3, 2, 1]);
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn refunds_of_an_odd_path_go_to_each_bucket_that_paid() {
    let limiter = several();
    let caller = member("u", "o");
    let (_, odd) = admit(&limiter, &caller, ODD);
    let (_, agent) = admit(&limiter, &caller, "/v2/agent/1");
    let odd = odd.unwrap();
    odd.settle(Endpoint::DEFAULT, 4);
    assert_eq!([left(&limiter, &caller, "agent"), left(&limiter, &caller, "default")], [8, 6]);
    odd.refund();
    assert_eq!([left(&limiter, &caller, "agent"), left(&limiter, &caller, "default")], [9, 10]);
    drop(agent);
}

#[test]
fn invalid_limits_are_errors() {
    let concurrent = |limit| Quota::concurrent(limit);
    assert_eq!(concurrent(0).build(), Err(QuotaError::ZeroLimit));
    let most = Quota::MAX_CONCURRENT;
    assert!(concurrent(most).build().is_ok());
    assert_eq!(concurrent(most + 1).build(), Err(QuotaError::TooManyConcurrent(most + 1)));
    assert_eq!(concurrent(u32::MAX).build(), Err(QuotaError::TooManyConcurrent(u32::MAX)));
    assert_eq!(concurrent(3).burst(2).build(), Err(QuotaError::BurstOfConcurrent(2)));

    let own = Policy::bolna().quota("call", concurrent(3)).build();
    assert!(matches!(own, Err(PolicyError::Concurrent { limit, .. }) if limit == "call"));
    let default = Policy::builder().default_quota(concurrent(3)).build();
    assert!(matches!(default, Err(PolicyError::Concurrent { .. })));
    let addresses = Policy::bolna().unidentified_quota(concurrent(3)).build();
    assert!(matches!(addresses, Err(PolicyError::Concurrent { .. })));
    let unknown = Policy::bolna().concurrent("calls", 3).build();
    assert!(matches!(unknown, Err(PolicyError::UnknownEndpoint { .. })));
    let twice = Policy::bolna().concurrent("call", 3).concurrent("call", 4).build();
    assert!(matches!(twice, Err(PolicyError::DuplicateLimit { name, .. }) if name == CALLS));
    assert!(Policy::bolna().concurrent("call", 3).cost(CALLS, 4).build().is_err());
}

#[test]
fn the_largest_limit_counts_exactly() {
    let policy = Policy::bolna()
        .concurrent("call", Quota::MAX_CONCURRENT)
        .cost(CALLS, Quota::MAX_CONCURRENT / 2)
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let caller = Account::user("u");
    let half = call(&limiter, &caller);
    assert_eq!(left(&limiter, &caller, CALLS), Quota::MAX_CONCURRENT / 2);
    let _other = call(&limiter, &caller);
    assert_refused(&limiter, &caller, &[CALLS]);
    // What is over a limit that was lowered is far over it.
    limiter.set_policy(calls_at_once(1)).unwrap();
    assert_refused(&limiter, &caller, &[CALLS]);
    assert_eq!(left(&limiter, &caller, CALLS), 0);
    limiter.set_enforcement(Enforcement::SHADOW);
    assert!(admit(&limiter, &caller, "/call").0.is_admitted());
    drop(half);
    assert_eq!(limiter.report().in_flight, u64::from(Quota::MAX_CONCURRENT / 2));
}
