//! The store under the orders in which threads can take their steps, with at most three preemptions
//! of one thread by another: `scripts/loom`.
//!
//! Loom replaces the shards' locks, their versions and flags, the cells of buckets, the count that
//! the cap compares and the lock of the shared buckets. Trusted and not replaced are hashbrown's
//! tables, which are only used under a lock; governor's cell, for which a cell with the same
//! contract stands; the counters of reports and the hand of the sweeps, which nothing depends on;
//! and the delivery of events.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::MemoryStore;
use crate::store::{Bucket, Charge, ChargeOutcome, Command, Entry, Reply};
use crate::values::clock::Clock;
use crate::values::{Decisions, Endpoint, Principal, Quota};

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::from_secs(1_000_000)
    }
}

type Stored = Arc<MemoryStore<Still>>;

fn store(most: usize) -> Stored {
    let store = MemoryStore::with_cap(Still, most);
    // No sweep is due, so that only the tests' own sweeps run.
    store.swept.store(super::nanos(Still.now()), std::sync::atomic::Ordering::Relaxed);
    Arc::new(store)
}

fn principal(id: &str) -> Principal {
    Principal::organization(id).expect("the id is not empty")
}

fn entry(endpoint: Endpoint, burst: u32) -> Entry {
    Entry::new(endpoint, Quota::per_minute(60).burst(burst).build().expect("the quota is valid"))
}

fn check(store: &Stored, id: &str, entries: &[Entry]) -> Decisions {
    store.charge(Charge::new(&principal(id), entries).expect("the charge is valid"))
}

fn peek(store: &Stored, id: &str, entries: &[Entry]) -> Decisions {
    let principal = principal(id);
    let charge = Charge::new(&principal, entries).expect("the charge is valid");
    match store.carry_out(Command::Peek(charge)) {
        Ok(Reply::Decisions(decisions)) => decisions,
        other => panic!("{other:?}"),
    }
}

fn admitted(decisions: &Decisions) -> usize {
    usize::from(decisions.outcome().is_admitted())
}

/// Runs `test` for every order of steps. With more than three preemptions of one thread by another
/// there would be too many orders.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn a_unit_is_given_once_whether_the_bucket_is_new_or_not() {
    for exists in [false, true] {
        model(move || {
            let (store, units) = (store(usize::MAX), if exists { 2 } else { 1 });
            let one = [entry(Endpoint::CALL, units)];
            if exists {
                assert_eq!(admitted(&check(&store, "o", &one)), 1);
            }
            let other = {
                let store = Arc::clone(&store);
                thread::spawn(move || admitted(&check(&store, "o", &one)))
            };
            let mine = admitted(&check(&store, "o", &one));
            assert_eq!(mine + other.join().unwrap(), 1);
            assert_eq!(store.len(), 1);
        });
    }
}

#[test]
fn charges_that_overlap_in_a_bucket_are_each_all_or_nothing() {
    model(|| {
        let store = store(usize::MAX);
        let [a, b, c] = [Endpoint::CALL, Endpoint::AGENT, Endpoint::EXECUTIONS]
            .map(|endpoint| entry(endpoint, 2));
        // One unit is left in the bucket that both need.
        assert_eq!(admitted(&check(&store, "o", &[b])), 1);
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || check(&store, "o", &[a, b]).outcome())
        };
        let mine = check(&store, "o", &[b, c]).outcome();
        let other = other.join().unwrap();
        let left = |entry| peek(&store, "o", &[entry]).first().remaining();
        match (mine, other) {
            (ChargeOutcome::Admitted, ChargeOutcome::Refused) => {
                assert_eq!((left(a), left(b), left(c)), (2, 0, 1));
            }
            (ChargeOutcome::Refused, ChargeOutcome::Admitted) => {
                assert_eq!((left(a), left(b), left(c)), (1, 0, 2));
            }
            both => panic!("{both:?}"),
        }
    });
}

