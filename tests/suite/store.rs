//! The store in this process: the buckets that it keeps, and the memory that it frees.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::Id;
use bolna_rate_limit::values::clock::{Clock, ManualClock};
use bolna_rate_limit::{Endpoint, Limiter, Policy, Principal, Quota};

use proptest::prelude::*;

use crate::bucket::{Bucket, OneBucket};
use crate::support::{DecideNow, now, organization, peeked, quiet, stopped_limiter, uniform};

const HOUR: Duration = Duration::from_secs(3600);

fn drain<C: Clock>(limiter: &Limiter<MemoryStore<C>>, principal: &Principal, path: &str) -> u32 {
    let mut admitted = 0;
    while limiter.decide_now(principal, path).unwrap().is_allowed() {
        admitted += 1;
    }
    admitted
}

#[test]
fn memory_follows_the_callers_of_the_last_minute_and_not_of_all_time() {
    let (limiter, clock) =
        stopped_limiter(uniform(500, Duration::from_secs(60), 500).build().unwrap());
    let mut most = 0;
    for caller in 0..400_000_u64 {
        // A bucket is full again 120 ms after its one request, which is 120 callers later.
        clock.advance(Duration::from_millis(1));
        assert!(limiter.decide_now(&organization(&caller.to_string()), "/").unwrap().is_allowed());
        most = most.max(limiter.store().len());
    }
    assert!(most < 10_000, "{most} buckets were tracked at once, of which 120 owed");
}

/// 200,000 callers come once. After that, one other caller sends so many requests at once, again and
/// again. Returns how many buckets are left after each time.
fn left_after_a_spike(at_once: usize, pause: Duration) -> impl Iterator<Item = usize> {
    let (limiter, clock) = stopped_limiter(Policy::default());
    for caller in 0..200_000 {
        let _ = limiter.decide_now(&organization(&caller.to_string()), "/call");
    }
    assert_eq!(limiter.store().len(), 200_000);
    std::iter::repeat_with(move || {
        clock.advance(pause);
        for _ in 0..at_once {
            let _ = limiter.decide_now(&organization("other"), "/call");
        }
        limiter.store().len()
    })
}

#[test]
fn the_memory_of_a_spike_is_freed_however_slow_the_requests_are_that_follow() {
    const SECOND: Duration = Duration::from_secs(1);
    // Within a minute, and the second that the minute ends in.
    assert_eq!(left_after_a_spike(8, SECOND).nth(61), Some(1));
    assert_eq!(left_after_a_spike(1, SECOND / 8).nth(61 * 8), Some(1));
    // With fewer requests, a hundred of them.
    assert_eq!(left_after_a_spike(1, SECOND).nth(100), Some(1));
    assert_eq!(left_after_a_spike(1, 60 * SECOND).nth(100), Some(1));
    // Each of them drops some, and so few that it takes some microseconds.
    let left: Vec<_> = left_after_a_spike(1, 10 * SECOND).take(50).collect();
    let dropped = left.windows(2).map(|two| two[0] - two[1]);
    assert!(dropped.into_iter().all(|dropped| (1_000..4_000).contains(&dropped)), "{left:?}");
}

#[test]
fn a_report_frees_the_memory_of_a_spike_without_any_request() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    for caller in 0..200_000 {
        let _ = limiter.decide_now(&organization(&caller.to_string()), "/call");
    }
    let reported = || limiter.report().store.buckets;
    assert_eq!(reported(), 200_000, "no bucket is full again");
    // A metrics page is read every 15 s.
    let mut before = 200_000;
    for quarter in 1..=4 {
        clock.advance(Duration::from_secs(15));
        let left = reported();
        assert!(left + 45_000 < before, "{left} are left after {quarter} quarters of a minute");
        before = left;
    }
    assert_eq!(before, 0);
    // A report finds the work of a minute at most, however long none was made.
    let sweeps = limiter.report().store.sweeps;
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(limiter.report().store.sweeps - sweeps, 1024);
    assert_eq!(limiter.report().store.sweeps - sweeps, 1024, "nothing is due");
}

