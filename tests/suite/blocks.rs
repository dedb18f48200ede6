//! Blocks: buckets that refuse every request until a time.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::store::{Answer, Breaker, DenialCache, LocalFallback, MemoryStore, Store};
use bolna_rate_limit::values::Limit;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Decision, Endpoint, Principal, Quota};
use tokio_test::block_on;

use crate::bucket::{Bucket, OneBucket, one};
use crate::deferred::{Answers, DeferredStore};
use crate::grants::{self, INTERVAL, NANOSECOND, bucket, quota};
use crate::support::{now, organization};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn decide<St: Store>(store: &St, principal: &Principal) -> Decision {
    grants::decide(store, principal, quota(10))
}

fn drain<St: Store>(store: &St, principal: &Principal) -> u32 {
    grants::drain(store, principal, quota(10))
}

fn peek<St: Store>(store: &St, principal: &Principal) -> Decision {
    now(store.peek(bucket(principal, quota(10)))).unwrap()
}

fn block<St: Store>(store: &St, principal: &Principal, period: Duration) {
    now(store.block(principal, Endpoint::CALL, period)).unwrap();
}

fn reset<St: Store>(store: &St, principal: &Principal) {
    now(store.reset(principal, Endpoint::CALL)).unwrap();
}

fn store() -> (MemoryStore<ManualClock>, ManualClock) {
    let clock = ManualClock::default();
    (MemoryStore::with_clock(clock.clone()), clock)
}

/// A store beyond a network.
fn deferred(clock: &ManualClock) -> Arc<DeferredStore> {
    DeferredStore::that(Answers::Decision, clock)
}

/// What every store must do with a block.
fn refuses_until_the_time<St: Store>(store: &St, clock: &ManualClock) {
    let (caller, other) = (organization("o"), organization("p"));
    assert_eq!(drain(store, &caller), 10);
    block(store, &caller, HOUR);
    // The refusal does not depend on the quota.
    let refused = decide(store, &caller);
    assert_eq!((refused.is_allowed(), refused.is_blocked(), refused.remaining()), (false, true, 0));
    assert_eq!(
        (refused.retry_after(), refused.next_unit(), refused.reset()),
        (Some(HOUR), HOUR, HOUR)
    );
    assert_eq!(refused.limit(), Limit::new(Endpoint::CALL, quota(10)));
    assert_eq!(peek(store, &caller), refused);
    let plan = block_on(store.check_one(bucket(&caller, Quota::per_second(1000).build().unwrap())))
        .unwrap();
    assert_eq!(plan.retry_after(), Some(HOUR));
    assert_eq!(drain(store, &other), 10);
    let elsewhere = Bucket::new(&caller, Endpoint::AGENT, quota(10));
    assert!(block_on(store.check_one(elsewhere)).unwrap().is_allowed());
    // The block ends to the nanosecond, and the bucket has refilled meanwhile.
    clock.advance(HOUR - NANOSECOND);
    assert_eq!(decide(store, &caller).retry_after(), Some(NANOSECOND));
    clock.advance(NANOSECOND);
    assert!(!peek(store, &caller).is_blocked());
    assert_eq!(drain(store, &caller), 10);

    // The wait is that of the drained bucket, if it is longer than the block.
    block(store, &caller, NANOSECOND);
    assert!(decide(store, &caller).is_blocked());
    assert_eq!(decide(store, &caller).retry_after(), Some(INTERVAL));
    clock.advance(NANOSECOND);
    assert_eq!(decide(store, &caller).retry_after(), Some(INTERVAL - NANOSECOND));

    // A later block replaces the earlier one, and a period of zero lifts it.
    block(store, &caller, HOUR);
    block(store, &caller, SECOND);
    assert_eq!(decide(store, &caller).retry_after(), Some(SECOND));
    block(store, &caller, HOUR);
    assert_eq!(decide(store, &caller).retry_after(), Some(HOUR));
    block(store, &caller, Duration::ZERO);
    assert!(!decide(store, &caller).is_blocked());
    block(store, &caller, Duration::ZERO);
    assert_eq!(drain(store, &caller), 0, "lifting gives nothing back");

    // A grant does not lift a block, and its units are there afterwards.
    block(store, &caller, INTERVAL);
    block_on(store.refund(bucket(&caller, quota(10)), 3)).unwrap();
    assert_eq!(decide(store, &caller).retry_after(), Some(INTERVAL));
    clock.advance(INTERVAL);
    assert_eq!(drain(store, &caller), 4);

    block(store, &caller, HOUR);
    reset(store, &caller);
    assert_eq!(drain(store, &caller), 10);

    // A caller without a bucket.
    let stranger = organization("q");
    block(store, &stranger, HOUR);
    assert_eq!(peek(store, &stranger).retry_after(), Some(HOUR));
    assert!(decide(store, &stranger).is_blocked());
    clock.advance(HOUR);
    assert_eq!(drain(store, &stranger), 10);
}