#[test]
fn a_charge_of_one_bucket_and_one_of_two_do_not_both_get_the_last_unit() {
    model(|| {
        let store = store(usize::MAX);
        let [a, b] = [Endpoint::CALL, Endpoint::AGENT].map(|endpoint| entry(endpoint, 2));
        assert_eq!(admitted(&check(&store, "o", &[a])), 1);
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || admitted(&check(&store, "o", &[a])))
        };
        let mine = admitted(&check(&store, "o", &[a, b]));
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!(peek(&store, "o", &[b]).first().remaining(), 2 - u32::from(mine == 1));
    });
}

#[test]
fn a_sweep_drops_no_bucket_that_owes() {
    model(|| {
        let store = store(usize::MAX);
        let one = [entry(Endpoint::CALL, 2)];
        let sweeps = {
            let store = Arc::clone(&store);
            thread::spawn(move || store.sweep(0, store.now()))
        };
        assert_eq!(admitted(&check(&store, "o", &one)), 1);
        sweeps.join().unwrap();
        assert_eq!(peek(&store, "o", &one).first().remaining(), 1);
        assert_eq!(store.len(), 1);
    });
}

#[test]
fn new_callers_at_the_cap_share_one_bucket() {
    model(|| {
        let store = store(1);
        let one = [entry(Endpoint::CALL, 1)];
        assert_eq!(admitted(&check(&store, "first", &one)), 1);
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || admitted(&check(&store, "second", &one)))
        };
        let mine = admitted(&check(&store, "third", &one));
        assert_eq!(mine + other.join().unwrap(), 1, "the shared bucket has one unit");
        assert_eq!((store.len(), store.table.cap.decided()), (1, 2));
    });
}

#[test]
fn the_last_place_under_the_cap_is_given_once() {
    model(|| {
        let store = store(1);
        let one = [entry(Endpoint::CALL, 1)];
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || admitted(&check(&store, "second", &one)))
        };
        let mine = admitted(&check(&store, "first", &one));
        assert_eq!(mine + other.join().unwrap(), 2, "a bucket of its own, and the shared one");
        assert_eq!((store.len(), store.table.cap.decided()), (1, 1));
    });
}

#[test]
fn a_reset_is_seen_by_a_thread_that_remembers_a_refusal() {
    model(|| {
        let store = store(usize::MAX);
        let one = [entry(Endpoint::CALL, 1)];
        assert_eq!(admitted(&check(&store, "o", &one)), 1);
        let resets = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                let caller = principal("o");
                let bucket = Bucket::of_account(&caller, Endpoint::CALL);
                store.carry_out(Command::Reset(bucket)).unwrap();
            })
        };
        // The second refusal is remembered. A check that is admitted drains the bucket again.
        let before = (0..2).map(|_| admitted(&check(&store, "o", &one))).sum::<usize>();
        resets.join().unwrap();
        assert_eq!(before + admitted(&check(&store, "o", &one)), 1);
    });
}

#[test]
fn a_wait_is_exact_though_another_quota_is_at_work_on_the_bucket() {
    model(|| {
        let store = store(usize::MAX);
        // Both are full after a minute. The slow one admits only if the bucket is full.
        let slow = Quota::per_minute(1).build().expect("the quota is valid");
        let (slow, fast) = ([Entry::new(Endpoint::CALL, slow)], [entry(Endpoint::CALL, 60)]);
        assert_eq!(admitted(&check(&store, "o", &fast)), 1);
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || admitted(&check(&store, "o", &fast)))
        };
        for _ in 0..2 {
            assert_eq!(admitted(&check(&store, "o", &slow)), 0);
        }
        assert_eq!(other.join().unwrap(), 1);
        let told = check(&store, "o", &slow).first().retry_after();
        assert_eq!(told, Some(Duration::from_secs(2)));
        assert_eq!(told, peek(&store, "o", &slow).first().retry_after());
    });
}
