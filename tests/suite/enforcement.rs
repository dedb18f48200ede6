//! Enforcement: the principals on which a limit is enforced.

use bolna_rate_limit::layer::OnUnidentified;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, PolicyError, Principal,
    Quota,
};
use http::{Method, Request};
use proptest::prelude::*;

use crate::deferred::{Answers, DeferredStore};
use crate::observers::Witness;
use crate::support::{
    call_by, now, one_call, organization, percent, request, send, stopped_limiter, tight, traffic,
};

fn stranger(path: &str) -> Request<String> {
    Request::post(path).body(String::new()).unwrap()
}

#[tokio::test]
async fn in_shadow_mode_no_limit_refuses_and_no_response_tells_of_it() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .enforcement(Enforcement::SHADOW)
        .retry_after_ms();
    for _ in 0..3 {
        let response = send(&layer, call_by("u", "o")).await;
        assert_eq!((response.status().as_u16(), response.headers().len()), (200, 0));
    }
    let told = layer.fields_in_shadow();
    let response = send(&told, call_by("u", "o")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["ratelimit"], "\"call\";r=0;t=10");
    assert_eq!(response.headers()["ratelimit-policy"], "\"call\";q=1;w=10");
    assert_eq!(response.headers().get("retry-after"), None);
}

#[tokio::test]
async fn in_shadow_mode_a_store_that_fails_refuses_nobody() {
    for answers in [Answers::Failure, Answers::FailureAtOnce, Answers::FailureOfRequest] {
        let limiter = DeferredStore::limiter(one_call());
        limiter.store().now_answers(answers);
        let layer = BolnaRateLimitLayer::with_limiter(limiter).fields_in_shadow();
        assert_eq!(send(&layer, call_by("u", "o")).await.status(), 503);
        let response = send(&layer.enforcement(Enforcement::SHADOW), call_by("u", "o")).await;
        assert_eq!((response.status().as_u16(), response.headers().len()), (200, 0));
    }
}

/// Without Tower, too: the ruling says that the request goes on, and why.
#[test]
fn a_check_of_a_store_that_fails_is_an_error_only_where_the_limit_is_enforced() {
    for answers in [Answers::Failure, Answers::FailureAtOnce, Answers::FailureOfRequest] {
        let limiter = DeferredStore::limiter(one_call());
        limiter.store().now_answers(answers);
        let check = || now(limiter.check(&Account::user("u"), "/call").unwrap().wait());
        assert!(check().is_err());
        limiter.set_enforcement(Enforcement::SHADOW);
        let ruling = check().unwrap();
        assert_eq!(ruling.outcome(), Outcome::StoreFailed);
        assert!(ruling.is_admitted() && !ruling.is_enforced() && ruling.decision().is_none());
        assert_eq!(ruling.endpoint(), Some(Endpoint::CALL));
    }
}

#[tokio::test]
async fn one_endpoint_can_be_in_shadow_mode() {
    for name in ["call", "default"] {
        let policy = tight().enforce(name, Enforcement::SHADOW).build().unwrap();
        let (limiter, _clock) = stopped_limiter(policy);
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        let in_shadow = |path| (path == "/call") == (name == "call");
        for path in ["/call", "/"] {
            let mut statuses = Vec::new();
            for _ in 0..4 {
                statuses.push(
                    send(&layer, request(Method::POST, path, "u", "o")).await.status().as_u16(),
                );
            }
            let expected = if in_shadow(path) { [200; 4] } else { [200, 200, 429, 429] };
            assert_eq!(statuses, expected, "{path} with {name} in shadow mode");
        }
    }
    for (name, path) in [("call", "/call"), ("default", "/")] {
        let limiter =
            DeferredStore::limiter(tight().enforce(name, Enforcement::SHADOW).build().unwrap());
        limiter.store().now_answers(Answers::Failure);
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        for asked in ["/call", "/"] {
            let expected = if asked == path { 200 } else { 503 };
            assert_eq!(
                send(&layer, request(Method::POST, asked, "u", "o")).await.status(),
                expected,
                "{asked}"
            );
        }
    }
}

#[test]
fn an_enforcement_for_an_endpoint_that_is_not_there_is_an_error() {
    let error = Policy::bolna().enforce("cal", Enforcement::SHADOW).build().unwrap_err();
    assert!(matches!(error, PolicyError::UnknownEndpoint { name, .. } if name == "cal"));
}

