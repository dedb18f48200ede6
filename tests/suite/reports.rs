//! The reports of stores, and the events that they send to their listeners.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::store::{
    Answer, Breaker, Charge, Command, DenialCache, Immediate, LocalFallback, MemoryStore, Reply,
    Store, StoreError, StoreEvent, StoreListener, StoreReport,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Decision, Endpoint, Principal, Quota};

use crate::bucket::{Bucket, OneBucket};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{now, organization};

type Guarded = LocalFallback<Breaker<Arc<DeferredStore>, ManualClock>, ManualClock>;

const SECOND: Duration = Duration::from_secs(1);

/// A store that can be lost, with all wrappers around it.
fn guarded(
    answers: Answers,
) -> (DenialCache<Guarded, ManualClock>, Arc<DeferredStore>, ManualClock) {
    let clock = ManualClock::default();
    let store = DeferredStore::that(answers, &clock);
    let breaker = Breaker::with_clock(Arc::clone(&store), clock.clone());
    let local = MemoryStore::with_clock(clock.clone()).max_buckets(100);
    (
        DenialCache::with_clock(LocalFallback::with_local(breaker, local), clock.clone()),
        store,
        clock,
    )
}

fn bucket(principal: &Principal) -> Bucket<'_> {
    let quota = Quota::per(1, SECOND).build().unwrap();
    Bucket::new(principal, Endpoint::CALL, quota)
}

fn check<St: Store>(store: &St, who: &str) -> Result<Decision, StoreError> {
    now(store.check_one(bucket(&organization(who))))
}

/// Checks `number` callers once each, since a refusal of one caller would be remembered.
fn check_all<St: Store>(store: &St, name: &str, number: usize) {
    for number in 0..number {
        check(store, &format!("{name}-{number}")).unwrap();
    }
}

