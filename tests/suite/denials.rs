//! Denial caches: the store would have refused what the cache refuses.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bolna_rate_limit::store::{Answer, Breaker, DenialCache, LocalFallback, MemoryStore, Store};
use bolna_rate_limit::values::Id;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    BolnaRateLimitLayer, Decision, Endpoint, Limiter, Policy, Principal, Quota,
};
use http::StatusCode;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, ServiceExt};

use crate::bucket::{Bucket, OneBucket, one};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, now, ok, organization};

const INTERVAL: Duration = Duration::from_millis(120);
const NANOSECOND: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

type Cache = DenialCache<Arc<DeferredStore>, ManualClock>;

fn quota(burst: u32) -> Quota {
    Quota::per_minute(500).burst(burst).build().unwrap()
}

fn cache() -> (Cache, ManualClock) {
    let clock = ManualClock::default();
    (DenialCache::with_clock(DeferredStore::that(Answers::Decision, &clock), clock.clone()), clock)
}

/// The caches of two replicas, in front of one store.
fn two_caches() -> ([Cache; 2], ManualClock) {
    let clock = ManualClock::default();
    let decides = Arc::new(MemoryStore::with_clock(clock.clone()));
    let cache = || {
        let store = DeferredStore::before(Arc::clone(&decides));
        store.now_answers(Answers::Decision);
        DenialCache::with_clock(Arc::new(store), clock.clone())
    };
    ([cache(), cache()], clock)
}

fn decide<St: Store>(store: &St, principal: &Principal, quota: Quota) -> Decision {
    now(store.check_one(Bucket::new(principal, Endpoint::CALL, quota))).unwrap()
}

fn drain<St: Store>(store: &St, principal: &Principal, quota: Quota) -> u32 {
    let mut admitted = 0;
    while decide(store, principal, quota).is_allowed() {
        admitted += 1;
    }
    admitted
}

fn reset<St: Store>(store: &St, principal: &Principal) {
    runtime().block_on(store.reset(principal, Endpoint::CALL)).unwrap();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

#[test]
fn a_bucket_under_attack_costs_the_store_one_call_for_each_unit() {
    let (cache, clock) = cache();
    let caller = organization("o");
    assert_eq!(drain(&cache, &caller, quota(10)), 10);
    assert_eq!(
        cache.store().asked(),
        10,
        "the admission of the last unit says that there is no other"
    );
    for _ in 0..100 {
        for nanos in [0, 1, 119_999_998] {
            clock.advance(Duration::from_nanos(nanos));
            assert!((0..100).all(|_| !decide(&cache, &caller, quota(10)).is_allowed()));
        }
        assert_eq!(decide(&cache, &caller, quota(10)).retry_after(), Some(NANOSECOND));
        assert_eq!(cache.store().asked(), 0);
        clock.advance(NANOSECOND);
        assert_eq!(drain(&cache, &caller, quota(10)), 1);
        assert_eq!(cache.store().asked(), 1);
    }
}

#[test]
fn a_unit_is_not_held_back_by_the_time_that_an_answer_takes() {
    let (cache, clock) = cache();
    let caller = organization("o");
    cache.store().now_answers(Answers::NotYet);
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(1));
    let Answer::Later(check) = cache.check(bucket.charge()) else {
        panic!("the store answers later")
    };
    let mut check = spawn(check);
    assert_pending!(check.poll());
    clock.advance(Duration::from_millis(100));
    cache.store().now_answers(Answers::Decision);
    assert!(one(assert_ready!(check.poll())).unwrap().is_allowed());
    assert_eq!(decide(&cache, &caller, quota(1)).retry_after(), Some(Duration::from_millis(20)));
    clock.advance(Duration::from_millis(20));
    assert!(decide(&cache, &caller, quota(1)).is_allowed());
}

#[test]
fn answers_may_come_in_any_order() {
    let (cache, clock) = cache();
    let caller = organization("o");
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(2));
    cache.store().now_answers(Answers::NotYet);
    let ask = || match cache.check(bucket.charge()) {
        Answer::Later(check) => spawn(check),
        Answer::Now(_) => panic!("the store answers later"),
    };
    let mut first = ask();
    clock.advance(NANOSECOND);
    let mut second = ask();
    cache.store().now_answers(Answers::Decision);
    assert_eq!(one(assert_ready!(second.poll())).unwrap().remaining(), 0);
    assert_eq!(one(assert_ready!(first.poll())).unwrap().remaining(), 1);
    assert!(!decide(&cache, &caller, quota(2)).is_allowed());
    assert_eq!(cache.store().asked(), 2);
}

