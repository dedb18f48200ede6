//! What one limit of requests in flight does, case by case.

use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::StoreError;
use bolna_rate_limit::values::{Costs, LimitName, Outcome};
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Policy, Principal, Quota,
};
use http::StatusCode;

use super::{admit, assert_refused, call, calls_at_once, left, member};
use crate::support::{call_by, now, percent, send, stopped_limiter};

const CALLS: &str = "call-concurrent";

#[test]
fn usage_and_peek_take_no_place() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(3));
    let caller = member("u", "o");
    let first = call(&limiter, &caller);
    let _second = call(&limiter, &caller);
    for _ in 0..5 {
        assert_eq!(left(&limiter, &caller, CALLS), 1);
        assert!(now(limiter.peek(&caller, Endpoint::CALL)).unwrap().unwrap().is_admitted());
    }
    assert_eq!(limiter.report().in_flight, 2);
    let _third = call(&limiter, &caller);
    let peeked = now(limiter.peek(&caller, Endpoint::CALL)).unwrap().unwrap();
    assert!(!peeked.is_admitted());
    assert_eq!(peeked.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(peeked.violated().next().unwrap().name().name(), CALLS);
    drop(first);
    assert_eq!(left(&limiter, &caller, CALLS), 1);
}

#[test]
fn a_check_is_refused_above_the_limit_and_takes_no_place() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(1));
    let caller = member("u", "o");
    for _ in 0..3 {
        assert!(limiter.check_now(&caller, "/call").unwrap().is_admitted());
        assert!(now(limiter.check(&caller, "/call").unwrap().wait()).unwrap().is_admitted());
        let check = limiter.check_endpoint(&caller, Endpoint::CALL, 1);
        assert!(now(check.wait()).unwrap().is_admitted());
    }
    assert_eq!(limiter.report().in_flight, 0);
    let _kept = call(&limiter, &caller);
    assert!(!limiter.check_now(&caller, "/call").unwrap().is_admitted());
}

#[test]
fn a_refused_request_keeps_neither_units_nor_places() {
    let policy =
        Policy::bolna().quota("call", Quota::per_day(2)).concurrent("call", 1).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let caller = member("u", "o");
    let first = call(&limiter, &caller);
    for _ in 0..5 {
        assert_refused(&limiter, &caller, &[CALLS]);
    }
    assert_eq!(left(&limiter, &caller, "call"), 1);
    drop(first);
    drop(call(&limiter, &caller));
    for _ in 0..5 {
        assert_refused(&limiter, &caller, &["call"]);
    }
    assert_eq!((limiter.report().in_flight, left(&limiter, &caller, CALLS)), (0, 1));
}

#[test]
fn accounts_users_and_everyone_have_places_of_their_own() {
    let policy = Policy::bolna()
        .concurrent("call", 3)
        .also("call", LimitBuilder::user("call-user-concurrent", Quota::concurrent(2)))
        .also("call", LimitBuilder::everyone("call-all-concurrent", Quota::concurrent(4)))
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let (ana, ben) = (member("ana", "o"), member("ben", "o"));
    let mut kept = vec![call(&limiter, &ana), call(&limiter, &ana)];
    assert_refused(&limiter, &ana, &["call-user-concurrent"]);
    kept.push(call(&limiter, &ben));
    assert_refused(&limiter, &ben, &[CALLS]);
    assert_refused(&limiter, &ana, &[CALLS, "call-user-concurrent"]);
    // The same user elsewhere is another one, but everyone is one of all.
    kept.push(call(&limiter, &member("ana", "p")));
    assert_refused(&limiter, &member("eve", "p"), &["call-all-concurrent"]);
    // Without a user, only the other two apply; without an organization, all three do.
    assert_refused(&limiter, &Account::user("").in_organization("q"), &["call-all-concurrent"]);
    assert_eq!(limiter.report().in_flight, 4 + 4 + 4);
    kept.clear();
    assert_eq!(limiter.report().in_flight, 0);
    let _alone = (call(&limiter, &Account::user("ana")), call(&limiter, &Account::user("ana")));
    assert_refused(&limiter, &Account::user("ana"), &["call-user-concurrent"]);
}

#[test]
fn in_shadow_mode_no_request_is_refused_and_those_within_the_limit_are_counted() {
    let shadowed = Policy::bolna().concurrent("call", 1).enforce(CALLS, Enforcement::SHADOW);
    for (policy, all) in
        [(shadowed.build().unwrap(), Enforcement::FULL), (calls_at_once(1), Enforcement::SHADOW)]
    {
        let (limiter, _clock) = stopped_limiter(policy);
        limiter.set_enforcement(all);
        let caller = member("u", "o");
        let first = call(&limiter, &caller);
        let (ruling, second) = admit(&limiter, &caller, "/call");
        assert!(ruling.is_admitted() && !ruling.is_allowed());
        assert_eq!(ruling.outcome(), Outcome::Limited);
        assert_eq!(limiter.report().in_flight, 1, "the second has no place");
        drop(first);
        let _third = call(&limiter, &caller);
        drop(second);
        assert_eq!(limiter.report().in_flight, 1);
    }
}

