//! Refunds and settlements that are submitted, without waiting for the reply.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bolna_rate_limit::store::{
    self, Answer, AnyStore, Breaker, Capabilities, Charge, Command, DenialCache, Entry, Immediate,
    LocalFallback, MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Decision, Endpoint, Principal, Quota};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use crate::bucket::{Bucket, OneBucket};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{now, organization};

/// How a store of a user answers commands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Commands {
    AtOnce,
    Later,
    Fail,
    Panic,
}

/// A store of a user: it has no `submit` of its own.
#[derive(Debug)]
struct Own(MemoryStore<ManualClock>, Commands);

impl Own {
    fn that_answers(commands: Commands) -> Arc<Self> {
        Arc::new(Self(MemoryStore::with_clock(ManualClock::new()), commands))
    }
}

impl Store for Own {
    type Check = Immediate;

    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        self.0.check(charge)
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match self.1 {
            Commands::AtOnce => {}
            Commands::Later => pending().await,
            Commands::Fail => return Err(StoreError::new("connection refused").of_kind("refused")),
            Commands::Panic => panic!("there is no reactor running"),
        }
        self.0.command(command).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

fn quota() -> Quota {
    Quota::per_minute(500).burst(10).build().unwrap()
}

fn decide<St: Store>(store: &St, principal: &Principal) -> Decision {
    now(store.check_one(Bucket::new(principal, Endpoint::CALL, quota()))).unwrap()
}

fn refund<St: Store>(store: &St, principal: &Principal, units: u32) -> Result<(), StoreError> {
    let entry = Entry::new(Endpoint::CALL, quota()).with_cost(units).unwrap();
    store.submit(Command::Refund(Charge::of_one(principal, &entry)))
}

fn settle<St: Store>(store: &St, principal: &Principal, units: u32) -> Result<(), StoreError> {
    let entry = Entry::new(Endpoint::CALL, quota()).with_cost(units).unwrap();
    store.submit(Command::Settle(Charge::of_one(principal, &entry)))
}

/// Charges 3 of 10 units, gives 2 back, and uses 4 more.
fn corrects<St: Store>(store: &St) {
    let caller = organization("o");
    for _ in 0..3 {
        assert!(decide(store, &caller).is_allowed());
    }
    refund(store, &caller, 2).unwrap();
    settle(store, &caller, 4).unwrap();
    assert_eq!(decide(store, &caller).remaining(), 4);
}

#[test]
fn a_store_that_answers_at_once_has_carried_out_what_was_submitted() {
    corrects(&MemoryStore::with_clock(ManualClock::new()));
    corrects(&Own::that_answers(Commands::AtOnce));
    corrects(&AnyStore::new(Own::that_answers(Commands::AtOnce)));
    corrects(&Breaker::new(MemoryStore::with_clock(ManualClock::new())));
    corrects(&DenialCache::new(MemoryStore::with_clock(ManualClock::new())));
}

#[test]
fn a_correction_may_overdraw_but_is_never_more_than_the_bucket_takes() {
    let (store, caller) = (MemoryStore::with_clock(ManualClock::new()), organization("o"));
    refund(&store, &caller, 10).unwrap();
    assert_eq!(decide(&store, &caller).remaining(), 9, "a full bucket takes no refund");
    for _ in 0..3 {
        settle(&store, &caller, 10).unwrap();
    }
    // Drained, and overdrawn by one burst: 10 units have to come back before the next one.
    assert_eq!(decide(&store, &caller).retry_after(), Some(Duration::from_millis(11 * 120)));
}

#[test]
fn a_store_that_answers_later_must_implement_submit() {
    let store = AnyStore::new(Own::that_answers(Commands::Later));
    let error = refund(&store, &organization("o"), 2).unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("unsupported", false));
    let text = "the store did not answer the command refund immediately, so the command was \
                dropped: implement `Store::submit`, for example with a queue that a task works off";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_store_that_fails_or_panics_returns_an_error() {
    let caller = organization("o");
    let store = Own::that_answers(Commands::Fail);
    let error = settle(&store, &caller, 2).unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("refused", true));
    let store = Own::that_answers(Commands::Panic);
    let error = settle(&store, &caller, 2).unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("other", true));
}