#[test]
fn a_reset_is_seen_here_at_once_and_elsewhere_within_a_second() {
    let slow = Quota::per_minute(30).build().unwrap();
    let ([here, there], clock) = two_caches();
    let caller = organization("o");
    assert_eq!(drain(&here, &caller, slow), 30);
    assert!(!decide(&there, &caller, slow).is_allowed());
    reset(&here, &caller);
    assert!(decide(&here, &caller, slow).is_allowed());
    assert!(!decide(&there, &caller, slow).is_allowed());
    clock.advance(SECOND);
    assert!(!decide(&there, &caller, slow).is_allowed());
    clock.advance(NANOSECOND);
    assert!(decide(&there, &caller, slow).is_allowed());
}

#[test]
fn a_reset_is_seen_elsewhere_within_the_time_for_one_unit() {
    let ([here, there], clock) = two_caches();
    let caller = organization("o");
    assert_eq!(drain(&here, &caller, quota(500)), 500);
    assert!(!decide(&there, &caller, quota(500)).is_allowed());
    reset(&here, &caller);
    clock.advance(INTERVAL);
    assert_eq!(drain(&there, &caller, quota(500)), 500);
}

#[test]
fn a_reset_is_seen_by_a_thread_that_has_refused() {
    let (cache, _clock) = cache();
    let callers: Vec<_> =
        (0..100).map(|number| organization(&format!("caller-{number}"))).collect();
    for caller in &callers {
        assert_eq!(drain(&cache, caller, quota(500)), 500);
    }
    for caller in &callers {
        assert_eq!(drain(&cache, caller, quota(500)), 0);
        thread::scope(|scope| drop(scope.spawn(|| reset(&cache, caller))));
        assert_eq!(drain(&cache, caller, quota(500)), 500);
    }
}

#[test]
fn an_answer_of_before_a_reset_is_not_remembered_after_it() {
    let (cache, _clock) = cache();
    let caller = organization("o");
    assert_eq!(drain(&cache, &caller, quota(1)), 1);
    reset(&cache, &caller);
    cache.store().now_answers(Answers::NotYet);
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(1));
    let Answer::Later(check) = cache.check(bucket.charge()) else { panic!("the bucket was reset") };
    let mut check = spawn(check);
    assert_pending!(check.poll());
    cache.store().now_answers(Answers::Decision);
    reset(&cache, &caller);
    assert!(one(assert_ready!(check.poll())).unwrap().is_allowed());
    assert!(cache.is_empty());
    assert!(decide(&cache, &caller, quota(1)).is_allowed());
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_reset_that_fails_may_have_been_done() {
    let (cache, _clock) = cache();
    let caller = organization("o");
    assert_eq!(drain(&cache, &caller, quota(1)), 1);
    cache.store().now_answers(Answers::Failure);
    runtime().block_on(cache.reset(&caller, Endpoint::CALL)).unwrap_err();
    assert!(cache.is_empty());
}

#[test]
fn a_look_is_at_the_store() {
    let ([here, there], _clock) = two_caches();
    let caller = organization("o");
    assert_eq!(drain(&here, &caller, quota(1)), 1);
    reset(&there, &caller);
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(1));
    assert!(runtime().block_on(here.peek(bucket)).unwrap().is_allowed());
    assert!(!decide(&here, &caller, quota(1)).is_allowed());
}

#[test]
fn answers_at_once_and_failures_are_not_remembered() {
    let (cache, _clock) = cache();
    let caller = organization("o");
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(1));
    cache.store().now_answers(Answers::DecisionAtOnce);
    assert_eq!(drain(&cache, &caller, quota(1)), 1);
    assert!(cache.is_empty());
    cache.store().now_answers(Answers::FailureAtOnce);
    assert!(cache.check(bucket.charge()).now().unwrap().is_err());
    cache.store().now_answers(Answers::Failure);
    let Answer::Later(check) = cache.check(bucket.charge()) else {
        panic!("the store answers later")
    };
    assert!(assert_ready!(spawn(check).poll()).is_err());
    assert!(cache.is_empty());
}

