//! A candidate with limits of requests in flight.

use std::sync::Arc;

use bolna_rate_limit::limiter::CandidateReport;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Limiter, Policy, Quota};

use super::{admit, call, calls_at_once, left, member};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, quiet, send, stopped_limiter};

/// Of calls: allowed by both, newly limited, newly allowed, limited by both.
fn counts<St: Store>(limiter: &Limiter<St>) -> [u64; 4] {
    let report: Vec<CandidateReport> = limiter.candidate_report();
    let call = report.iter().find(|it| it.endpoint == Endpoint::CALL).unwrap();
    [call.allowed, call.newly_limited, call.newly_allowed, call.limited]
}

#[test]
fn a_candidate_counts_the_requests_that_it_would_have_in_flight() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.set_candidate(calls_at_once(1)).unwrap();
    let caller = member("u", "o");
    let first = call(&limiter, &caller);
    let second = call(&limiter, &caller);
    assert_eq!((counts(&limiter), limiter.report().in_flight), ([1, 1, 0, 0], 1));
    drop(second);
    drop(first);
    assert_eq!(limiter.report().in_flight, 0);
    let third = call(&limiter, &caller);
    assert_eq!(counts(&limiter), [2, 1, 0, 0]);
    // Its places end with their requests even if it does not last as long.
    limiter.set_candidate(None).unwrap();
    drop(third);
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn a_request_that_is_refused_has_no_place_of_the_candidate_either() {
    let (limiter, _clock) = stopped_limiter(calls_at_once(1));
    limiter.set_candidate(calls_at_once(2)).unwrap();
    let caller = member("u", "o");
    let _first = call(&limiter, &caller);
    for _ in 0..5 {
        assert!(!admit(&limiter, &caller, "/call").0.is_admitted());
    }
    assert_eq!(counts(&limiter), [1, 0, 5, 0]);
    assert_eq!(limiter.report().in_flight, 1 + 1);
    assert_eq!(left(&limiter, &caller, "call-concurrent"), 0);
}

#[test]
fn a_rate_of_the_candidate_that_refuses_frees_its_places() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let candidate =
        Policy::bolna().quota("call", Quota::per_day(1)).concurrent("call", 5).build().unwrap();
    limiter.set_candidate(candidate).unwrap();
    let caller = member("u", "o");
    let _kept = (call(&limiter, &caller), call(&limiter, &caller));
    assert_eq!((counts(&limiter), limiter.report().in_flight), ([1, 1, 0, 0], 1));
}

#[test]
fn a_refund_and_a_settlement_are_the_candidates_too() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let candidate = Policy::bolna().quota("call", Quota::per_day(3)).build().unwrap();
    limiter.set_candidate(candidate).unwrap();
    let caller = member("u", "o");
    for _ in 0..10 {
        call(&limiter, &caller).refund();
    }
    assert_eq!(counts(&limiter), [10, 0, 0, 0]);
    call(&limiter, &caller).settle(Endpoint::CALL, 3);
    call(&limiter, &caller).settle(Endpoint::CALL, 0);
    assert_eq!(counts(&limiter), [11, 1, 0, 0]);
}

/// As the active policy, it would refuse such a request, so there is nothing to compare.
#[test]
fn a_path_of_more_limits_than_a_charge_has_holds_no_place_of_a_candidate() {
    let policy = |slots: u32| {
        (0..6).fold(Policy::builder(), |policy, index| {
            let name = format!("e{index}");
            let paths = [format!("/e{index}"), format!("/x/e{index}")];
            let policy = policy.endpoint(name.clone(), Quota::per_minute(9), paths);
            (0..slots).fold(policy, |policy, slot| {
                let slot = format!("{name}-slots-{slot}");
                policy.also(name.clone(), LimitBuilder::account(slot, Quota::concurrent(5)))
            })
        })
    };
    let path = "/e0/..%5ce1/..%252fe2/..%2fe3/..;/e4/../e5";
    let (active, candidate) = (policy(0).build().unwrap(), policy(3).build().unwrap());
    let caller = member("u", "o");
    let (limiter, _clock) = stopped_limiter(candidate.clone());
    assert_eq!(admit(&limiter, &caller, path).0.outcome(), Outcome::TooAmbiguous);
    let (limiter, _clock) = stopped_limiter(active);
    limiter.set_candidate(candidate).unwrap();
    let (ruling, _admission) = admit(&limiter, &caller, path);
    assert!(ruling.is_admitted() && ruling.candidate().is_none(), "{ruling:?}");
    assert_eq!(limiter.report().in_flight, 0);
}

#[tokio::test]
async fn the_layer_ends_a_candidates_places_with_the_response() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.set_candidate(calls_at_once(1)).unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let first = send(&layer, call_by("u", "o")).await;
    let second = send(&layer, call_by("u", "o")).await;
    assert_eq!((counts(&limiter), limiter.report().in_flight), ([1, 1, 0, 0], 1));
    drop((first, second));
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn a_request_dropped_while_the_store_decides_frees_the_places_of_both() {
    let store = DeferredStore::before(Arc::new(MemoryStore::with_clock(ManualClock::new())));
    let limiter = quiet(Limiter::with_store(calls_at_once(2), store).unwrap());
    limiter.set_candidate(calls_at_once(2)).unwrap();
    let caller = member("u", "o");
    for answers in [false, true] {
        let waiting = limiter.admit(&caller, "/call").unwrap().wait();
        let mut waiting = tokio_test::task::spawn(waiting);
        assert!(waiting.poll().is_pending());
        assert_eq!(limiter.report().in_flight, 2);
        if answers {
            limiter.store().now_answers(Answers::Decision);
            let admitted = tokio_test::assert_ready!(waiting.poll()).unwrap();
            assert_eq!(limiter.report().in_flight, 2);
            drop(admitted);
        }
        drop(waiting);
        assert_eq!(limiter.report().in_flight, 0);
    }
}
