//! Grants: units that are given back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::store::{Answer, Breaker, DenialCache, LocalFallback, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Decision, Endpoint, Limiter, Policy, Principal, Quota};
use tokio_test::block_on;

use crate::bucket::{Bucket, OneBucket, one};
use crate::deferred::{Answers, DeferredStore};
use crate::support::organization;

pub(crate) const INTERVAL: Duration = Duration::from_millis(120);
pub(crate) const NANOSECOND: Duration = Duration::from_nanos(1);

pub(crate) fn quota(burst: u32) -> Quota {
    Quota::per_minute(500).burst(burst).build().unwrap()
}

pub(crate) fn bucket(principal: &Principal, quota: Quota) -> Bucket<'_> {
    Bucket::new(principal, Endpoint::CALL, quota)
}

pub(crate) fn decide<St: Store>(store: &St, principal: &Principal, quota: Quota) -> Decision {
    block_on(store.check_one(bucket(principal, quota))).unwrap()
}

pub(crate) fn drain<St: Store>(store: &St, principal: &Principal, quota: Quota) -> u32 {
    let mut admitted = 0;
    while decide(store, principal, quota).is_allowed() {
        admitted += 1;
    }
    admitted
}

fn grant<St: Store>(store: &St, principal: &Principal, quota: Quota, units: u32) {
    block_on(store.refund(bucket(principal, quota), units)).unwrap();
}

fn store() -> (MemoryStore<ManualClock>, ManualClock) {
    let clock = ManualClock::default();
    (MemoryStore::with_clock(clock.clone()), clock)
}

/// What every store must do with a grant.
fn gives_back_exactly<St: Store>(store: &St, clock: &ManualClock) {
    let (caller, other) = (organization("o"), organization("p"));
    for caller in [&caller, &other] {
        assert_eq!(drain(store, caller, quota(10)), 10);
    }
    grant(store, &caller, quota(10), 3);
    assert_eq!(block_on(store.peek(bucket(&caller, quota(10)))).unwrap().remaining(), 3);
    assert_eq!(drain(store, &caller, quota(10)), 3);
    assert_eq!(drain(store, &other, quota(10)), 0);
    // The part of the next unit that has come back is not lost.
    clock.advance(INTERVAL - NANOSECOND);
    grant(store, &caller, quota(10), 1);
    assert_eq!(drain(store, &caller, quota(10)), 1);
    clock.advance(NANOSECOND);
    assert_eq!(drain(store, &caller, quota(10)), 1);
    // A bucket never gets more than full.
    for units in [9, 10] {
        grant(store, &caller, quota(10), units);
        grant(store, &caller, quota(10), 1);
        assert_eq!(drain(store, &caller, quota(10)), 10, "{units} and one more");
    }
    let stranger = organization("q");
    grant(store, &stranger, quota(10), 5);
    assert_eq!(drain(store, &stranger, quota(10)), 10);
}

#[test]
fn a_drained_bucket_to_which_three_are_granted_admits_three() {
    let clock = ManualClock::default();
    let own = || DeferredStore::that(Answers::Decision, &clock);
    let local = || MemoryStore::with_clock(clock.clone());
    gives_back_exactly(&local(), &clock);
    gives_back_exactly(&Arc::new(local()), &clock);
    gives_back_exactly(&Breaker::with_clock(own(), clock.clone()), &clock);
    gives_back_exactly(&DenialCache::with_clock(own(), clock.clone()), &clock);
    gives_back_exactly(&LocalFallback::with_local(own(), local()), &clock);
    let all = LocalFallback::with_local(Breaker::with_clock(own(), clock.clone()), local());
    gives_back_exactly(&DenialCache::with_clock(all.expected_replicas(3), clock.clone()), &clock);
}

/// A limiter can be asked to refund any number of units.
fn refunds_up_to_a_full_bucket<St: Store>(store: St) {
    let policy = Policy::bolna().quota("call", Quota::per_minute(500).burst(10)).build().unwrap();
    let limiter = Limiter::with_store(policy, store).unwrap();
    let caller = organization("o");
    for (units, admitted) in [(10, 10), (0, 0), (3, 3), (11, 10), (u32::MAX, 10)] {
        block_on(limiter.refund(&caller, Endpoint::CALL, units)).unwrap();
        assert_eq!(drain(limiter.store(), &caller, quota(10)), admitted, "{units} refunded");
    }
}

