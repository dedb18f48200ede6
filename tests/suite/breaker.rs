//! Breakers: a store that fails is not called for a while.

use std::error::Error;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::store::{Answer, Breaker, Store, StoreEvent, StoreListener};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Endpoint, Principal, Quota};
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready};

use crate::bucket::{Bucket, OneBucket};
use crate::deferred::{Answers, DeferredStore};
use crate::support::organization;

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);

type Check = <Breaker<DeferredStore, ManualClock> as Store>::Check;

struct Rig {
    breaker: Breaker<Arc<DeferredStore>, ManualClock>,
    store: Arc<DeferredStore>,
    clock: ManualClock,
    told: Arc<Mutex<Vec<StoreEvent>>>,
    caller: Principal,
}

impl Rig {
    fn new(answers: Answers) -> Self {
        let clock = ManualClock::default();
        let store = DeferredStore::that(answers, &clock);
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let told = Arc::clone(&told);
            StoreListener::new(move |event| told.lock().unwrap().push(event.clone()))
        };
        let breaker = Breaker::with_clock(Arc::clone(&store), clock.clone());
        breaker.subscribe(listener);
        Self { breaker, store, clock, told, caller: organization("o") }
    }

    fn bucket(&self) -> Bucket<'_> {
        let quota = Quota::per_minute(500).build().unwrap();
        Bucket::new(&self.caller, Endpoint::CALL, quota)
    }

    /// Whether a check succeeds when the store answers in this way.
    fn check(&self, answers: Answers) -> bool {
        self.store.now_answers(answers);
        match self.breaker.check(self.bucket().charge()) {
            Answer::Now(answer) => answer.is_ok(),
            Answer::Later(check) => assert_ready!(spawn(check).poll()).is_ok(),
        }
    }

    /// A check that waits for an answer.
    fn ask(&self) -> Spawn<Check> {
        self.store.now_answers(Answers::NotYet);
        let Answer::Later(check) = self.breaker.check(self.bucket().charge()) else {
            panic!("the store was not asked")
        };
        let mut check = spawn(check);
        assert_pending!(check.poll());
        check
    }

    fn fail(&self, times: usize) {
        for _ in 0..times {
            assert!(!self.check(Answers::Failure));
        }
    }

    fn told(&self) -> Vec<StoreEvent> {
        mem::take(&mut self.told.lock().unwrap())
    }
}

fn opened() -> StoreEvent {
    let reason = "connection refused: nothing listens".into();
    StoreEvent::Lost { server: None, kind: "other", reason }
}

fn opened_by_hand() -> StoreEvent {
    let reason = "its circuit breaker was opened by hand".into();
    StoreEvent::Lost { server: None, kind: "by_hand", reason }
}

const CLOSED: StoreEvent = StoreEvent::Regained { server: None };

#[test]
fn the_fifth_failure_in_a_row_opens_it_and_says_why() {
    let rig = Rig::new(Answers::Failure);
    rig.fail(4);
    assert!(rig.check(Answers::Decision));
    rig.fail(4);
    assert!(!rig.breaker.is_open());
    // The failures in a row may be any time apart.
    rig.clock.advance(Duration::from_secs(3600));
    rig.fail(1);
    assert!(rig.breaker.is_open());
    assert_eq!(rig.told(), [opened()]);
    assert_eq!(rig.breaker.reason().as_deref(), Some("connection refused: nothing listens"));
    assert_eq!(rig.store.asked(), 10);
    // The store is not called, even if it would answer.
    assert!(!rig.check(Answers::Decision));
    assert!(!rig.check(Answers::DecisionAtOnce));
    assert_eq!(rig.store.asked(), 0);
    assert_eq!(rig.told(), []);
}

#[test]
fn an_open_breaker_answers_at_once_and_says_what_it_is() {
    let rig = Rig::new(Answers::Failure);
    rig.fail(5);
    let error = rig.breaker.check(rig.bucket().charge()).now().unwrap().unwrap_err();
    assert!(error.is_of_store());
    let why = error.source().unwrap().to_string();
    assert_eq!(why, "the circuit breaker in front of the store is open");
}

#[tokio::test]
async fn nothing_goes_through_an_open_breaker() {
    let rig = Rig::new(Answers::Decision);
    rig.breaker.open();
    assert!(rig.breaker.peek(rig.bucket()).await.is_err());
    assert!(rig.breaker.reset(&rig.caller, Endpoint::CALL).await.is_err());
    assert!(rig.breaker.refund(rig.bucket(), 1).await.is_err());
    assert!(rig.breaker.block(&rig.caller, Endpoint::CALL, SECOND).await.is_err());
    // When a trial is due they still fail, since only a check is a trial.
    rig.clock.advance(SECOND);
    assert!(rig.breaker.peek(rig.bucket()).await.is_err());
    assert!(rig.breaker.reset(&rig.caller, Endpoint::CALL).await.is_err());
    assert!(rig.breaker.is_open());
    assert!(rig.check(Answers::Decision));
    assert!(rig.breaker.peek(rig.bucket()).await.is_ok());
    assert!(rig.breaker.reset(&rig.caller, Endpoint::CALL).await.is_ok());
}