#[test]
fn decisions_by_another_quota_are_not_remembered() {
    let clock = ManualClock::default();
    let store = DeferredStore::that(Answers::Failure, &clock);
    let fallback = LocalFallback::with_local(store, MemoryStore::with_clock(clock.clone()))
        .expected_replicas(3);
    let cache = DenialCache::with_clock(fallback, clock);
    assert_eq!(drain(&cache, &organization("o"), quota(9)), 3);
    assert!(cache.is_empty());
}

#[test]
fn a_bucket_that_is_measured_by_another_quota_is_asked_for() {
    let (cache, _clock) = cache();
    let caller = organization("o");
    assert_eq!(drain(&cache, &caller, quota(5)), 5);
    assert_eq!(drain(&cache, &caller, quota(8)), 3);
    cache.store().asked();
    // Eight units were spent. By a burst of five, the bucket is drained and owes no more than that.
    assert_eq!(decide(&cache, &caller, quota(5)).reset(), INTERVAL * 5);
    assert_eq!(cache.store().asked(), 1);
}

#[test]
fn a_refusal_of_one_caller_is_none_of_another() {
    let (cache, _clock) = cache();
    for id in ["o", &"x".repeat(Id::INLINE), &"x".repeat(Id::INLINE + 1), &"x".repeat(1000)] {
        for principal in [organization(id), Principal::user(id).unwrap()] {
            assert_eq!(drain(&cache, &principal, quota(3)), 3);
            cache.store().asked();
            assert_eq!(drain(&cache, &principal, quota(3)), 0);
            assert_eq!(cache.store().asked(), 0);
            let bucket = Bucket::new(&principal, Endpoint::AGENT, quota(3));
            assert!(cache.check(bucket.charge()).now().is_none());
        }
    }
    let (other, _clock) = self::cache();
    assert_eq!(drain(&other, &organization("o"), quota(3)), 3);
}

#[test]
fn a_clock_that_goes_back_refuses_nobody() {
    let (cache, clock) = cache();
    clock.set(Duration::from_secs(3600));
    assert_eq!(drain(&cache, &organization("o"), quota(3)), 3);
    clock.set(Duration::from_secs(1800));
    cache.store().asked();
    let _ = decide(&cache, &organization("o"), quota(3));
    assert_eq!(cache.store().asked(), 1);
    clock.advance(Duration::MAX);
    assert_eq!(drain(&cache, &organization("o"), quota(3)), 3);
}