#[test]
fn a_blocked_bucket_refuses_until_the_time_and_not_a_nanosecond_longer() {
    let clock = ManualClock::default();
    let local = || MemoryStore::with_clock(clock.clone());
    let breaker = || Breaker::with_clock(deferred(&clock), clock.clone());
    refuses_until_the_time(&local(), &clock);
    refuses_until_the_time(&Arc::new(local()), &clock);
    refuses_until_the_time(&breaker(), &clock);
    refuses_until_the_time(&DenialCache::with_clock(deferred(&clock), clock.clone()), &clock);
    refuses_until_the_time(&LocalFallback::with_local(deferred(&clock), local()), &clock);
    let all = LocalFallback::with_local(breaker(), local()).expected_replicas(3);
    refuses_until_the_time(&DenialCache::with_clock(all, clock.clone()), &clock);
}

#[test]
fn the_longest_block_is_a_hundred_years() {
    let (store, clock) = store();
    let caller = organization("o");
    for period in [Quota::MAX_REFILL_TIME, Quota::MAX_REFILL_TIME + NANOSECOND, Duration::MAX] {
        block(&store, &caller, period);
        assert_eq!(decide(&store, &caller).retry_after(), Some(Quota::MAX_REFILL_TIME));
    }
    clock.advance(Duration::MAX);
    block(&store, &caller, Duration::MAX);
    assert_eq!(decide(&store, &caller).retry_after(), Some(Quota::MAX_REFILL_TIME));
}

#[test]
fn a_decision_that_is_blocked_always_waits() {
    let slowest = Quota::per(1, Quota::MAX_REFILL_TIME).build().unwrap();
    for quota in [quota(1), quota(500), slowest] {
        for (wait, told) in
            [(Duration::ZERO, NANOSECOND), (NANOSECOND, NANOSECOND), (100 * HOUR, 100 * HOUR)]
        {
            let blocked = Decision::blocked(Limit::new(Endpoint::CALL, quota), wait);
            assert_eq!(
                (blocked.is_blocked(), blocked.is_allowed(), blocked.remaining()),
                (true, false, 0)
            );
            assert_eq!(
                (blocked.retry_after(), blocked.next_unit(), blocked.reset()),
                (Some(told), told, told)
            );
        }
        assert!(
            Decision::blocked(Limit::new(Endpoint::CALL, quota), Duration::MAX).retry_after()
                > Some(Quota::MAX_REFILL_TIME)
        );
    }
    let slowest = Limit::new(Endpoint::CALL, slowest);
    assert!(!Decision::allowed(slowest, HOUR).is_blocked());
    assert!(!Decision::limited(slowest, HOUR).is_blocked());
}

#[test]
fn many_blocks_and_none_of_them_another_callers() {
    let (store, clock) = store();
    let callers: Vec<_> = (0..1000)
        .map(|number| organization(&format!("{number}-{}", "x".repeat(number % 80))))
        .collect();
    for (caller, seconds) in callers.iter().zip(0..) {
        block(&store, caller, Duration::from_secs(seconds));
    }
    for passed in 0..1000_usize {
        let blocked = callers.iter().filter(|caller| peek(&store, caller).is_blocked()).count();
        assert_eq!(blocked, 999 - passed);
        clock.advance(SECOND);
    }
}

#[test]
fn a_clock_that_goes_back_prolongs_no_block_beyond_its_period() {
    let (store, clock) = store();
    let caller = organization("o");
    clock.set(100 * HOUR);
    block(&store, &caller, HOUR);
    clock.set(Duration::ZERO);
    assert_eq!(decide(&store, &caller).retry_after(), Some(HOUR));
    clock.set(HOUR - NANOSECOND);
    assert!(decide(&store, &caller).is_blocked());
    clock.set(HOUR);
    assert!(decide(&store, &caller).is_allowed());
}