#[test]
fn an_open_breaker_takes_no_command_and_submitted_ones_do_not_open_it() {
    let caller = organization("o");
    let breaker = Breaker::new(Own::that_answers(Commands::Fail));
    for _ in 0..100 {
        refund(&breaker, &caller, 1).unwrap_err();
    }
    assert!(!breaker.is_open());
    let breaker = Breaker::new(MemoryStore::with_clock(ManualClock::new()));
    decide(&breaker, &caller);
    breaker.open();
    assert_eq!(refund(&breaker, &caller, 1).unwrap_err().kind(), "open");
    breaker.close();
    assert_eq!(decide(&breaker, &caller).remaining(), 8, "the unit was not given back");
}

#[test]
fn a_refused_caller_is_not_refused_from_memory_after_a_refund() {
    let clock = ManualClock::new();
    let store = DenialCache::with_clock(
        DeferredStore::before(Arc::new(MemoryStore::with_clock(clock.clone()))),
        clock,
    );
    store.store().now_answers(Answers::Decision);
    let caller = organization("o");
    while decide(&store, &caller).is_allowed() {}
    assert_eq!(store.report().remembered_denials, 1);
    refund(&store, &caller, 1).unwrap();
    assert!(decide(&store, &caller).is_allowed());
}

type Replica = LocalFallback<Arc<DeferredStore>, ManualClock>;

/// One of that many replicas, which remembers what it owes for at most `owed` buckets.
fn replica(replicas: u32, owed: usize) -> Replica {
    let clock = ManualClock::new();
    let store = DeferredStore::that(Answers::Decision, &clock);
    let replica = LocalFallback::with_local(store, MemoryStore::with_clock(clock));
    replica.expected_replicas(replicas).max_owed(owed)
}

/// The units that the store has left.
fn left_in<St: Store>(store: &St) -> u32 {
    now(store.peek(Bucket::new(&organization("o"), Endpoint::CALL, quota()))).unwrap().remaining()
}

#[test]
fn a_refund_of_what_the_fallback_admitted_needs_no_store() {
    let (replica, caller) = (replica(1, 10), organization("o"));
    replica.store().now_answers(Answers::Failure);
    for _ in 0..3 {
        decide(&replica, &caller);
    }
    refund(&replica, &caller, 2).unwrap();
    assert_eq!((left_in(replica.local()), replica.report().owed), (9, 1));
    replica.store().now_answers(Answers::Decision);
    now(replica.charge_back()).unwrap();
    assert_eq!(left_in(replica.store()), 9);
    // What was charged back is the store's to give back.
    refund(&replica, &caller, 1).unwrap();
    assert_eq!(left_in(replica.store()), 10);
}

#[test]
fn only_what_is_not_owed_is_submitted_to_the_store() {
    let (replica, caller) = (replica(1, 10), organization("o"));
    for _ in 0..3 {
        decide(&replica, &caller);
    }
    replica.store().now_answers(Answers::Failure);
    decide(&replica, &caller);
    // One is owed. The store was charged for the other two, and can't be reached.
    refund(&replica, &caller, 3).unwrap_err();
    assert_eq!((left_in(replica.local()), replica.report().owed), (9, 0));
    replica.store().now_answers(Answers::Decision);
    now(replica.charge_back()).unwrap();
    assert_eq!(left_in(replica.store()), 7, "what was lost is not given back");
    replica.store().now_answers(Answers::Failure);
    decide(&replica, &caller);
    replica.store().now_answers(Answers::Decision);
    // One is owed, and two are given back by the store.
    refund(&replica, &caller, 3).unwrap();
    assert_eq!((left_in(replica.store()), replica.report().owed), (9, 0));
}

#[test]
fn a_refund_while_the_charge_back_is_in_flight_is_given_once() {
    /// Answers commands a moment later, and takes what is submitted at once.
    struct Slow(Arc<DeferredStore>);
    impl Store for Slow {
        type Check = <DeferredStore as Store>::Check;
        fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
            self.0.check(charge)
        }
        async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
            tokio::task::yield_now().await;
            self.0.command(command).await
        }
        fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
            self.0.submit(command)
        }
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
    }
    for is_carried_out in [true, false] {
        let (clock, caller) = (ManualClock::new(), organization("o"));
        let store = DeferredStore::that(Answers::Failure, &clock);
        let local = MemoryStore::with_clock(clock);
        let replica = LocalFallback::with_local(Slow(Arc::clone(&store)), local).max_owed(10);
        for _ in 0..3 {
            decide(&replica, &caller);
        }
        store.now_answers(Answers::Decision);
        // Another replica has spent some.
        for _ in 0..5 {
            decide(&store, &caller);
        }
        let mut charging = spawn(replica.charge_back());
        assert_pending!(charging.poll());
        refund(&replica, &caller, 2).unwrap();
        if is_carried_out {
            assert_ready!(charging.poll()).unwrap();
        } else {
            drop(charging);
            let mut charging = spawn(replica.charge_back());
            assert_pending!(charging.poll());
            assert_ready!(charging.poll()).unwrap();
        }
        assert_eq!((left_in(&store), replica.report().owed), (4, 0));
    }
}