proptest! {
    #[test]
    fn shadow_mode_counts_as_enforcement_does_and_goes_over_into_it(
        traffic in traffic(),
        switched_at in 0..80_usize,
        by_policy in any::<bool>(),
    ) {
        let (enforcing, clock) = stopped_limiter(tight().build().unwrap());
        let watched = if by_policy { tight().enforcement(Enforcement::SHADOW) } else { tight() };
        let shadow = Limiter::with_store(watched.build().unwrap(), MemoryStore::with_clock(clock.clone())).unwrap();
        if !by_policy {
            shadow.set_enforcement(Enforcement::SHADOW);
        }
        let (told, told_in_shadow) = (Witness::of(&enforcing), Witness::of(&shadow));
        let enforcing = BolnaRateLimitLayer::with_limiter(enforcing);
        let shadow = BolnaRateLimitLayer::with_limiter(shadow);
        for (number, sent) in traffic.iter().enumerate() {
            clock.advance(sent.pause);
            if number == switched_at {
                if by_policy {
                    shadow.limiter().set_policy(tight().build().unwrap()).unwrap();
                } else {
                    shadow.limiter().set_enforcement(Enforcement::FULL);
                }
            }
            let send = |layer| now(send(layer, request(Method::GET, sent.path, "u", sent.caller)));
            let (enforced, in_shadow) = (send(&enforcing), send(&shadow));
            let (told, told_in_shadow) = (told.one(), told_in_shadow.one());
            prop_assert_eq!(told.decision, told_in_shadow.decision);
            if number < switched_at {
                prop_assert_eq!((in_shadow.status().as_u16(), told_in_shadow.enforced), (200, false));
            } else {
                prop_assert_eq!(in_shadow.status(), enforced.status());
                prop_assert_eq!(in_shadow.headers(), enforced.headers());
                prop_assert_eq!(told_in_shadow, told);
            }
            let usage = |layer: &BolnaRateLimitLayer<_>| now(layer.limiter().usage(&organization(sent.caller))).unwrap();
            prop_assert_eq!(usage(&enforcing), usage(&shadow));
        }
    }
}

/// The smallest share, in percent, that includes the principal.
fn place(principal: &Principal) -> u8 {
    (0..=100).find(|number| percent(*number).applies_to(principal)).unwrap()
}

#[test]
fn a_share_is_of_the_same_principals_in_every_process() {
    // The shares are from a second implementation of what `Enforcement` documents: 64-bit FNV-1a
    // over the kind and the id, then the finalizer of MurmurHash3.
    for (id, share) in
        [("org-4", 61), ("acme", 53), ("1", 26), ("28f9c34b-8eb0-4af5-8689-c2f6c4daec22", 2)]
    {
        assert_eq!(place(&organization(id)), share, "{id}");
    }
    assert_eq!(place(&organization(&"x".repeat(100))), 40);
    for (id, share) in
        [("acme", 89), ("u-17", 6), ("caf\u{e9}", 95), ("5bc97541-e320-4d95-a3a5-242cfe45621d", 81)]
    {
        assert_eq!(place(&Principal::user(id).unwrap()), share, "{id}");
    }
}

#[test]
fn a_share_is_as_large_as_it_says_and_within_every_larger_one() {
    let organizations: Vec<_> =
        (0..10_000).map(|number| organization(&format!("org-{number}"))).collect();
    let users = (0..10_000)
        .map(|number| Principal::user(format!("00000000-0000-4000-8000-{number:012}")).unwrap());
    for principals in [organizations, users.collect()] {
        let mut before = vec![false; principals.len()];
        for number in 0..=100_u8 {
            let enforcement = percent(number);
            let within: Vec<_> =
                principals.iter().map(|principal| enforcement.applies_to(principal)).collect();
            assert!(
                before.iter().zip(&within).all(|(before, within)| before <= within),
                "{number} %"
            );
            let share = within.iter().filter(|within| **within).count();
            // 200 is four standard deviations at 50 %, where they are largest.
            assert!(
                share.abs_diff(usize::from(number) * 100) <= 200,
                "{number} %: {share} of 10000"
            );
            before = within;
        }
        assert!(before.into_iter().all(|within| within));
    }
    assert!(!percent(0).applies_to(&organization("o")));
}