#[test]
fn threads_see_blocks_come_and_go_at_once() {
    let (store, _clock) = store();
    let (blocked, other) = (organization("blocked"), organization("other"));
    let turn = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    turn.wait();
                    assert!((0..10).all(|_| decide(&store, &blocked).is_blocked()));
                    turn.wait();
                    turn.wait();
                    assert!((0..10).all(|_| !decide(&store, &blocked).is_blocked()));
                    assert!((0..10).all(|_| !decide(&store, &other).is_blocked()));
                    turn.wait();
                }
            });
        }
        for _ in 0..100 {
            block(&store, &blocked, HOUR);
            turn.wait();
            turn.wait();
            block(&store, &blocked, Duration::ZERO);
            turn.wait();
            turn.wait();
        }
    });
}

#[test]
fn a_caller_who_shares_a_bucket_is_blocked_alone() {
    let store = MemoryStore::with_clock(ManualClock::default()).max_buckets(2);
    assert!(decide(&store, &organization("first")).is_allowed());
    let others: Vec<_> = (0..100).map(|number| organization(&format!("other-{number}"))).collect();
    block(&store, &others[0], HOUR);
    assert_eq!(store.report().blocks, 1, "it has taken the last place");
    assert!(decide(&store, &others[0]).is_blocked());
    assert!(others[1..].iter().all(|other| !decide(&store, other).is_blocked()));
    block(&store, &others[0], Duration::ZERO);
    assert!(!decide(&store, &others[0]).is_blocked());
}

#[test]
fn a_block_is_asked_for_once_in_an_interval() {
    let clock = ManualClock::default();
    let cache = DenialCache::with_clock(deferred(&clock), clock.clone());
    let caller = organization("o");
    block(&cache, &caller, HOUR);
    for _ in 0..10 {
        for wait in [Duration::ZERO, INTERVAL] {
            clock.advance(wait);
            let refused = decide(&cache, &caller);
            assert_eq!(refused, peek(&cache, &caller));
            assert!((0..100).all(|_| decide(&cache, &caller) == refused));
        }
        assert_eq!(cache.store().asked(), 1);
        clock.advance(NANOSECOND);
    }
}

#[test]
fn a_block_that_is_made_elsewhere_is_seen_at_once_and_one_that_is_lifted_within_an_interval() {
    let clock = ManualClock::default();
    let decides = Arc::new(MemoryStore::with_clock(clock.clone()));
    let [here, there] = [(); 2].map(|()| {
        let store = DeferredStore::before(Arc::clone(&decides));
        store.now_answers(Answers::Decision);
        DenialCache::with_clock(store, clock.clone())
    });
    let caller = organization("o");
    assert!(decide(&there, &caller).is_allowed());
    block(&here, &caller, HOUR);
    assert!(decide(&there, &caller).is_blocked());
    block(&here, &caller, Duration::ZERO);
    assert!(decide(&here, &caller).is_allowed());
    assert!(decide(&there, &caller).is_blocked());
    clock.advance(INTERVAL + NANOSECOND);
    assert!(decide(&there, &caller).is_allowed());
}

type Replica = LocalFallback<Arc<DeferredStore>, ManualClock>;

fn two_replicas() -> ([Replica; 2], ManualClock) {
    let clock = ManualClock::default();
    let decides = Arc::new(MemoryStore::with_clock(clock.clone()));
    let replica = |()| {
        let store = DeferredStore::before(Arc::clone(&decides));
        store.now_answers(Answers::Decision);
        let local = MemoryStore::with_clock(clock.clone());
        LocalFallback::with_local(Arc::new(store), local).expected_replicas(2)
    };
    ([(); 2].map(replica), clock)
}

fn now_answers(replicas: &[Replica], answers: Answers) {
    replicas.iter().for_each(|replica| replica.store().now_answers(answers));
}

#[test]
fn who_is_blocked_stays_so_when_the_store_is_lost() {
    let (fleet, clock) = two_replicas();
    let caller = organization("o");
    block(&fleet[0], &caller, HOUR);
    // The other replica has learned of the block from an answer.
    assert!(decide(&fleet[1], &caller).is_blocked());
    now_answers(&fleet, Answers::Failure);
    clock.advance(HOUR - NANOSECOND);
    for replica in &fleet {
        assert_eq!(peek(replica, &caller).retry_after(), Some(NANOSECOND));
        assert_eq!(decide(replica, &caller).retry_after(), Some(NANOSECOND));
    }
    clock.advance(NANOSECOND);
    assert_eq!(fleet.iter().map(|replica| drain(replica, &caller)).sum::<u32>(), 10);
}