#[test]
fn a_bucket_that_owes_is_never_dropped() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let owing: Vec<_> = (0..50).map(|number| organization(&format!("owing-{number}"))).collect();
    for caller in &owing {
        assert_eq!(drain(&limiter, caller, "/call"), 500);
    }
    // Enough new callers to sweep every shard many times, and a shrink in addition.
    for stranger in 0..100_000 {
        let _ = limiter.decide_now(&organization(&stranger.to_string()), "/call");
    }
    clock.advance(Duration::from_nanos(59_999_999_999));
    limiter.store().shrink();
    for caller in &owing {
        assert_eq!(drain(&limiter, caller, "/call"), 499, "all but 1 ns of one unit has come back");
    }
}

#[test]
fn a_clock_that_has_been_ahead_does_not_stop_full_buckets_from_being_dropped() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    clock.set(Duration::from_secs(1_000_000));
    let _ = limiter.decide_now(&organization("o"), "/call");
    clock.set(Duration::ZERO);
    for caller in 0..10_000 {
        let _ = limiter.decide_now(&organization(&caller.to_string()), "/call");
    }
    for _ in 0..10_000 {
        clock.advance(Duration::from_millis(30));
        let _ = limiter.decide_now(&organization("p"), "/call");
    }
    // The bucket from the wrong time is not full until that time, or until its caller's next
    // request.
    assert!(limiter.store().len() <= 2, "{} buckets are left", limiter.store().len());
}

#[test]
fn shrinking_drops_buckets_that_are_full_again() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    for caller in 0..1000 {
        let _ = limiter.decide_now(&organization(&caller.to_string()), "/call");
    }
    limiter.store().shrink();
    assert_eq!(limiter.store().len(), 1000);
    clock.advance(Duration::from_millis(120));
    limiter.store().shrink();
    assert!(limiter.store().is_empty());
}

#[test]
fn a_change_of_limits_keeps_what_was_spent() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let caller = organization("o");
    for _ in 0..250 {
        let _ = limiter.decide_now(&caller, "/call");
    }
    // The bucket is full in 30 s. At 1000 a minute this is 500 units of 1000.
    limiter
        .set_policy(Policy::bolna().quota("call", Quota::per_minute(1000)).build().unwrap())
        .unwrap();
    assert_eq!(drain(&limiter, &caller, "/call"), 500);
    // Back to 500 a minute: the bucket is full in 60 s, so it is drained now.
    limiter.set_policy(Policy::default()).unwrap();
    assert_eq!(drain(&limiter, &caller, "/call"), 0);
    clock.advance(Duration::from_secs(60));
    assert_eq!(drain(&limiter, &caller, "/call"), 500);
}

#[test]
fn nobody_owes_more_than_a_full_refill_by_the_limits_in_force() {
    let slow = Policy::bolna().quota("call", Quota::per_hour(10)).build().unwrap();
    let (limiter, clock) = stopped_limiter(slow);
    let caller = organization("o");
    assert_eq!(drain(&limiter, &caller, "/call"), 10);
    limiter.set_policy(Policy::default()).unwrap();
    let refused = limiter.decide_now(&caller, "/call").unwrap();
    assert_eq!((refused.is_allowed(), refused.reset()), (false, Duration::from_secs(60)));
    // The decision was right: a minute later all units are back.
    clock.advance(Duration::from_secs(60));
    assert_eq!(drain(&limiter, &caller, "/call"), 500);
}