#[test]
fn an_enforcement_says_what_it_is() {
    assert_eq!(Enforcement::default(), Enforcement::FULL);
    assert_eq!(percent(100), Enforcement::FULL);
    assert_eq!(percent(0), Enforcement::SHADOW);
    let said = [Enforcement::FULL, Enforcement::SHADOW, percent(25)].map(|share| share.to_string());
    assert_eq!(said, ["full", "shadow", "25 %"]);
}

/// The number may come from a form or from the environment, and 250 may be meant for 25.
#[test]
fn a_percentage_over_a_hundred_is_an_error() {
    for number in 101..=u8::MAX {
        let error = Enforcement::percent(number).unwrap_err();
        let says =
            format!("enforcement {number}: it must be a whole number of percent from 0 to 100");
        assert_eq!(error.to_string(), says);
    }
    for number in 0..=100 {
        assert_eq!(Enforcement::percent(number).map(Enforcement::as_percent), Ok(number));
    }
}

#[tokio::test]
async fn a_share_refuses_exactly_those_who_are_in_it() {
    let share = percent(30);
    let in_share = tight().enforcement(share).build().unwrap();
    let (limiter, _clock) = stopped_limiter(tight().build().unwrap());
    let (by_policy, _clock) = stopped_limiter(in_share);
    limiter.set_enforcement(share);
    for limiter in [limiter, by_policy] {
        let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
        for number in 0..200 {
            let id = number.to_string();
            for path in ["/call", "/v2/agent/1", "/"] {
                let mut last = 0;
                for _ in 0..4 {
                    last =
                        send(&layer, request(Method::POST, path, "u", &id)).await.status().as_u16();
                }
                let within = share.applies_to(&organization(&id));
                assert_eq!(last, if within { 429 } else { 200 }, "{id} at {path}");
                let endpoint = limiter.policy().endpoint_of(path).unwrap();
                assert_eq!(
                    limiter.enforces(&Account::user("u").in_organization(&id), endpoint),
                    within
                );
            }
        }
    }
}

#[tokio::test]
async fn the_lesser_of_the_limiters_and_the_policys_enforcement_counts() {
    // Limits are enforced on that caller from a share of 53 % on.
    let caller = Account::user("u").in_organization("acme");
    for (limiters, policys, endpoints, enforced) in [
        (100, 100, 100, true),
        (53, 53, 53, true),
        (52, 100, 100, false),
        (100, 52, 100, false),
        (100, 100, 52, false),
    ] {
        let policy = || {
            tight()
                .enforcement(percent(policys))
                .enforce("call", percent(endpoints))
                .build()
                .unwrap()
        };
        let (limiter, _clock) = stopped_limiter(policy());
        limiter.set_enforcement(percent(limiters));
        assert_eq!(limiter.enforces(&caller, Endpoint::CALL), enforced);
        assert_eq!(policy().enforcement_of(Endpoint::CALL), Some(percent(policys.min(endpoints))));
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        for status in [200, 200, if enforced { 429 } else { 200 }] {
            assert_eq!(send(&layer, call_by("u", "acme")).await.status(), status);
        }
        // The same for an account with that policy.
        let (limiter, _clock) = stopped_limiter(Policy::default());
        limiter.set_enforcement(percent(limiters));
        let planned = caller.clone().with_policy(policy());
        assert_eq!(limiter.enforces(&planned, Endpoint::CALL), enforced);
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        for status in [200, 200, if enforced { 429 } else { 200 }] {
            let mut request = Request::post("/call").body(String::new()).unwrap();
            request.extensions_mut().insert(planned.clone());
            assert_eq!(send(&layer, request).await.status(), status);
        }
    }
}

#[test]
fn what_is_enforced_can_be_asked() {
    let (limiter, _clock) =
        stopped_limiter(tight().enforce("call", Enforcement::SHADOW).build().unwrap());
    let caller = Account::user("u");
    assert!(limiter.enforces(&caller, Endpoint::DEFAULT));
    assert!(!limiter.enforces(&caller, Endpoint::CALL));
    assert!(!limiter.enforces(&caller, Endpoint::new("unheard-of").unwrap()));
    assert!(!limiter.enforces(&Account::user(""), Endpoint::DEFAULT), "no limit is about it");
    limiter.set_enforcement(percent(99));
    assert_eq!(limiter.enforcement(), percent(99));
}