#[test]
fn who_is_not_blocked_any_more_is_not_so_when_the_store_is_lost() {
    let (fleet, _clock) = two_replicas();
    let caller = organization("o");
    for lift in [block_for_no_time as fn(&Replica, &Principal), reset] {
        block(&fleet[0], &caller, HOUR);
        assert!(decide(&fleet[1], &caller).is_blocked());
        lift(&fleet[0], &caller);
        assert!(decide(&fleet[1], &caller).is_allowed());
        now_answers(&fleet, Answers::Failure);
        assert!(fleet.iter().all(|replica| decide(replica, &caller).is_allowed()));
        now_answers(&fleet, Answers::Decision);
    }
}

fn block_for_no_time(replica: &Replica, caller: &Principal) {
    block(replica, caller, Duration::ZERO);
}

#[test]
fn a_block_is_made_here_even_if_the_store_can_not_be_asked() {
    let (fleet, _clock) = two_replicas();
    let caller = organization("o");
    now_answers(&fleet, Answers::Failure);
    block_on(fleet[0].block(&caller, Endpoint::CALL, HOUR)).unwrap_err();
    assert!(decide(&fleet[0], &caller).is_blocked());
    block_on(fleet[0].block(&caller, Endpoint::CALL, Duration::ZERO)).unwrap_err();
    assert!(decide(&fleet[0], &caller).is_allowed());
}

#[test]
fn an_answer_that_was_on_its_way_changes_no_block_afterwards() {
    let (fleet, _clock) = two_replicas();
    let (replica, caller) = (&fleet[0], organization("o"));
    let ask = || match replica.check(bucket(&caller, quota(10)).charge()) {
        Answer::Later(check) => check,
        Answer::Now(_) => panic!("the store answers later"),
    };
    replica.store().now_answers(Answers::NotYet);
    let admitted = ask();
    block(replica, &caller, HOUR);
    let blocked = ask();
    replica.store().now_answers(Answers::Decision);
    assert!(one(block_on(admitted)).unwrap().is_allowed());
    now_answers(&fleet, Answers::Failure);
    assert!(decide(replica, &caller).is_blocked());
    replica.store().now_answers(Answers::Decision);
    block(replica, &caller, Duration::ZERO);
    assert!(one(block_on(blocked)).unwrap().is_blocked());
    now_answers(&fleet, Answers::Failure);
    assert!(decide(replica, &caller).is_allowed());
}

/// Also if another replica has made the block: once a replica knows of the block, it ignores the
/// answers to calls that it made before.
#[test]
fn an_older_answer_does_not_lift_a_block_that_a_newer_one_has_told_of() {
    let (fleet, _clock) = two_replicas();
    let (replica, caller) = (&fleet[0], organization("o"));
    replica.store().now_answers(Answers::NotYet);
    let Answer::Later(older) = replica.check(bucket(&caller, quota(10)).charge()) else {
        panic!("the store answers later")
    };
    block(&fleet[1], &caller, HOUR);
    replica.store().now_answers(Answers::Decision);
    assert!(decide(replica, &caller).is_blocked());
    assert!(one(block_on(older)).unwrap().is_allowed());
    now_answers(&fleet, Answers::Failure);
    assert!(decide(replica, &caller).is_blocked());
}

/// Platforms block automatically. With a cost that grew with the number of blocks this would take
/// minutes.
#[test]
fn a_hundred_thousand_blocks_are_set_looked_at_and_lifted() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone());
    let callers: Vec<_> = (0..100_000).map(|id| organization(&id.to_string())).collect();
    for caller in &callers {
        now(store.block(caller, Endpoint::CALL, Duration::from_secs(60))).unwrap();
    }
    assert_eq!(store.report().blocks, callers.len());
    for caller in &callers {
        let bucket = bucket(caller, quota(10));
        assert!(now(store.peek(bucket)).unwrap().is_blocked());
        assert!(now(store.check_one(bucket)).unwrap().is_blocked());
    }
    let (lifted, others) = callers.split_at(callers.len() / 2);
    for caller in lifted {
        now(store.block(caller, Endpoint::CALL, Duration::ZERO)).unwrap();
        assert!(now(store.check_one(bucket(caller, quota(10)))).unwrap().is_allowed());
    }
    assert_eq!(store.report().blocks, others.len());
    clock.advance(Duration::from_secs(60));
    store.shrink();
    assert_eq!((store.report().blocks, store.len()), (0, 0));
}