#[test]
fn a_refund_of_more_than_the_burst_fills_the_bucket_and_one_of_nothing_does_nothing() {
    let clock = ManualClock::default();
    let own = || DeferredStore::that(Answers::Decision, &clock);
    let local = || MemoryStore::with_clock(clock.clone());
    refunds_up_to_a_full_bucket(local());
    let all = LocalFallback::with_local(Breaker::with_clock(own(), clock.clone()), local());
    refunds_up_to_a_full_bucket(DenialCache::with_clock(all.expected_replicas(3), clock.clone()));
}

#[test]
fn the_units_are_those_of_the_quota_that_is_named() {
    let (store, _clock) = store();
    let caller = organization("o");
    let (slow, fast) =
        (Quota::per_minute(500).build().unwrap(), Quota::per_minute(1000).build().unwrap());
    assert_eq!(drain(&store, &caller, slow), 500);
    grant(&store, &caller, fast, 10);
    assert_eq!(drain(&store, &caller, slow), 5);
}

#[test]
fn a_bucket_that_owes_more_than_it_can_counts_as_drained_first() {
    let (store, clock) = store();
    let caller = organization("o");
    // A quota with a shorter refill became active ...
    assert_eq!(drain(&store, &caller, Quota::per_hour(10).build().unwrap()), 10);
    grant(&store, &caller, quota(10), 3);
    assert_eq!(drain(&store, &caller, quota(10)), 3);
    // ... or the clock went back, even by a little.
    for back in [Duration::from_millis(500), Duration::from_secs(3600)] {
        clock.set(Duration::from_secs(7200));
        store_full(&store, &caller);
        assert_eq!(drain(&store, &caller, quota(10)), 10);
        clock.set(Duration::from_secs(7200) - back);
        grant(&store, &caller, quota(10), 3);
        assert_eq!(drain(&store, &caller, quota(10)), 3, "{back:?} back");
    }
}

fn store_full<St: Store>(store: &St, caller: &Principal) {
    block_on(store.reset(caller, Endpoint::CALL)).unwrap();
}

#[test]
fn absurd_numbers_do_no_harm() {
    let (store, clock) = store();
    let caller = organization("o");
    let slowest = Quota::per(1, Quota::MAX_REFILL_TIME).build().unwrap();
    clock.advance(Duration::MAX);
    assert_eq!(drain(&store, &caller, slowest), 1);
    grant(&store, &caller, slowest, 1);
    assert_eq!(drain(&store, &caller, slowest), 1);
    let largest = Quota::per_second(u32::MAX).build().unwrap();
    grant(&store, &caller, largest, u32::MAX);
    let left = block_on(store.peek(bucket(&caller, largest))).unwrap();
    assert_eq!(left.remaining(), u32::MAX);
}

/// A thread remembers the callers that it has refused.
#[test]
fn a_grant_is_seen_at_once_by_a_thread_that_has_refused() {
    let (store, _clock) = store();
    let caller = organization("o");
    assert_eq!(drain(&store, &caller, quota(10)), 10);
    for units in 1..10 {
        assert_eq!(drain(&store, &caller, quota(10)), 0);
        thread::scope(|scope| drop(scope.spawn(|| grant(&store, &caller, quota(10), units))));
        assert_eq!(drain(&store, &caller, quota(10)), units);
    }
}

#[test]
fn threads_lose_and_invent_nothing_while_units_are_given_back() {
    const THREADS: usize = 4;
    const GRANTS: u32 = 200;
    let (store, _clock) = store();
    let (caller, quota) = (organization("o"), quota(500));
    assert_eq!(drain(&store, &caller, quota), 500);
    let (admitted, start) = (AtomicU32::new(0), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                while admitted.load(Ordering::Relaxed) < GRANTS {
                    admitted.fetch_add(
                        u32::from(decide(&store, &caller, quota).is_allowed()),
                        Ordering::Relaxed,
                    );
                }
            });
        }
        start.wait();
        (0..GRANTS).for_each(|_| grant(&store, &caller, quota, 1));
    });
    assert_eq!(admitted.into_inner() + drain(&store, &caller, quota), GRANTS);
}

