//! Live changes: limits that are changed while requests are in flight.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint, Enforcement, Policy, Quota};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service};

use crate::deferred::{Answers, DeferredStore};
use crate::observers::Witness;
use crate::support::{
    DecideNow, call_by, now, ok, one_call, organization, peeked, percent, stopped_limiter,
};

const NANOSECOND: Duration = Duration::from_nanos(1);

fn calls(quota: QuotaBuilder) -> Policy {
    Policy::bolna().quota("call", quota).build().unwrap()
}

#[test]
fn a_half_spent_bucket_stays_half_spent_in_time() {
    for (quota, remaining, spent) in [
        (Quota::per_minute(500), 250, 30_000),
        (Quota::per_minute(2000), 1000, 30_000),
        (Quota::per_minute(1), 0, 30_000),
        (Quota::per_minute(500).burst(300), 50, 30_000),
        // The bucket is drained at most.
        (Quota::per_minute(500).burst(10), 0, 1_200),
    ] {
        let (limiter, clock) = stopped_limiter(Policy::default());
        let caller = organization("o");
        let peek = || now(peeked(&limiter, &caller, Endpoint::CALL));
        assert!((0..250).all(|_| limiter.decide_now(&caller, "/call").unwrap().is_allowed()));
        limiter.set_policy(calls(quota)).unwrap();
        assert_eq!(
            (peek().remaining(), peek().reset()),
            (remaining, Duration::from_millis(spent)),
            "{quota:?}"
        );
        if peek().retry_after().is_none() {
            let charged = limiter.decide_now(&caller, "/call").unwrap();
            assert_eq!(
                charged.reset(),
                Duration::from_millis(spent) + charged.quota().emission_interval()
            );
            clock.advance(charged.quota().emission_interval());
        } else {
            // A request that is refused is not charged.
            assert!(!limiter.decide_now(&caller, "/call").unwrap().is_allowed());
        }
        clock.advance(Duration::from_millis(spent) - NANOSECOND);
        assert_eq!(peek().reset(), NANOSECOND, "{quota:?}");
        clock.advance(NANOSECOND);
        assert_eq!(
            (peek().reset(), peek().remaining()),
            (Duration::ZERO, peek().quota().burst()),
            "{quota:?}"
        );
    }
}

#[test]
fn changing_back_and_forth_fills_no_bucket() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let caller = organization("o");
    let reset = || now(peeked(&limiter, &caller, Endpoint::CALL)).reset();
    assert!((0..250).all(|_| limiter.decide_now(&caller, "/call").unwrap().is_allowed()));
    let policies = [
        calls(Quota::per_minute(1000)),
        calls(Quota::per_minute(500)),
        calls(Quota::per_hour(50_000)),
    ];
    for round in 0..3000_u64 {
        limiter.set_policy(policies[usize::try_from(round % 3).unwrap()].clone()).unwrap();
        limiter.set_enforcement(percent(u8::try_from(round % 101).unwrap()));
        clock.advance(NANOSECOND);
        assert_eq!(
            reset(),
            Duration::from_secs(30) - NANOSECOND * u32::try_from(round + 1).unwrap()
        );
    }
}

#[test]
fn a_change_under_traffic_loses_and_invents_nothing() {
    const THREADS: usize = 4;
    let slow = Policy::bolna().endpoint("x", Quota::per_hour(7), ["/x"]).build().unwrap();
    let fast = Policy::bolna()
        .quota("call", Quota::per_minute(1000))
        .default_quota(Quota::per_hour(11))
        .build()
        .unwrap();
    for _ in 0..10 {
        let (limiter, _clock) = stopped_limiter(slow.clone());
        let (start, changing) = (Barrier::new(THREADS + 1), AtomicBool::new(true));
        let decisions: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let caller = organization("o");
                        let mut decisions = Vec::new();
                        start.wait();
                        while changing.load(Ordering::Relaxed) || decisions.len() < 4000 {
                            decisions.extend(
                                ["/call", "/x"]
                                    .map(|path| limiter.decide_now(&caller, path).unwrap()),
                            );
                        }
                        decisions
                    })
                })
                .collect();
            start.wait();
            for round in 0..501 {
                limiter
                    .set_policy(if round % 2 == 0 { fast.clone() } else { slow.clone() })
                    .unwrap();
            }
            changing.store(false, Ordering::Relaxed);
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let judged_by: HashSet<_> =
            decisions.iter().map(|by| (by.name().name(), by.quota().limit())).collect();
        let either = [("call", 500), ("x", 7), ("call", 1000), ("default", 11)];
        assert!(judged_by.iter().all(|by| either.contains(by)), "{judged_by:?}");
        // A unit is 120 ms by one policy and 60 ms by the other. A full bucket is a minute by both.
        // The faster policy was the last one.
        let admitted = |limit| {
            let by = decisions
                .iter()
                .filter(|by| by.name() == Endpoint::CALL && by.quota().limit() == limit);
            u64::try_from(by.filter(|by| by.is_allowed()).count()).unwrap()
        };
        assert_eq!(admitted(500) * 120 + admitted(1000) * 60, 60_000);
        assert!((500..=1000).contains(&(admitted(500) + admitted(1000))));
    }
}

#[test]
fn a_request_that_waits_is_judged_by_the_policy_it_was_asked_under() {
    for watched in [false, true] {
        let limiter = DeferredStore::limiter(one_call());
        let witness = watched.then(|| Witness::of(&limiter));
        let mut service =
            BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
        let mut first = spawn(service.call(call_by("u", "o")));
        let mut second = spawn(service.call(call_by("u", "o")));
        assert_pending!(first.poll());
        assert_pending!(second.poll());
        // A policy or an enforcement that becomes active meanwhile can't admit it either.
        limiter.set_policy(Policy::builder().exempt(["/call"]).build().unwrap()).unwrap();
        limiter.set_enforcement(Enforcement::SHADOW);
        limiter.store().now_answers(Answers::Decision);
        let (first, second) =
            (assert_ready!(first.poll()).unwrap(), assert_ready!(second.poll()).unwrap());
        assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 429));
        for response in [first, second] {
            assert_eq!(response.headers()["ratelimit-policy"], "\"call\";q=1;w=10");
        }
        if let Some(witness) = witness {
            let told = witness.told().into_iter().map(|told| (told.outcome, told.admitted));
            assert_eq!(told.collect::<Vec<_>>(), [("allowed", true), ("limited", false)]);
        }
        // The next request is decided by the new settings.
        let next = now(service.call(call_by("u", "o"))).unwrap();
        assert_eq!((next.status().as_u16(), next.headers().len()), (200, 0));
    }
}

#[test]
fn whoever_was_refused_is_admitted_at_once_by_larger_limits() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.set_candidate(one_call()).unwrap();
    let caller = organization("o");
    let allowed = || limiter.decide_now(&caller, "/call").unwrap().is_allowed();
    assert_eq!((0..600).filter(|_| allowed()).count(), 500);
    for round in 2..5 {
        limiter.set_policy(calls(Quota::per_minute(500).burst(500 * round))).unwrap();
        assert_eq!((0..600).filter(|_| allowed()).count(), 500, "round {round}");
    }
    limiter.set_policy(Policy::default()).unwrap();
    assert!(!allowed());
}