#[test]
fn after_a_change_to_a_faster_quota_a_refusal_waits_for_one_refill_of_it_at_most() {
    let of_one = |limit| uniform(limit, Duration::from_secs(1), 1).build().unwrap();
    let (limiter, clock) = stopped_limiter(of_one(1));
    let caller = organization("o");
    assert_eq!(drain(&limiter, &caller, "/"), 1);
    limiter.set_policy(of_one(1000)).unwrap();
    let millisecond = Duration::from_millis(1);
    assert_eq!(limiter.decide_now(&caller, "/").unwrap().retry_after(), Some(millisecond));
    clock.advance(millisecond - Duration::from_nanos(1));
    assert!(!limiter.decide_now(&caller, "/").unwrap().is_allowed());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(drain(&limiter, &caller, "/"), 1);
}

#[test]
fn a_clock_that_goes_back_neither_opens_the_gate_nor_locks_anybody_out() {
    let nanosecond = Duration::from_nanos(1);
    for back in [HOUR, Duration::from_secs(1), nanosecond] {
        let (limiter, clock) = stopped_limiter(Policy::default());
        let caller = organization("o");
        clock.set(HOUR);
        assert_eq!(drain(&limiter, &caller, "/call"), 500);
        // The bucket is drained, whatever time it is, and refills from then on.
        clock.set(HOUR - back);
        let refused = limiter.decide_now(&caller, "/call").unwrap();
        assert_eq!(refused.retry_after(), Some(Duration::from_millis(120)), "{back:?} back");
        assert_eq!(refused.reset(), Duration::from_secs(60), "{back:?} back");
        assert_eq!(drain(&limiter, &caller, "/call"), 0);
        clock.set(HOUR - back + Duration::from_millis(120) - nanosecond);
        assert_eq!(drain(&limiter, &caller, "/call"), 0);
        clock.advance(nanosecond);
        assert_eq!(drain(&limiter, &caller, "/call"), 1);
        clock.set(HOUR - back + Duration::from_secs(60));
        assert_eq!(drain(&limiter, &caller, "/call"), 499);
    }
}

#[test]
fn an_absurd_clock_does_no_harm() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    clock.advance(Duration::MAX);
    assert_eq!(drain(&limiter, &organization("o"), "/call"), 500);
    clock.advance(Duration::MAX);
    assert_eq!(drain(&limiter, &organization("o"), "/call"), 0);

    struct EndOfTime;
    impl Clock for EndOfTime {
        fn now(&self) -> Duration {
            Duration::MAX
        }
    }
    let slowest = uniform(1, Quota::MAX_REFILL_TIME, 1).build().unwrap();
    let limiter = Limiter::with_store(slowest, MemoryStore::with_clock(EndOfTime)).unwrap();
    assert_eq!(drain(&limiter, &organization("o"), "/call"), 1);
}

#[tokio::test]
async fn peeking_charges_nothing_and_tells_what_a_request_would_meet() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let caller = organization("o");
    let peek = async || peeked(&limiter, &caller, Endpoint::CALL).await;
    let untouched = peek().await;
    assert_eq!(
        (untouched.is_allowed(), untouched.remaining(), untouched.reset()),
        (true, 500, Duration::ZERO)
    );
    assert_eq!(untouched.next_unit(), Duration::ZERO);
    assert!(limiter.store().is_empty());

    assert_eq!(drain(&limiter, &caller, "/call"), 500);
    clock.advance(Duration::from_millis(119));
    let spent = peek().await;
    assert_eq!((spent.is_allowed(), spent.remaining()), (false, 0));
    assert_eq!(spent.retry_after(), Some(Duration::from_millis(1)));
    clock.advance(Duration::from_millis(1));
    let one = peek().await;
    assert_eq!((one.is_allowed(), one.remaining()), (true, 1));
    assert_eq!(drain(&limiter, &caller, "/call"), 1);
    let stranger = Endpoint::new("nothing-of-ours").unwrap();
    assert_eq!(limiter.peek(&caller, stranger).await.unwrap(), None);
}