#[test]
fn a_refund_to_a_caller_who_shares_a_bucket_has_no_effect() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock).max_buckets(1);
    assert!(decide(&store, &organization("first"), quota(1)).is_allowed());
    // The other callers share a bucket.
    let others: Vec<_> = (0..100).map(|number| organization(&format!("other-{number}"))).collect();
    let admitted =
        || others.iter().filter(|other| decide(&store, other, quota(1)).is_allowed()).count();
    assert_eq!(admitted(), 1);
    others.iter().for_each(|other| grant(&store, other, quota(1), 1));
    assert_eq!(admitted(), 0);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_grant_is_seen_by_the_cache_it_goes_through_and_by_others_within_a_second() {
    let slow = Quota::per_minute(30).build().unwrap();
    let clock = ManualClock::default();
    let decides = Arc::new(MemoryStore::with_clock(clock.clone()));
    let [here, there] = [(); 2].map(|()| {
        let store = DeferredStore::before(Arc::clone(&decides));
        store.now_answers(Answers::Decision);
        DenialCache::with_clock(store, clock.clone())
    });
    let caller = organization("o");
    assert_eq!(drain(&here, &caller, slow), 30);
    assert!(!decide(&there, &caller, slow).is_allowed());
    grant(&here, &caller, slow, 2);
    assert!(decide(&here, &caller, slow).is_allowed());
    assert!(!decide(&there, &caller, slow).is_allowed());
    clock.advance(Duration::from_secs(1) + NANOSECOND);
    assert!(decide(&there, &caller, slow).is_allowed());
}

type Replica = LocalFallback<Arc<DeferredStore>, ManualClock>;

fn fleet(replicas: u32, clock: &ManualClock) -> Vec<Replica> {
    let decides = Arc::new(MemoryStore::with_clock(clock.clone()));
    let replica = |_| {
        let store = DeferredStore::before(Arc::clone(&decides));
        store.now_answers(Answers::Decision);
        let local = MemoryStore::with_clock(clock.clone());
        LocalFallback::with_local(Arc::new(store), local).expected_replicas(replicas)
    };
    (0..replicas).map(replica).collect()
}

#[test]
fn a_share_is_given_its_part_of_the_units_in_time() {
    let clock = ManualClock::default();
    let fleet = fleet(3, &clock);
    let caller = organization("o");
    let lose = |answers| fleet.iter().for_each(|replica| replica.store().now_answers(answers));
    assert_eq!(fleet.iter().map(|replica| drain(replica, &caller, quota(30))).sum::<u32>(), 30);
    grant(&fleet[0], &caller, quota(30), 7);
    lose(Answers::Failure);
    // Two and a third of the seven units are this replica's. The others are the part of the other
    // replicas, which do not learn of the grant.
    assert_eq!(drain(&fleet[0], &caller, quota(30)), 2);
    assert_eq!(drain(&fleet[1], &caller, quota(30)), 0);
    // This replica's third of the seventh unit was given back too.
    clock.advance(INTERVAL * 2 - NANOSECOND);
    assert_eq!(drain(&fleet[0], &caller, quota(30)), 0);
    clock.advance(NANOSECOND);
    assert_eq!(drain(&fleet[0], &caller, quota(30)), 1);
    // The same happens while the store is lost, and the grant returns an error.
    block_on(fleet[1].refund(bucket(&caller, quota(30)), 3)).unwrap_err();
    assert_eq!(drain(&fleet[1], &caller, quota(30)), 1);
    lose(Answers::Decision);
    // The seven units in the store, and the two that have come back since.
    assert_eq!(drain(&fleet[2], &caller, quota(30)), 7 + 2);
}

#[test]
fn an_answer_that_was_on_its_way_during_a_grant_does_not_take_it_back() {
    let clock = ManualClock::default();
    let fleet = fleet(1, &clock);
    let (replica, caller) = (&fleet[0], organization("o"));
    assert_eq!(drain(replica, &caller, quota(2)), 2);
    replica.store().now_answers(Answers::NotYet);
    let Answer::Later(check) = replica.check(bucket(&caller, quota(2)).charge()) else {
        panic!("the store answers later")
    };
    grant(replica, &caller, quota(2), 1);
    replica.store().now_answers(Answers::Decision);
    assert!(!one(block_on(check)).unwrap().is_allowed());
    replica.store().now_answers(Answers::Failure);
    assert_eq!(drain(replica, &caller, quota(2)), 1);
}
