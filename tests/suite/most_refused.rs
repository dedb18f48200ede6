//! The principals that are refused most.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::observe::MostRefused;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::{BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
use http::Request;
use proptest::prelude::*;

use crate::support::{DecideNow, call_by, now, one_call, organization, send, stopped_limiter};

/// A limiter with `callers` drained callers, and a count of refusals with room for `places`
/// principals.
fn drained(callers: u32, places: usize) -> (Limiter<MemoryStore<ManualClock>>, Arc<MostRefused>) {
    let (limiter, _clock) = stopped_limiter(one_call());
    let refused = Arc::new(MostRefused::new(places));
    limiter.observe(Arc::clone(&refused));
    for caller in 0..callers {
        assert!(
            limiter.decide_now(&organization(&caller.to_string()), "/call").unwrap().is_allowed()
        );
    }
    (limiter, refused)
}

fn refuse(limiter: &Limiter<MemoryStore<ManualClock>>, caller: u32) {
    assert!(!limiter.decide_now(&organization(&caller.to_string()), "/call").unwrap().is_allowed());
}

proptest! {
    #[test]
    fn counts_are_off_by_no_more_than_they_say_and_nobody_who_matters_is_missing(
        // Some callers are refused far more often than others.
        sent in prop::collection::vec((0..30_u32, 0..30_u32).prop_map(|(a, b)| a * b / 30), 0..400),
        places in 0..12_usize,
    ) {
        let (limiter, refused) = drained(30, places);
        prop_assert_eq!(refused.top(99), []);
        let mut exact = HashMap::new();
        for caller in &sent {
            refuse(&limiter, *caller);
            *exact.entry(organization(&caller.to_string())).or_insert(0_u64) += 1;
        }
        let top = refused.top(99);
        let places = places.max(1);
        prop_assert!(top.len() <= places);
        prop_assert!(top.is_sorted_by(|one, next| one.refusals >= next.refusals));
        prop_assert_eq!(top.iter().map(|one| one.refusals).sum::<u64>(), sent.len() as u64);
        for one in &top {
            prop_assert!((one.at_least..=one.refusals).contains(&exact[&one.principal]), "{one:?}");
        }
        for (principal, count) in &exact {
            let is_there = top.iter().any(|one| one.principal == *principal);
            prop_assert!(is_there || count * places as u64 <= sent.len() as u64, "{principal:?}: {count}");
        }
        if exact.len() <= places {
            prop_assert!(top.iter().all(|one| one.at_least == one.refusals));
            prop_assert_eq!(top.len(), exact.len());
        }
        prop_assert_eq!(refused.top(2), &top[..top.len().min(2)]);
        refused.clear();
        prop_assert_eq!(refused.top(99), []);
    }
}

#[test]
fn threads_count_together() {
    for (places, callers) in [(50, 50_u32), (10, 50)] {
        let (limiter, refused) = drained(callers, places);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..100).for_each(|_| (0..callers).for_each(|caller| refuse(&limiter, caller)));
                });
            }
        });
        let top = refused.top(99);
        assert_eq!(top.iter().map(|one| one.refusals).sum::<u64>(), 4 * 100 * u64::from(callers));
        assert_eq!(top.len(), places);
        if places == callers as usize {
            assert!(top.iter().all(|one| (one.refusals, one.at_least) == (400, 400)));
        }
    }
}

#[test]
fn refusals_count_in_shadow_mode_too_and_nothing_else_does() {
    let (limiter, refused) = drained(2, 10);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).enforcement(Enforcement::SHADOW);
    for _ in 0..3 {
        assert_eq!(now(send(&layer, call_by("u", "1"))).status(), 200);
        assert_eq!(
            now(send(&layer, Request::post("/call").body(String::new()).unwrap())).status(),
            401
        );
    }
    let top = refused.top(9);
    assert_eq!((top.len(), &top[0].principal, top[0].refusals), (1, &organization("1"), 3));
}

#[test]
fn those_whom_only_a_candidate_would_refuse_are_counted_apart() {
    let (limiter, _clock) =
        stopped_limiter(Policy::bolna().quota("call", Quota::per_hour(3)).build().unwrap());
    let (by_policy, by_candidate) =
        (Arc::new(MostRefused::new(9)), Arc::new(MostRefused::new(9).by_candidate()));
    limiter.observe(Arc::clone(&by_policy));
    limiter.observe(Arc::clone(&by_candidate));
    limiter.set_candidate(one_call()).unwrap();
    for _ in 0..10 {
        limiter.decide_now(&organization("o"), "/call").unwrap();
    }
    let count =
        |refused: &MostRefused| refused.top(9).iter().map(|one| one.refusals).collect::<Vec<_>>();
    assert_eq!((count(&by_policy), count(&by_candidate)), (vec![7], vec![2]));
}

#[test]
fn no_id_gets_into_a_log() {
    let (limiter, refused) = drained(1, 3);
    limiter.set_candidate(one_call()).unwrap();
    refuse(&limiter, 0);
    assert_eq!(format!("{refused:?}"), "MostRefused { places: 3, .. }");
}