fn failures<const N: usize>(counts: [(&'static str, u64); N]) -> BTreeMap<&'static str, u64> {
    BTreeMap::from(counts)
}

/// The events that one listener has got.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<StoreEvent>>>);

impl Ear {
    fn at(store: &impl Store) -> Self {
        let ear = Self::default();
        store.subscribe(ear.listener());
        ear
    }

    fn listener(&self) -> StoreListener {
        let told = Arc::clone(&self.0);
        StoreListener::new(move |event| told.lock().unwrap().push(event.clone()))
    }

    fn told(&self) -> Vec<StoreEvent> {
        mem::take(&mut self.0.lock().unwrap())
    }
}

fn lost(kind: &'static str, reason: &str) -> StoreEvent {
    StoreEvent::Lost { server: None, kind, reason: reason.into() }
}

const REGAINED: StoreEvent = StoreEvent::Regained { server: None };
const REASON: &str = "connection refused: nothing listens";

#[test]
fn a_store_that_says_nothing_has_an_empty_report_and_takes_subscribers_all_the_same() {
    let store = DeferredStore::that(Answers::Decision, &ManualClock::default());
    store.subscribe(Ear::default().listener());
    assert_eq!(store.report(), StoreReport::default());
}

#[test]
fn buckets_and_what_housekeeping_has_dropped_are_counted() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone());
    for who in 0..1000 {
        check(&store, &who.to_string()).unwrap();
    }
    let report = store.report();
    assert_eq!((report.buckets, report.max_buckets, report.dropped), (1000, None, 0));
    clock.advance(SECOND);
    store.shrink();
    let after = store.report();
    assert_eq!((after.buckets, after.dropped), (0, 1000));
    assert!(after.sweeps > report.sweeps);
    // Requests sweep too. A reset is not counted as a drop.
    check(&store, "o").unwrap();
    now(store.reset(&organization("o"), Endpoint::CALL)).unwrap();
    for who in ["a", "b", "c"] {
        check(&store, who).unwrap();
    }
    let swept = store.report().sweeps;
    let minute = || {
        for _ in 0..2001 {
            clock.advance(Duration::from_millis(30));
            check(&store, "o").unwrap();
        }
        store.report()
    };
    let report = minute();
    assert!(report.sweeps >= swept + 1024, "within a minute every shard is swept: {report:?}");
    // A shard that was swept before its bucket was full is swept again in the next minute.
    let report = minute();
    assert!(report.dropped >= 1003 && report.buckets <= 2, "{report:?}");
}

#[test]
fn a_cap_is_reported_and_what_becomes_of_it_is_told_once() {
    let clock = ManualClock::default();
    let store = Arc::new(MemoryStore::with_clock(clock.clone()).max_buckets(10));
    let ear = Ear::at(&store);
    for who in 0..100 {
        check(&store, &who.to_string()).unwrap();
    }
    assert_eq!((store.report().buckets, store.report().max_buckets), (10, Some(10)));
    let reached = StoreEvent::CapReached { max_buckets: 10 };
    assert_eq!(ear.told(), std::slice::from_ref(&reached));
    let late = Ear::at(&store);
    assert_eq!(late.told(), [reached]);
    clock.advance(SECOND);
    store.shrink();
    let relieved = [StoreEvent::CapRelieved { max_buckets: 10 }];
    assert_eq!((ear.told(), late.told()), (relieved.to_vec(), relieved.to_vec()));
    assert_eq!(Ear::at(&store).told(), [], "nothing stands any more");
}

#[test]
fn during_an_outage_decisions_taken_here_and_failures_are_counted_by_kind() {
    let (store, asked, clock) = guarded(Answers::Decision);
    check(&store, "before").unwrap();
    let healthy = store.report();
    assert_eq!((healthy.fallbacks, healthy.failures.len(), healthy.buckets), (0, 0, 1));
    assert_eq!((healthy.breakers, healthy.open_breakers, healthy.max_buckets), (1, 0, Some(100)));
    assert_eq!(healthy.remembered_denials, 1, "it has taken the last unit");

    asked.now_answers(Answers::FailureOfRequest);
    check(&store, "one").unwrap();
    asked.now_answers(Answers::Failure);
    for who in 0..8 {
        check(&store, &who.to_string()).unwrap();
    }
    let lost = store.report();
    assert_eq!((lost.fallbacks, lost.failures), (9, failures([("open", 3), ("other", 6)])));
    assert_eq!((lost.breakers, lost.open_breakers, lost.buckets), (1, 1, 10));

    clock.advance(SECOND);
    asked.now_answers(Answers::Decision);
    check(&store, "after").unwrap();
    let regained = store.report();
    assert_eq!((regained.fallbacks, regained.open_breakers), (9, 0));
    assert_eq!(regained.failures, failures([("open", 3), ("other", 6)]));
}

/// A store that fails with the kinds of error that it is given.
struct Failing(Mutex<Vec<&'static str>>);

impl Store for Failing {
    type Check = Immediate;

    fn check(&self, _: Charge<'_>) -> Answer<Immediate> {
        let error = StoreError::new("as it was told to");
        Answer::Now(Err(self
            .0
            .lock()
            .unwrap()
            .pop()
            .map_or(error, |kind| StoreError::of_request("so").of_kind(kind))))
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match command {
            Command::Peek(charge) => self.check(charge).wait().await.map(Reply::Decisions),
            _ => Err(StoreError::new("as it was told to").of_kind(command.name())),
        }
    }
}

#[tokio::test]
async fn a_peek_that_is_answered_here_is_a_failure_and_no_decision_and_a_reset_is_its_callers() {
    let store = LocalFallback::new(Failing(Mutex::new(vec!["slow", "slow", "locked"])));
    let who = organization("o");
    check(&store, "o").unwrap();
    store.peek(bucket(&who)).await.unwrap();
    assert_eq!(store.reset(&who, Endpoint::CALL).await.unwrap_err().kind(), "reset");
    check(&store, "o").unwrap();
    check(&store, "o").unwrap();
    let report = store.report();
    assert_eq!(
        (report.fallbacks, report.failures),
        (3, failures([("locked", 1), ("other", 1), ("slow", 2)]))
    );
}

#[test]
fn no_failure_is_lost_however_many_kinds_and_threads_there_are() {
    let kinds: Vec<&'static str> = (0..100).map(|kind| &*format!("kind-{kind}").leak()).collect();
    let all = kinds.iter().cycle().take(4000).copied().collect();
    let store = LocalFallback::new(Failing(Mutex::new(all)));
    thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || check_all(store, &thread.to_string(), 1000));
        }
    });
    let report = store.report();
    assert_eq!((report.fallbacks, report.failures.values().sum::<u64>()), (4000, 4000));
    let counted = |(kind, count): (&&str, &u64)| *kind == "other" || *count == 40;
    assert!(report.failures.iter().all(counted), "{:?}", report.failures);
    assert!(report.failures.len() > 30, "{:?}", report.failures);
}

#[test]
fn reports_of_several_stores_add_up() {
    let (one, asked, _) = guarded(Answers::Failure);
    check_all(&one, "o", 7);
    asked.now_answers(Answers::Decision);
    let two = MemoryStore::new();
    check(&two, "o").unwrap();
    let mut sum = one.report();
    sum += two.report();
    sum += one.report();
    assert_eq!((sum.buckets, sum.max_buckets, sum.fallbacks), (15, Some(200), 14));
    assert_eq!(sum.failures, failures([("open", 4), ("other", 10)]));
    assert_eq!((sum.breakers, sum.open_breakers), (2, 2));
}

#[test]
fn every_subscriber_is_told_when_a_store_is_lost_and_regained() {
    let (store, asked, clock) = guarded(Answers::Failure);
    let ears = [Ear::at(&store), Ear::at(&store)];
    check_all(&store, "before", 4);
    assert!(ears.iter().all(|ear| ear.told().is_empty()));
    check_all(&store, "lost", 10);
    assert!(ears.iter().all(|ear| ear.told() == [lost("other", REASON)]));
    clock.advance(SECOND);
    asked.now_answers(Answers::Decision);
    check(&store, "p").unwrap();
    assert!(ears.iter().all(|ear| ear.told() == [REGAINED]));
    // They get the events of the local store's cap too.
    check_all(&store, "after", 101);
    assert!(ears.iter().all(|ear| ear.told() == [StoreEvent::CapReached { max_buckets: 100 }]));
}