#[tokio::test]
async fn a_reset_fills_one_bucket_of_one_principal() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let (caller, other) = (organization("o"), organization("p"));
    for principal in [&caller, &other] {
        drain(&limiter, principal, "/call");
        drain(&limiter, principal, "/v2/agent/x");
    }
    assert_eq!(limiter.store().len(), 4);
    limiter.reset(&caller, Endpoint::CALL).await.unwrap();
    assert_eq!(limiter.store().len(), 3);
    assert_eq!(drain(&limiter, &caller, "/call"), 500);
    assert_eq!(drain(&limiter, &caller, "/v2/agent/x"), 0);
    assert_eq!(drain(&limiter, &other, "/call"), 0);
}

/// A clock in seconds. Once, a thread that reads it is held up while another thread does something.
#[derive(Clone, Default)]
struct Delayed {
    seconds: Arc<AtomicU64>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl Delayed {
    fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    fn hold_up(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
    }
}

impl Clock for Delayed {
    fn now(&self) -> Duration {
        let read = self.seconds.load(Ordering::SeqCst);
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            thread::spawn(meanwhile).join().unwrap();
        }
        Duration::from_secs(read)
    }
}

fn delayed_limiter(policy: Policy) -> (Limiter<MemoryStore<Delayed>>, Delayed) {
    let clock = Delayed::default();
    let store = MemoryStore::with_clock(clock.clone());
    (quiet(Limiter::with_store(policy, store).unwrap()), clock)
}

#[test]
fn a_thread_that_was_held_up_since_it_read_the_clock_forgives_nothing() {
    let (limiter, clock) = delayed_limiter(Policy::default());
    let caller = organization("o");
    assert!(limiter.decide_now(&caller, "/call").unwrap().is_allowed());
    // The thread reads 0 s, so units that are spent at 30 s seem to be spent in the future.
    clock.hold_up({
        let (limiter, clock, caller) = (limiter.clone(), clock.clone(), caller.clone());
        move || {
            clock.set(30);
            assert_eq!(drain(&limiter, &caller, "/call"), 500);
        }
    });
    assert!(!limiter.decide_now(&caller, "/call").unwrap().is_allowed());
    assert!(!limiter.decide_now(&caller, "/call").unwrap().is_allowed());
}

#[test]
fn a_thread_that_was_held_up_since_it_read_the_clock_is_not_refused_for_what_came_after() {
    let (limiter, clock) = delayed_limiter(uniform(1, Duration::from_secs(1), 2).build().unwrap());
    let caller = organization("o");
    clock.set(10);
    assert_eq!(drain(&limiter, &caller, "/"), 2);
    // At 12 s both units are back. Two requests take them. The second has read the clock at 11 s,
    // when one unit was back.
    clock.set(11);
    clock.hold_up({
        let (limiter, clock, caller) = (limiter.clone(), clock.clone(), caller.clone());
        move || {
            clock.set(12);
            assert!(limiter.decide_now(&caller, "/").unwrap().is_allowed());
        }
    });
    assert!(limiter.decide_now(&caller, "/").unwrap().is_allowed());
    assert!(!limiter.decide_now(&caller, "/").unwrap().is_allowed());
}