#[test]
fn what_is_remembered_is_bounded_and_dropped() {
    let (cache, clock) = cache();
    for caller in 0..100_000 {
        assert!(decide(&cache, &organization(&caller.to_string()), quota(1)).is_allowed());
    }
    assert!((50_000..=57_344).contains(&cache.len()), "{} buckets are remembered", cache.len());
    // The store decides for the callers for which the cache had no room.
    assert!(
        (0..100_000).all(
            |caller| !decide(&cache, &organization(&caller.to_string()), quota(1)).is_allowed()
        )
    );
    // Refusals that are out of date make room for others at once,
    clock.advance(INTERVAL + NANOSECOND);
    for caller in 100_000..110_000 {
        assert!(decide(&cache, &organization(&caller.to_string()), quota(1)).is_allowed());
    }
    cache.store().asked();
    assert!(
        (100_000..110_000).all(|caller| !decide(
            &cache,
            &organization(&caller.to_string()),
            quota(1)
        )
        .is_allowed())
    );
    assert_eq!(cache.store().asked(), 0);
    // and are dropped within a second or two in any case.
    for _ in 0..200 {
        clock.advance(Duration::from_millis(10));
        let _ = decide(&cache, &organization("o"), quota(500));
    }
    assert!(cache.is_empty());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The replica that checks, and the caller.
    Check(usize, usize),
    Pause(u64),
    Quota(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![
        3 => 0..=1_000_000_000_u64,
        2 => Just(120_000_000),
        2 => Just(119_999_999),
        1 => 1..=3_u64,
        1 => 0..=60_000_000_000_u64,
    ];
    let step = prop_oneof![
        12 => (0..2_usize, 0..2_usize).prop_map(|(replica, caller)| Step::Check(replica, caller)),
        4 => pause.prop_map(Step::Pause),
        1 => (0..6_usize).prop_map(Step::Quota),
    ];
    prop::collection::vec(step, 1..300)
}

fn quotas() -> [Quota; 6] {
    [
        quota(1),
        quota(2),
        quota(5),
        Quota::per_hour(10).build().unwrap(),
        Quota::per_second(7).burst(3).build().unwrap(),
        Quota::per(1, Duration::from_secs(3)).burst(2).build().unwrap(),
    ]
}

/// The decision of the cache, and the decision of the store if it were called each time.
fn both(
    cache: &Cache,
    bare: &MemoryStore<ManualClock>,
    caller: &Principal,
    quota: Quota,
) -> (Decision, Decision) {
    (decide(cache, caller, quota), decide(bare, caller, quota))
}

proptest! {
    #[test]
    fn one_cache_decides_as_the_store_does(steps in steps()) {
        let ([cache, _], clock) = two_caches();
        let bare = MemoryStore::with_clock(clock.clone());
        let callers = ["o", "p"].map(organization);
        let mut quota = quotas()[0];
        for step in steps {
            match step {
                Step::Check(plan, caller) => {
                    // Two plans share a bucket.
                    let quota = if plan == 0 { quota } else { quotas()[1] };
                    let (cached, asked) = both(&cache, &bare, &callers[caller], quota);
                    prop_assert_eq!(cached, asked);
                }
                Step::Pause(nanos) => clock.advance(Duration::from_nanos(nanos)),
                Step::Quota(index) => quota = quotas()[index],
            }
        }
    }

    #[test]
    fn two_caches_decide_as_the_store_does(steps in steps()) {
        let (caches, clock) = two_caches();
        let bare = MemoryStore::with_clock(clock.clone());
        let callers = ["o", "p"].map(organization);
        let mut quota = quotas()[2];
        for step in steps {
            match step {
                Step::Check(replica, caller) => {
                    let (cached, asked) = both(&caches[replica], &bare, &callers[caller], quota);
                    prop_assert_eq!(cached, asked);
                }
                Step::Pause(nanos) => clock.advance(Duration::from_nanos(nanos)),
                Step::Quota(index) => {
                    // The quota becomes active for both replicas. Both use it before it changes
                    // again.
                    quota = quotas()[index];
                    for (cache, caller) in caches.iter().flat_map(|cache| callers.each_ref().map(|caller| (cache, caller))) {
                        let (cached, asked) = both(cache, &bare, caller, quota);
                        prop_assert_eq!(cached, asked);
                    }
                }
            }
        }
    }
}

#[test]
fn threads_admit_together_what_the_store_has() {
    let ([one, other], _clock) = two_caches();
    let caller = organization("hot");
    let admitted = thread::scope(|scope| {
        let threads = [&one, &one, &other, &other].map(|cache| {
            let caller = &caller;
            scope.spawn(move || {
                (0..10_000).filter(|_| decide(cache, caller, quota(500)).is_allowed()).count()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into_iter().sum::<usize>()
    });
    assert_eq!(admitted, 500);
    let asked = one.store().asked() + other.store().asked();
    assert!(asked < 600, "{asked} were asked for");
}

#[tokio::test]
async fn behind_the_layer_a_store_that_fails_is_seen_by_nobody() {
    let clock = ManualClock::default();
    let store = DeferredStore::that(Answers::Decision, &clock);
    let breaker = Breaker::with_clock(Arc::clone(&store), clock.clone());
    let fallback = LocalFallback::with_local(breaker, MemoryStore::with_clock(clock.clone()))
        .expected_replicas(2);
    let cache = DenialCache::with_clock(fallback, clock.clone());
    let limiter = Limiter::with_store(Policy::default(), cache).unwrap();
    let service = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    let send = async |times: u32| {
        let mut admitted = 0;
        for _ in 0..times {
            match service.clone().oneshot(call_by("u", "o")).await.unwrap().status() {
                StatusCode::OK => admitted += 1,
                status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
            }
        }
        admitted
    };
    assert_eq!(send(400).await, 400);
    store.now_answers(Answers::Failure);
    store.asked();
    // A hundred units were left, and each of the two replicas has half of them.
    assert_eq!(send(200).await, 50);
    assert_eq!(store.asked(), 5);
    assert!(limiter.store().store().store().is_open());
    // There is one trial, and no second one.
    clock.advance(SECOND);
    assert_eq!(send(200).await, 4);
    assert_eq!(store.asked(), 1);
    store.now_answers(Answers::Decision);
    clock.advance(SECOND);
    assert_eq!(send(200).await, 116);
    assert!(!limiter.store().store().store().is_open());
    assert_eq!(store.asked(), 116);
    assert_eq!(limiter.store().len(), 1);
}