#[tokio::test]
async fn answers_to_whatever_else_is_asked_count_too() {
    let rig = Rig::new(Answers::Failure);
    assert!(rig.breaker.peek(rig.bucket()).await.is_err());
    assert!(rig.breaker.reset(&rig.caller, Endpoint::CALL).await.is_err());
    assert!(rig.breaker.refund(rig.bucket(), 1).await.is_err());
    assert!(rig.breaker.block(&rig.caller, Endpoint::CALL, SECOND).await.is_err());
    assert!(!rig.breaker.is_open());
    assert!(rig.breaker.peek(rig.bucket()).await.is_err());
    assert!(rig.breaker.is_open());
}

#[test]
fn half_of_twenty_answers_in_a_second_open_it() {
    let rig = Rig::new(Answers::Failure);
    for _ in 0..9 {
        assert!(rig.check(Answers::Decision));
        rig.fail(1);
    }
    assert!(rig.check(Answers::Decision));
    assert!(!rig.breaker.is_open());
    rig.clock.advance(SECOND - NANOSECOND);
    rig.fail(1);
    assert!(rig.breaker.is_open());
    assert_eq!(rig.told(), [opened()]);
}

#[test]
fn fewer_than_half_do_not() {
    let rig = Rig::new(Answers::Failure);
    for _ in 0..1000 {
        assert!(rig.check(Answers::Decision));
        assert!(rig.check(Answers::Decision));
        rig.fail(1);
    }
    assert!(!rig.breaker.is_open());
}

#[test]
fn a_second_begins_with_an_answer_and_the_next_one_anew() {
    let rig = Rig::new(Answers::Failure);
    rig.clock.advance(Duration::from_millis(700));
    for _ in 0..9 {
        assert!(rig.check(Answers::Decision));
        rig.fail(1);
    }
    assert!(rig.check(Answers::Decision));
    rig.clock.advance(SECOND);
    rig.fail(1);
    assert!(!rig.breaker.is_open(), "the failure is the first of another second");
    // If the clock goes back, another second begins too.
    rig.clock.set(Duration::ZERO);
    for _ in 0..9 {
        rig.fail(1);
        assert!(rig.check(Answers::Decision));
    }
    assert!(!rig.breaker.is_open());
}

#[test]
fn an_answer_at_once_counts_and_stays_at_once() {
    let rig = Rig::new(Answers::FailureAtOnce);
    let now = || rig.breaker.check(rig.bucket().charge()).now().unwrap().is_ok();
    assert_eq!([now(), now(), now(), now()], [false; 4]);
    rig.store.now_answers(Answers::DecisionAtOnce);
    assert!(now());
    rig.store.now_answers(Answers::FailureAtOnce);
    assert_eq!([now(), now(), now(), now(), now()], [false; 5]);
    assert!(rig.breaker.is_open());
    rig.clock.advance(SECOND);
    rig.store.now_answers(Answers::DecisionAtOnce);
    assert!(now());
    assert!(!rig.breaker.is_open());
}

#[test]
fn errors_of_requests_and_dropped_checks_count_as_nothing() {
    let rig = Rig::new(Answers::Failure);
    for _ in 0..100 {
        assert!(!rig.check(Answers::FailureOfRequest));
        drop(rig.ask());
    }
    assert!(!rig.breaker.is_open());
    // They do not count as successes either: the failures are still in a row, and four of four
    // answers in the second.
    rig.fail(4);
    for _ in 0..100 {
        assert!(!rig.check(Answers::FailureOfRequest));
        drop(rig.ask());
    }
    assert!(!rig.breaker.is_open());
    rig.fail(1);
    assert!(rig.breaker.is_open());
}

#[test]
fn after_a_second_one_check_is_a_trial() {
    let rig = Rig::new(Answers::Failure);
    rig.fail(5);
    rig.store.asked();
    rig.clock.advance(SECOND - NANOSECOND);
    rig.fail(10);
    assert_eq!(rig.store.asked(), 0);
    rig.clock.advance(NANOSECOND);
    let mut trial = rig.ask();
    rig.fail(10);
    assert_eq!(rig.store.asked(), 1);

    rig.store.now_answers(Answers::Decision);
    assert!(assert_ready!(trial.poll()).is_ok());
    assert!(!rig.breaker.is_open());
    assert_eq!(rig.breaker.reason(), None);
    assert_eq!(rig.told(), [opened(), CLOSED]);
    // Counting starts from zero: failures before the outage do not count after it.
    rig.fail(4);
    assert!(!rig.breaker.is_open());
}