#[tokio::test]
async fn enforcement_is_switched_for_the_services_that_run() {
    let (limiter, _clock) =
        stopped_limiter(Policy::bolna().quota("call", Quota::per_hour(1)).build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let mut statuses = Vec::new();
    for enforcement in [100, 0, 100, 52, 53, 0].map(percent) {
        limiter.set_enforcement(enforcement);
        for request in [call_by("u", "acme"), stranger("/")] {
            statuses.push(send(&layer, request).await.status().as_u16());
        }
    }
    assert_eq!(statuses, [200, 401, 200, 401, 429, 401, 200, 401, 429, 401, 200, 401]);
}

/// Enforcement is about limits: what happens to a request without an account is `on_unidentified`
/// alone.
#[tokio::test]
async fn no_enforcement_lets_a_request_without_an_account_in_or_keeps_it_out() {
    for number in [0, 1, 50, 99, 100] {
        let share = percent(number);
        let on_all = || Policy::bolna().exempt(["/healthz"]);
        for (limiters, layers, policy) in [
            (share, Enforcement::FULL, on_all()),
            (Enforcement::FULL, share, on_all()),
            (Enforcement::FULL, Enforcement::FULL, on_all().enforcement(share)),
            (Enforcement::FULL, Enforcement::FULL, on_all().enforce("call", share)),
        ] {
            let (limiter, _clock) = stopped_limiter(policy.build().unwrap());
            limiter.set_enforcement(limiters);
            let witness = Witness::of(&limiter);
            let layer = BolnaRateLimitLayer::with_limiter(limiter).enforcement(layers);
            let response = send(&layer, stranger("/call")).await;
            assert_eq!(response.status(), 401, "{share}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"api\"");
            assert_eq!(response.headers().get("ratelimit"), None);
            let told = witness.one();
            assert_eq!((told.outcome, told.admitted), ("unidentified", false));
            assert_eq!(send(&layer, stranger("/healthz")).await.status(), 200, "it is exempt");
            let layer = layer.on_unidentified(OnUnidentified::Admit);
            assert_eq!(send(&layer, stranger("/call")).await.status(), 200, "{share}");
        }
    }
}

#[tokio::test]
async fn a_layers_enforcement_is_that_layers_only() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let witness = Witness::of(&limiter);
    let enforcing = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let shadow =
        BolnaRateLimitLayer::with_limiter(limiter.clone()).enforcement(Enforcement::SHADOW);
    assert_eq!(limiter.enforcement(), Enforcement::FULL);
    // Both count in one bucket, of one unit.
    for (layer, status, enforced) in [
        (&shadow, 200, false),
        (&shadow, 200, false),
        (&enforcing, 429, true),
        (&shadow, 200, false),
        (&enforcing, 429, true),
    ] {
        assert_eq!(send(layer, call_by("u", "o")).await.status(), status);
        assert_eq!(witness.one().enforced, enforced);
    }
    // What is set on the limiter holds for both.
    limiter.set_enforcement(Enforcement::SHADOW);
    assert_eq!(send(&enforcing, call_by("u", "o")).await.status(), 200);
    // A layer that was made from another one, and changed, does not change the other one.
    limiter.set_enforcement(Enforcement::FULL);
    let _changed = enforcing.clone().enforcement(Enforcement::SHADOW).fields_in_shadow();
    assert_eq!(send(&enforcing, call_by("u", "o")).await.status(), 429);
}

#[tokio::test]
async fn the_least_of_all_enforcements_counts() {
    // `acme` has the place 52 of a hundred.
    for (limiters, layers, policys, status) in [
        (100, 100, 100, 429),
        (53, 53, 53, 429),
        (52, 100, 100, 200),
        (100, 52, 100, 200),
        (100, 100, 52, 200),
    ] {
        let policy = Policy::bolna().quota("call", Quota::per_hour(1));
        let policy = policy.enforcement(percent(policys)).build().unwrap();
        let (limiter, _clock) = stopped_limiter(policy);
        limiter.set_enforcement(percent(limiters));
        let layer = BolnaRateLimitLayer::with_limiter(limiter).enforcement(percent(layers));
        assert_eq!(send(&layer, call_by("u", "acme")).await.status(), 200);
        assert_eq!(send(&layer, call_by("u", "acme")).await.status(), status);
    }
}