#[test]
fn a_share_of_the_accounts_is_limited() {
    let policy = Policy::bolna().concurrent("call", 1).enforce(CALLS, percent(50));
    let (limiter, _clock) = stopped_limiter(policy.build().unwrap());
    let mut refused = 0;
    for number in 0..200 {
        let caller = member("u", &number.to_string());
        let _first = call(&limiter, &caller);
        let (ruling, _) = admit(&limiter, &caller, "/call");
        let principal = Principal::organization(number.to_string()).unwrap();
        assert_eq!(!ruling.is_admitted(), percent(50).applies_to(&principal));
        assert!(!ruling.is_allowed());
        refused += usize::from(!ruling.is_admitted());
    }
    assert!((70..130).contains(&refused), "{refused} of 200");
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn the_number_of_places_depends_on_the_cost_of_their_limit_only() {
    let policy = Policy::bolna().concurrent("call", 3).cost(CALLS, 2).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let caller = member("u", "o");
    let first = call(&limiter, &caller);
    assert_eq!((left(&limiter, &caller, CALLS), limiter.report().in_flight), (1, 2));
    assert_refused(&limiter, &caller, &[CALLS]);
    drop(first);

    let costs =
        |of: Costs| now(limiter.admit_endpoint(&caller, Endpoint::CALL, of).wait()).unwrap();
    let fifty = costs(50.into());
    assert!(fifty.ruling.is_admitted());
    assert_eq!(limiter.report().in_flight, 2);
    drop(fifty);
    let name = LimitName::new(CALLS).unwrap();
    let all = costs(Costs::default().of(name, 3));
    assert_eq!((limiter.report().in_flight, left(&limiter, &caller, CALLS)), (3, 0));
    drop(all);
    let too_many = costs(Costs::default().of(name, 4));
    assert_eq!(too_many.ruling.outcome(), Outcome::TooCostly);
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn a_cost_above_a_rate_in_shadow_mode_still_takes_a_place() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(5))
        .enforce("call", Enforcement::SHADOW)
        .concurrent("call", 2)
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let caller = member("u", "o");
    let six = Costs::default().of(Endpoint::CALL, 6);
    let peek = || now(limiter.peek_costs(&caller, Endpoint::CALL, six.clone())).unwrap().unwrap();
    let admit = || {
        let answer = limiter.admit_endpoint(&caller, Endpoint::CALL, six.clone());
        now(answer.wait()).unwrap()
    };
    let remaining = |ruling: &bolna_rate_limit::Ruling| ruling.decisions()[0].remaining();
    assert_eq!(remaining(&peek()), 2);
    let first = admit();
    assert_eq!((remaining(&first.ruling), limiter.report().in_flight), (1, 1));
    let second = admit();
    assert_eq!((remaining(&second.ruling), limiter.report().in_flight), (0, 2));
    assert!(!peek().is_admitted() && !admit().ruling.is_admitted());
    drop((first, second));
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn a_reset_frees_no_place_and_a_blocked_request_takes_none() {
    let (limiter, clock) = stopped_limiter(calls_at_once(2));
    let caller = member("u", "o");
    let _first = call(&limiter, &caller);
    now(limiter.reset(&caller, Endpoint::CALL)).unwrap();
    assert_eq!(limiter.report().in_flight, 1);
    now(limiter.block(&caller, Endpoint::CALL, Duration::from_secs(60))).unwrap();
    for _ in 0..3 {
        let (ruling, _) = admit(&limiter, &caller, "/call");
        assert_eq!(ruling.outcome(), Outcome::Blocked);
    }
    assert_eq!(limiter.report().in_flight, 1);
    clock.advance(Duration::from_secs(60));
    let _second = call(&limiter, &caller);
    assert_refused(&limiter, &caller, &[CALLS]);
}

#[test]
fn exempt_unknown_and_unidentified_requests_take_no_place() {
    let policy = Policy::bolna().concurrent("call", 1).exempt(["/healthz"]).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let caller = member("u", "o");
    assert!(limiter.admit(&caller, "/healthz").is_none());
    let unknown = Endpoint::new("no-such-endpoint").unwrap();
    let error: StoreError = now(limiter.admit_endpoint(&caller, unknown, 1).wait()).unwrap_err();
    assert_eq!(error.kind(), "no_endpoint");
    let (ruling, admission) = admit(&limiter, &Account::user(""), "/call");
    assert!(!ruling.is_admitted() && admission.is_none());
    assert_eq!(limiter.report().in_flight, 0);
}

#[tokio::test]
async fn two_layers_on_one_limiter_count_a_request_twice() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(2));
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let both = tower::ServiceBuilder::new().layer(layer.clone()).layer(layer.clone());
    let service = both.service_fn(crate::support::ok);
    let response = tower::ServiceExt::oneshot(service.clone(), call_by("u", "o")).await.unwrap();
    assert_eq!((response.status(), limiter.report().in_flight), (StatusCode::OK, 2));
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(response);
    assert_eq!(limiter.report().in_flight, 0);

    limiter.set_policy(calls_at_once(1)).unwrap();
    let response = tower::ServiceExt::oneshot(service, call_by("u", "o")).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(response);
    assert_eq!(limiter.report().in_flight, 0);
}