#[test]
fn a_trial_that_fails_is_repeated_as_much_later() {
    let rig = Rig::new(Answers::Failure);
    let breaker =
        Breaker::with_clock(Arc::clone(&rig.store), rig.clock.clone()).try_again_after(SECOND * 3);
    let rig = Rig { breaker, ..rig };
    rig.fail(5);
    for _ in 0..3 {
        rig.clock.advance(SECOND * 3 - NANOSECOND);
        rig.fail(1);
        rig.clock.advance(NANOSECOND);
        let mut trial = rig.ask();
        // The period counts from the failure.
        rig.clock.advance(SECOND);
        rig.store.now_answers(Answers::Failure);
        assert!(assert_ready!(trial.poll()).is_err());
        rig.store.asked();
        rig.fail(10);
        assert_eq!(rig.store.asked(), 0);
    }
    assert!(rig.breaker.is_open());
}

#[test]
fn a_trial_that_comes_to_nothing_makes_room_for_another() {
    let rig = Rig::new(Answers::Failure);
    rig.fail(5);
    rig.clock.advance(SECOND);
    drop(rig.ask());
    assert!(!rig.check(Answers::FailureOfRequest));
    assert!(rig.breaker.is_open());
    // A trial that was never polled is dropped in the same way.
    drop(rig.breaker.check(rig.bucket().charge()));
    rig.store.asked();
    let trial = rig.ask();
    rig.fail(1);
    assert_eq!(rig.store.asked(), 1);
    drop(trial);
    assert!(rig.check(Answers::Decision));
    assert_eq!(rig.told(), [opened(), CLOSED]);
}

#[test]
fn a_trial_of_before_makes_no_room_after() {
    let rig = Rig::new(Answers::Failure);
    rig.breaker.open();
    rig.clock.advance(SECOND);
    let old = rig.ask();
    rig.breaker.close();
    rig.breaker.open();
    rig.clock.advance(SECOND);
    let _trial = rig.ask();
    rig.store.asked();
    drop(old);
    rig.fail(1);
    assert_eq!(rig.store.asked(), 0);
}

#[test]
fn answers_of_before_an_outage_do_not_end_it() {
    let rig = Rig::new(Answers::Failure);
    let mut slow: Vec<_> = (0..10).map(|_| rig.ask()).collect();
    rig.breaker.open();
    rig.store.now_answers(Answers::Decision);
    for mut check in slow.drain(..5) {
        assert!(assert_ready!(check.poll()).is_ok());
    }
    assert!(rig.breaker.is_open());
    // They do not count after the outage either.
    rig.breaker.close();
    rig.fail(4);
    rig.store.now_answers(Answers::Decision);
    for mut check in slow {
        assert!(assert_ready!(check.poll()).is_ok());
    }
    rig.fail(1);
    assert!(rig.breaker.is_open(), "five failures in a row");
}

#[test]
fn failures_of_before_do_not_bring_an_outage_back() {
    let rig = Rig::new(Answers::Failure);
    let mut slow: Vec<_> = (0..50).map(|_| rig.ask()).collect();
    rig.breaker.open();
    rig.clock.advance(SECOND);
    assert!(rig.check(Answers::Decision));
    assert!(!rig.breaker.is_open());
    rig.store.now_answers(Answers::Failure);
    for check in &mut slow {
        assert!(assert_ready!(check.poll()).is_err());
    }
    assert!(!rig.breaker.is_open());
}

#[test]
fn it_can_be_opened_and_closed_by_hand_only() {
    let rig = Rig::new(Answers::Decision);
    let breaker = Breaker::with_clock(Arc::clone(&rig.store), rig.clock.clone());
    let rig = Rig { breaker: breaker.try_again_after(Duration::MAX), ..rig };
    rig.breaker.open();
    rig.breaker.open();
    assert_eq!((rig.breaker.is_open(), rig.breaker.reason()), (true, None));
    rig.clock.advance(Duration::MAX);
    assert!(!rig.check(Answers::Decision));
    rig.clock.set(Duration::ZERO);
    assert!(!rig.check(Answers::Decision));
    assert_eq!(rig.store.asked(), 0);
    rig.breaker.close();
    rig.breaker.close();
    assert!(!rig.breaker.is_open());
    assert!(rig.check(Answers::Decision));
}

#[test]
fn only_changes_are_told() {
    let rig = Rig::new(Answers::Decision);
    rig.breaker.close();
    rig.breaker.open();
    rig.breaker.open();
    rig.clock.advance(SECOND);
    rig.fail(1);
    rig.clock.advance(SECOND);
    rig.fail(1);
    rig.breaker.close();
    rig.breaker.close();
    assert_eq!(rig.told(), [opened_by_hand(), CLOSED]);
}

#[test]
fn a_listener_may_ask_the_breaker() {
    let clock = ManualClock::default();
    let breaker =
        Arc::new(Breaker::with_clock(DeferredStore::that(Answers::Decision, &clock), clock));
    let seen = Arc::new(Mutex::new(None));
    breaker.subscribe({
        let (seen, breaker) = (Arc::clone(&seen), Arc::downgrade(&breaker));
        StoreListener::new(move |_| {
            let breaker = breaker.upgrade().unwrap();
            *seen.lock().unwrap() = Some((breaker.is_open(), breaker.reason()));
        })
    });
    breaker.open();
    assert_eq!(*seen.lock().unwrap(), Some((true, None)));
}