#[test]
fn a_look_that_was_held_up_sees_no_debt_in_the_future() {
    let (limiter, clock) = delayed_limiter(Policy::default());
    let caller = organization("o");
    assert_eq!(drain(&limiter, &caller, "/call"), 500);
    clock.hold_up({
        let (limiter, clock, caller) = (limiter.clone(), clock.clone(), caller.clone());
        move || {
            clock.set(60);
            assert!(limiter.decide_now(&caller, "/call").unwrap().is_allowed());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let peeked = runtime.block_on(peeked(&limiter, &caller, Endpoint::CALL));
    // It saw the bucket as it was before that, not a mixture of the two states.
    assert_eq!((peeked.remaining(), peeked.reset()), (0, Duration::from_secs(60)));
}

#[test]
fn a_clock_that_panics_loses_no_count() {
    #[derive(Clone, Default)]
    struct Panicking(Arc<AtomicU32>);
    impl Clock for Panicking {
        fn now(&self) -> Duration {
            assert!(self.0.load(Ordering::SeqCst) == 0, "this clock is broken");
            Duration::from_secs(1)
        }
    }
    let clock = Panicking::default();
    let limiter =
        Limiter::with_store(Policy::default(), MemoryStore::with_clock(clock.clone())).unwrap();
    assert_eq!(drain(&limiter, &organization("o"), "/call"), 500);
    clock.0.store(1, Ordering::SeqCst);
    for caller in 0..50 {
        let caller = organization(&caller.to_string());
        let check = || limiter.decide_now(&caller, "/call").map(|decision| decision.is_allowed());
        assert!(panic::catch_unwind(AssertUnwindSafe(check)).is_err());
    }
    clock.0.store(0, Ordering::SeqCst);
    assert_eq!(drain(&limiter, &organization("o"), "/call"), 0);
    // A bucket may have been made before the clock was read. It is full and is dropped.
    limiter.store().shrink();
    assert_eq!(limiter.store().len(), 1);
}

/// A thread remembers the callers that it has refused. The tests below are about what it must not
/// remember.
#[test]
fn a_reset_is_seen_at_once_by_a_thread_that_has_refused() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let callers: Vec<_> =
        (0..100).map(|number| organization(&format!("caller-{number}"))).collect();
    for caller in &callers {
        assert_eq!(drain(&limiter, caller, "/call"), 500);
    }
    for caller in &callers {
        assert_eq!(drain(&limiter, caller, "/call"), 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(limiter.reset(caller, Endpoint::CALL)).unwrap();
            });
        });
        assert_eq!(drain(&limiter, caller, "/call"), 500);
    }
}

#[test]
fn what_one_plan_forgives_is_forgiven_on_all_threads() {
    let store = MemoryStore::with_clock(ManualClock::default());
    let caller = organization("o");
    let check = |quota: Quota| {
        let bucket = Bucket::new(&caller, Endpoint::CALL, quota);
        now(store.check_one(bucket)).unwrap().is_allowed()
    };
    let slow = Quota::per_hour(10).build().unwrap();
    assert_eq!((0..20).filter(|_| check(slow)).count(), 10);
    // By this quota, a debt is at most a minute.
    thread::scope(|scope| {
        scope.spawn(|| assert!(!check(Quota::per_minute(500).build().unwrap()))).join().unwrap();
    });
    // By the slow quota, a minute is a part of one of the ten units.
    assert_eq!((0..20).filter(|_| check(slow)).count(), 9);
}

#[test]
fn a_thread_that_has_refused_sees_what_another_quota_admits() {
    let (limiter, clock) = stopped_limiter(uniform(1, HOUR, 1).build().unwrap());
    let caller = organization("o");
    let (hourly, by_the_minute) = (limiter.policy(), uniform(60, HOUR, 60).build().unwrap());
    assert_eq!(drain(&limiter, &caller, "/"), 1);
    clock.advance(HOUR - Duration::from_secs(300));
    for minutes in 5..=55 {
        limiter.set_policy(hourly.clone()).unwrap();
        let waits = [(); 3].map(|()| limiter.decide_now(&caller, "/").unwrap().retry_after());
        assert_eq!(waits, [Some(Duration::from_secs(60 * minutes)); 3]);
        limiter.set_policy(by_the_minute.clone()).unwrap();
        assert!(limiter.decide_now(&caller, "/").unwrap().is_allowed());
    }
}

