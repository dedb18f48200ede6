//! Corrections that are submitted: refunds and settlements for which nobody waits.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::store::{
    Answer, AnyStore, Breaker, Capabilities, Charge, Command, DenialCache, Entry, Immediate,
    MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::{Decision, Endpoint, Principal, Quota};

use crate::bucket::{Bucket, OneBucket};
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
fn a_store_that_answers_later_has_to_take_what_is_submitted_itself() {
    let store = AnyStore::new(Own::that_answers(Commands::Later));
    let error = refund(&store, &organization("o"), 2).unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("unsupported", false));
    let text = "the store does not answer the command refund at once, so it was dropped: implement \
                `Store::submit`, which hands the command to a task";
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
fn an_open_breaker_takes_nothing_and_what_is_submitted_does_not_open_it() {
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
        crate::deferred::DeferredStore::before(Arc::new(MemoryStore::with_clock(clock.clone()))),
        clock,
    );
    store.store().now_answers(crate::deferred::Answers::Decision);
    let caller = organization("o");
    while decide(&store, &caller).is_allowed() {}
    assert_eq!(store.report().remembered_denials, 1);
    refund(&store, &caller, 1).unwrap();
    assert!(decide(&store, &caller).is_allowed());
}