#[test]
fn a_settlement_while_the_store_is_lost_is_owed_and_holds_in_this_process() {
    let (replica, caller) = (replica(2, 1), organization("o"));
    replica.store().now_answers(Answers::Failure);
    settle(&replica, &caller, 3).unwrap();
    // Of the 5 units of this replica's share it has used 3.
    assert_eq!(decide(&replica, &caller).remaining(), 1);
    // There is no room to remember what another caller owes. It is charged in this process.
    let other = organization("another");
    assert!(settle(&replica, &other, 3).unwrap_err().is_of_store());
    let share = Quota::per(500, Duration::from_secs(120)).burst(5).build().unwrap();
    let left = now(replica.local().peek(Bucket::new(&other, Endpoint::CALL, share))).unwrap();
    assert_eq!(left.remaining(), 2);
    replica.store().now_answers(Answers::Decision);
    now(replica.charge_back()).unwrap();
    assert_eq!((left_in(replica.store()), replica.report().owed), (6, 0));
}

#[test]
fn a_settlement_that_the_store_takes_holds_in_this_process_when_the_store_is_lost() {
    let (replica, caller) = (replica(2, 10), organization("o"));
    settle(&replica, &caller, 8).unwrap();
    assert_eq!((left_in(replica.store()), replica.report().owed), (2, 0));
    replica.store().now_answers(Answers::Failure);
    // The store has 2 units left, of which one is this replica's.
    assert!(decide(&replica, &caller).is_allowed());
    assert!(!decide(&replica, &caller).is_allowed());
}

#[test]
fn a_settlement_of_a_store_without_submit_is_lost_and_not_charged_back() {
    let (clock, caller) = (ManualClock::new(), organization("o"));
    let store = Own::that_answers(Commands::Later);
    let replica = LocalFallback::with_local(Arc::clone(&store), MemoryStore::with_clock(clock));
    let replica = replica.max_owed(10);
    // The store may have carried it out at the first poll.
    assert_eq!(settle(&replica, &caller, 3).unwrap_err().kind(), "unsupported");
    assert_eq!(refund(&replica, &caller, 4).unwrap_err().kind(), "unsupported");
    assert_eq!(replica.report().owed, 0);
}

#[test]
fn a_settlement_by_command_holds_in_this_process_too() {
    let (replica, caller) = (replica(2, 10), organization("o"));
    let entry = Entry::new(Endpoint::CALL, quota()).with_cost(3).unwrap();
    let command = || Command::Settle(Charge::of_one(&caller, &entry));
    now(replica.command(command())).unwrap();
    assert_eq!(left_in(replica.store()), 7);
    replica.store().now_answers(Answers::Failure);
    // It can be tried again, so it is not owed.
    now(replica.command(command())).unwrap_err();
    assert_eq!(replica.report().owed, 0);
    // The share is 5 units of 240 ms, of which 3 of 120 ms and 3 of its own are used.
    let wait = Duration::from_millis(3 * 120 + 3 * 240 + 240 - 5 * 240);
    assert_eq!(decide(&replica, &caller).retry_after(), (!wait.is_zero()).then_some(wait));
}

#[test]
fn other_commands_can_be_submitted_too() {
    let (replica, caller) = (replica(1, 10), organization("o"));
    let bucket = store::Bucket::of_account(&caller, Endpoint::CALL);
    replica.store().now_answers(Answers::Failure);
    decide(&replica, &caller);
    replica.submit(Command::block(bucket, Duration::from_secs(60))).unwrap_err();
    assert!(decide(&replica, &caller).is_blocked());
    replica.submit(Command::Reset(bucket)).unwrap_err();
    assert_eq!((decide(&replica, &caller).remaining(), replica.report().owed), (9, 1));
}