proptest! {
    /// Also when limits change back and forth, on a thread that remembers its refusals.
    #[test]
    fn a_check_decides_what_a_look_before_it_has_said(
        steps in prop::collection::vec((0..4_usize, prop_oneof![Just(0), 0..1200_u64]), 1..200),
    ) {
        let quotas = [(1, 60, 1), (60, 60, 60), (1000, 1, 1), (7, 10, 3)].map(
            |(limit, seconds, burst)| {
                Quota::per(limit, Duration::from_secs(seconds)).burst(burst).build().unwrap()
            },
        );
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(clock.clone());
        let caller = organization("o");
        for (quota, pause) in steps {
            clock.advance(Duration::from_millis(pause));
            let bucket = Bucket::new(&caller, Endpoint::CALL, quotas[quota]);
            let peeked = now(store.peek(bucket)).unwrap();
            let decided = now(store.check_one(bucket)).unwrap();
            if peeked.is_allowed() {
                prop_assert!(decided.is_allowed());
                prop_assert_eq!(decided.remaining() + 1, peeked.remaining());
            } else {
                prop_assert_eq!(decided, peeked);
            }
        }
    }
}

#[test]
fn a_refusal_by_one_store_is_none_by_another() {
    let refused = |id: &str| {
        let (limiter, _clock) = stopped_limiter(Policy::default());
        assert_eq!(drain(&limiter, &organization(id), "/call"), 500);
        assert_eq!(drain(&limiter, &Principal::user(id).unwrap(), "/call"), 500);
        assert_eq!(drain(&limiter, &organization(id), "/v2/agent/x"), 500);
        assert_eq!(drain(&limiter, &organization(id), "/call"), 0);
    };
    for id in ["o", &"x".repeat(Id::INLINE), &"x".repeat(Id::INLINE + 1), &"x".repeat(1000)] {
        refused(id);
        refused(id);
    }
}

#[test]
fn buckets_come_and_go_without_a_count_being_lost() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let admitted = AtomicU32::new(0);
    thread::scope(|scope| {
        for thread in 0..3_u32 {
            let (limiter, admitted) = (&limiter, &admitted);
            scope.spawn(move || {
                for round in 0..20_000_u32 {
                    let _ =
                        limiter.decide_now(&organization(&format!("{thread}-{round}")), "/call");
                    if limiter.decide_now(&organization("hot"), "/call").unwrap().is_allowed() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| (0..50).for_each(|_| limiter.store().shrink()));
    });
    assert_eq!(admitted.into_inner(), 500);
    assert_eq!(limiter.store().len(), 60_001);
}

#[tokio::test]
async fn a_bucket_of_a_plan_can_be_looked_at_and_reset() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let caller = organization("o");
    let bulk = Endpoint::new("bulk").unwrap();
    let bucket = Bucket::new(&caller, bulk, Quota::per_minute(1).build().unwrap());
    let check = || now(limiter.store().check_one(bucket)).unwrap().is_allowed();
    assert_eq!([check(), check()], [true, false]);
    assert!(!limiter.store().peek(bucket).await.unwrap().is_allowed());
    limiter.reset(&caller, bulk).await.unwrap();
    assert_eq!([check(), check()], [true, false]);
}

#[test]
fn limiters_can_share_a_store() {
    let store = Arc::new(MemoryStore::with_clock(ManualClock::default()));
    let one = Limiter::with_store(Policy::default(), Arc::clone(&store)).unwrap();
    let other = Limiter::with_store(Policy::builder().build().unwrap(), store).unwrap();
    let remaining = |limiter: &Limiter<Arc<MemoryStore<ManualClock>>>, path| {
        limiter.decide_now(&organization("o"), path).unwrap().remaining()
    };
    assert_eq!([remaining(&one, "/user/me"), remaining(&other, "/call")], [999, 998]);
}

#[test]
fn a_store_works_without_a_limiter() {
    let store = MemoryStore::with_clock(ManualClock::default());
    let principal = organization("o");
    let quota = Quota::per_second(1).build().unwrap();
    let bucket = Bucket::new(&principal, Endpoint::DEFAULT, quota);
    let allowed = |_| now(store.check_one(bucket)).unwrap().is_allowed();
    assert_eq!([0, 1].map(allowed), [true, false]);
}