#[test]
fn whoever_subscribes_while_a_store_is_lost_is_told_so_at_once_and_why_now() {
    let clock = ManualClock::default();
    let store = Breaker::with_clock(DeferredStore::that(Answers::Failure, &clock), clock.clone());
    store.open();
    let early = Ear::at(&store);
    assert_eq!(early.told(), [lost("by_hand", "its circuit breaker was opened by hand")]);
    clock.advance(SECOND);
    check(&store, "o").unwrap_err();
    assert_eq!(early.told(), [], "a trial that fails is no change");
    assert_eq!(Ear::at(&store).told(), [lost("other", REASON)]);
    store.close();
    assert_eq!(early.told(), [REGAINED]);
    assert_eq!(Ear::at(&store).told(), []);
}

#[test]
fn a_listener_that_panics_harms_neither_the_request_nor_other_listeners() {
    let clock = ManualClock::default();
    let panicking = |_: &StoreEvent| panic!("as `eprintln!` does when standard error is closed");
    let store = MemoryStore::with_clock(clock).max_buckets(1);
    store.subscribe(StoreListener::new(panicking));
    store.subscribe(StoreListener::new(|_| panic!("so does this one")));
    let ear = Ear::at(&store);
    for who in 0..10 {
        check(&store, &who.to_string()).unwrap();
    }
    assert_eq!(ear.told(), [StoreEvent::CapReached { max_buckets: 1 }]);
    store.subscribe(StoreListener::new(panicking));
    let breaker = Breaker::new(store);
    breaker.subscribe(StoreListener::new(|_| panic!("and this one")));
    breaker.open();
    let ear = Ear::at(&breaker);
    breaker.close();
    assert_eq!(ear.told().last(), Some(&REGAINED));
}

#[test]
fn a_listener_may_change_the_store_and_subscribe_to_it_and_all_is_told_in_its_order() {
    let store = Arc::new(Breaker::new(MemoryStore::new()));
    let (ear, late) = (Ear::default(), Ear::default());
    let meddler = {
        let (store, late, first) = (Arc::downgrade(&store), late.clone(), AtomicBool::new(true));
        StoreListener::new(move |event| {
            let store = store.upgrade().unwrap();
            if first.swap(false, Ordering::Relaxed) {
                assert!(matches!(event, StoreEvent::Lost { .. }));
                store.close();
                store.subscribe(late.listener());
                store.open();
                store.close();
            }
        })
    };
    store.subscribe(meddler);
    store.subscribe(ear.listener());
    store.open();
    store.close();
    let by_hand = lost("by_hand", "its circuit breaker was opened by hand");
    let once = [by_hand, REGAINED];
    assert_eq!(ear.told(), [once.clone(), once.clone()].concat());
    assert_eq!(late.told(), once);
}

#[test]
fn what_threads_find_out_at_the_same_time_is_told_in_its_order() {
    let store = Breaker::new(MemoryStore::new());
    let ear = Ear::at(&store);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    store.open();
                    store.close();
                }
            });
        }
    });
    let told = ear.told();
    let (lost, regained): (Vec<_>, Vec<_>) =
        told.chunks(2).map(|pair| (&pair[0], &pair[1])).unzip();
    assert!(lost.iter().all(|event| matches!(event, StoreEvent::Lost { .. })));
    assert!(regained.iter().all(|event| **event == REGAINED));
}

#[test]
fn listeners_go_with_the_store() {
    let (store, _, _) = guarded(Answers::Decision);
    let owned = Arc::new(());
    let kept: Weak<()> = Arc::downgrade(&owned);
    store.subscribe(StoreListener::new(move |_| drop(Arc::clone(&owned))));
    assert!(kept.upgrade().is_some());
    drop(store);
    assert!(kept.upgrade().is_none());
}

#[test]
fn an_event_is_one_line() {
    let server = Some("10.0.0.7:6379".into());
    let reason: Arc<str> = "it answered with an error:\r\nERR no".into();
    let lines = [
        StoreEvent::Lost {
            server: server.clone(),
            kind: "server_error",
            reason: Arc::clone(&reason),
        },
        StoreEvent::StillLost { server: server.clone(), kind: "server_error", reason },
        StoreEvent::Regained { server },
        lost("other", REASON),
        REGAINED,
        StoreEvent::CapReached { max_buckets: 7 },
        StoreEvent::CapRelieved { max_buckets: 7 },
    ]
    .map(|event| event.to_string());
    assert_eq!(
        lines,
        [
            "the rate limiter can't count on 10.0.0.7:6379: it answered with an error: ERR no",
            "the rate limiter still can't count on 10.0.0.7:6379: it answered with an error: ERR \
             no",
            "the rate limiter counts on 10.0.0.7:6379",
            "the rate limiter can't count on its store: connection refused: nothing listens",
            "the rate limiter counts on its store",
            "the rate limiter has reached its cap of 7 buckets: new callers share buckets",
            "the rate limiter has a tenth of its cap of 7 buckets free again",
        ]
    );
}
