//! What becomes of charges of several buckets: the vectors in `tests/vectors/charges.json`, and the
//! wait that a refusal names.

use std::time::Duration;

use bolna_rate_limit::store::{
    AnyStore, Bucket, BucketState, Charge, Command, Decisions, Entry, MemoryStore, Store,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Endpoint, Principal, Quota};
use proptest::prelude::*;

use crate::read::charges::{Case, Step, charges, endpoint, entries};
use crate::support::{now, organization};

fn check(store: &impl Store, charge: Charge<'_>) -> Decisions {
    store.check(charge).now().unwrap().unwrap()
}

fn peek(store: &impl Store, charge: Charge<'_>) -> Decisions {
    now(store.command(Command::Peek(charge))).unwrap().into_decisions().unwrap()
}

fn run(case: &Case, store: &impl Store, clock: &ManualClock, caller: &Principal) {
    let mut quotas = case.quotas.clone();
    for (index, step) in case.steps.iter().enumerate() {
        let what = format!("{}, step {index}", case.says);
        if let Some(at) = step.at {
            clock.set(Duration::from_millis(at));
        }
        let (kind, parts) = match step {
            Step { charge: Some(parts), .. } => ("charge", parts),
            Step { peek: Some(parts), .. } => ("peek", parts),
            Step { refund: Some(parts), .. } => ("refund", parts),
            Step { settle: Some(parts), .. } => ("settle", parts),
            Step { reset: Some(name), .. } => {
                let bucket = Bucket::of_account(caller, endpoint(name));
                now(store.command(Command::Reset(bucket))).unwrap();
                continue;
            }
            Step { block: Some(name), ms: Some(ms), .. } => {
                let bucket = Bucket::of_account(caller, endpoint(name));
                let period = Duration::from_millis(*ms);
                now(store.command(Command::block(bucket, period))).unwrap();
                continue;
            }
            Step { quotas: Some(changed), .. } => {
                quotas.extend(changed.clone());
                continue;
            }
            _ => panic!("{what}: unknown"),
        };
        let entries = entries(parts, &quotas);
        let charge = entries.as_ref().map_err(|error| *error).and_then(|entries| {
            let charge = Charge::new(caller, entries)?;
            Ok(charge)
        });
        match (charge, &step.error) {
            (Err(error), Some(text)) => {
                assert!(error.to_string().contains(text), "{what}: {error}");
            }
            (Ok(charge), None) => match kind {
                "charge" => {
                    let peeked = peek(store, charge);
                    let decisions = check(store, charge);
                    assert_eq!(
                        peeked.outcome(),
                        decisions.outcome(),
                        "{what}: a peek foretells it"
                    );
                    step.assert_says(&decisions, &what);
                }
                "peek" => step.assert_says(&peek(store, charge), &what),
                "refund" => {
                    now(store.command(Command::Refund(charge))).unwrap();
                }
                _ => {
                    now(store.command(Command::Settle(charge))).unwrap();
                }
            },
            (charge, error) => panic!("{what}: {charge:?}, {error:?}"),
        }
    }
}

#[test]
fn every_sentence_about_charges_holds() {
    for case in &charges() {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        run(case, &store, &clock, &organization("o"));
        let clock = ManualClock::new();
        let store = AnyStore::from(MemoryStore::with_clock(clock.clone()));
        run(case, &store, &clock, &Principal::user("u").unwrap());
    }
}

/// What several callers of one bucket do, one after the other.
#[derive(Clone, Debug)]
enum Move {
    Check {
        thread: bool,
        quota: usize,
        cost: u32,
    },
    Refund {
        quota: usize,
        cost: u32,
    },
    Settle {
        quota: usize,
        cost: u32,
    },
    Reset,
    Block(u64),
    Wait(u64),
    /// The clock goes back.
    Back(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let quota = || 0..QUOTAS.len();
    let cost = || prop_oneof![4 => Just(1), 1 => 1..5_u32];
    let one = prop_oneof![
        12 => (any::<bool>(), quota(), cost())
            .prop_map(|(thread, quota, cost)| Move::Check { thread, quota, cost }),
        1 => (quota(), cost()).prop_map(|(quota, cost)| Move::Refund { quota, cost }),
        1 => (quota(), cost()).prop_map(|(quota, cost)| Move::Settle { quota, cost }),
        1 => Just(Move::Reset),
        1 => (0..5_000_u64).prop_map(Move::Block),
        6 => prop_oneof![Just(0), 0..2_000_u64].prop_map(Move::Wait),
        1 => (0..4_000_u64).prop_map(Move::Back),
    ];
    prop::collection::vec(one, 1..120)
}

/// Limit, period in milliseconds and burst.
const QUOTAS: [(u32, u64, u32); 5] =
    [(1, 60_000, 1), (60, 60_000, 60), (1, 1_000, 1), (1_000, 1_000, 5), (4, 3_000, 4)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever quotas, costs, blocks, refunds and clocks have been at work on the bucket, and
    /// whichever thread asks. A second thread refuses from what it remembers.
    #[test]
    fn a_wait_that_is_named_suffices_and_a_peek_says_the_same(moves in moves()) {
        let clock = ManualClock::new();
        clock.set(Duration::from_secs(100));
        let store = MemoryStore::with_clock(clock.clone());
        let caller = organization("o");
        let entry = |quota: usize, cost: u32| {
            let (limit, period, burst) = QUOTAS[quota];
            let quota = Quota::per(limit, Duration::from_millis(period)).burst(burst);
            let quota = quota.build().unwrap();
            Entry::new(Endpoint::CALL, quota).with_cost(cost.min(burst)).unwrap()
        };
        let mut time = Duration::from_secs(100);
        std::thread::scope(|scope| {
            let (questions, asked) = std::sync::mpsc::channel::<Entry>();
            let (answers, answered) = std::sync::mpsc::channel();
            let (store, caller) = (&store, &caller);
            scope.spawn(move || {
                for entry in asked {
                    answers.send(check(store, Charge::of_one(caller, &entry))).unwrap();
                }
            });
            for step in moves {
                match step {
                    Move::Check { thread, quota, cost } => {
                        let entry = entry(quota, cost);
                        let charge = Charge::of_one(caller, &entry);
                        let peeked = peek(store, charge);
                        let decided = if thread {
                            questions.send(entry).unwrap();
                            answered.recv().unwrap()
                        } else {
                            check(store, charge)
                        };
                        let (peeked, decided) = (peeked.first(), decided.first());
                        prop_assert_eq!(peeked.is_allowed(), decided.is_allowed());
                        prop_assert_eq!(peeked.is_blocked(), decided.is_blocked());
                        prop_assert_eq!(peeked.retry_after(), decided.retry_after());
                        if let Some(wait) = decided.retry_after() {
                            clock.set(time + wait - Duration::from_nanos(1));
                            prop_assert!(!peek(store, charge).first().is_allowed(), "1 ns sooner");
                            clock.set(time + wait);
                            prop_assert!(peek(store, charge).first().is_allowed());
                            clock.set(time);
                        }
                    }
                    Move::Refund { quota, cost } => {
                        let entry = entry(quota, cost);
                        let refund = Command::Refund(Charge::of_one(caller, &entry));
                        now(store.command(refund)).unwrap();
                    }
                    Move::Settle { quota, cost } => {
                        let entry = entry(quota, cost);
                        let settle = Command::Settle(Charge::of_one(caller, &entry));
                        now(store.command(settle)).unwrap();
                    }
                    Move::Reset => {
                        let bucket = Bucket::of_account(caller, Endpoint::CALL);
                        now(store.command(Command::Reset(bucket))).unwrap();
                    }
                    Move::Block(ms) => {
                        let bucket = Bucket::of_account(caller, Endpoint::CALL);
                        let period = Duration::from_millis(ms);
                        now(store.command(Command::block(bucket, period))).unwrap();
                    }
                    Move::Wait(ms) => {
                        time += Duration::from_millis(ms);
                        clock.set(time);
                    }
                    Move::Back(ms) => {
                        time -= Duration::from_millis(ms).min(time - Duration::from_secs(1));
                        clock.set(time);
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// What is done to three buckets of one principal, each with a quota and a cost of its own.
#[derive(Clone, Debug)]
enum Act {
    Check(Vec<(usize, u32, bool)>),
    Refund(Vec<(usize, u32, bool)>),
    Settle(Vec<(usize, u32, bool)>),
    Reset(usize),
    Block(usize, u64),
    Wait(u64),
    Shrink,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let parts = || {
        let part = (0..QUOTAS.len(), 1..5_u32, prop::bool::weighted(0.7));
        prop::collection::vec(part, 1..=3)
    };
    let one = prop_oneof![
        10 => parts().prop_map(Act::Check),
        1 => parts().prop_map(Act::Refund),
        1 => parts().prop_map(Act::Settle),
        1 => (0..3_usize).prop_map(Act::Reset),
        1 => (0..3_usize, 0..5_000_u64).prop_map(|(which, ms)| Act::Block(which, ms)),
        6 => (0..2_000_u64).prop_map(Act::Wait),
        1 => Just(Act::Shrink),
    ];
    prop::collection::vec(one, 1..80)
}

fn later(state: BucketState, time: Duration) -> BucketState {
    BucketState::default()
        .full_after(state.until_full().saturating_sub(time))
        .overdrawn(state.overdraft().saturating_sub(time))
        .blocked_for(state.blocked().saturating_sub(time))
}

proptest! {
    #[test]
    fn the_store_in_this_process_decides_by_the_law(acts in acts()) {
        let clock = ManualClock::new();
        clock.set(Duration::from_secs(100));
        let store = MemoryStore::with_clock(clock.clone());
        let caller = organization("o");
        let endpoints = [Endpoint::CALL, Endpoint::AGENT, Endpoint::DEFAULT];
        let mut states = [BucketState::default(); 3];
        let entries = |parts: &[(usize, u32, bool)]| -> Vec<_> {
            let entry = |((quota, cost, binding), endpoint): (&(usize, u32, bool), Endpoint)| {
                let (limit, period, burst) = QUOTAS[*quota];
                let quota = Quota::per(limit, Duration::from_millis(period)).burst(burst);
                let entry = Entry::new(endpoint, quota.build().unwrap());
                let entry = entry.with_cost((*cost).min(burst)).unwrap();
                if *binding { entry } else { entry.shadow() }
            };
            parts.iter().zip(endpoints).map(entry).collect()
        };
        for act in acts {
            match act {
                Act::Check(parts) => {
                    let entries = entries(&parts);
                    let charge = Charge::new(&caller, &entries).unwrap();
                    let foretold = charge.peek(&mut states[..parts.len()].to_vec());
                    prop_assert_eq!(peek(&store, charge), foretold);
                    let wanted = charge.apply(&mut states[..parts.len()]);
                    prop_assert_eq!(check(&store, charge), wanted);
                }
                Act::Refund(parts) => {
                    let entries = entries(&parts);
                    let charge = Charge::new(&caller, &entries).unwrap();
                    charge.refund(&mut states[..parts.len()]);
                    now(store.command(Command::Refund(charge))).unwrap();
                }
                Act::Settle(parts) => {
                    let entries = entries(&parts);
                    let charge = Charge::new(&caller, &entries).unwrap();
                    charge.settle(&mut states[..parts.len()]);
                    now(store.command(Command::Settle(charge))).unwrap();
                }
                Act::Reset(which) => {
                    states[which] = BucketState::default();
                    let bucket = Bucket::of_account(&caller, endpoints[which]);
                    now(store.command(Command::Reset(bucket))).unwrap();
                }
                Act::Block(which, ms) => {
                    let period = Duration::from_millis(ms);
                    states[which] = states[which].blocked_for(period);
                    let bucket = Bucket::of_account(&caller, endpoints[which]);
                    now(store.command(Command::block(bucket, period))).unwrap();
                }
                Act::Wait(ms) => {
                    let time = Duration::from_millis(ms);
                    clock.advance(time);
                    states = states.map(|state| later(state, time));
                }
                Act::Shrink => store.shrink(),
            }
        }
        // Nothing is left of it when all is over.
        clock.advance(Duration::from_secs(1_000));
        store.shrink();
        prop_assert_eq!((store.len(), store.report().blocks), (0, 0));
    }
}

#[test]
fn a_clock_that_goes_back_does_not_prolong_an_overdraft() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let caller = organization("o");
    let quota = Quota::per(1, Duration::from_secs(60)).burst(10).build().unwrap();
    let entry = Entry::new(Endpoint::CALL, quota);
    let settle = |cost| {
        let entry = entry.with_cost(cost).unwrap();
        now(store.command(Command::Settle(Charge::of_one(&caller, &entry)))).unwrap();
    };
    let wait = || check(&store, Charge::of_one(&caller, &entry)).first().retry_after();
    clock.set(Duration::from_secs(10_000));
    settle(10);
    settle(1);
    assert_eq!(wait(), Some(Duration::from_secs(120)));
    clock.set(Duration::ZERO);
    assert_eq!(wait(), Some(Duration::from_secs(60)), "as of a bucket that is drained");
}

#[test]
fn what_a_thread_remembers_ends_with_the_bucket() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let caller = organization("o");
    let quota = Quota::per(1, Duration::from_secs(60)).build().unwrap();
    let entry = Entry::new(Endpoint::CALL, quota);
    let charge = Charge::of_one(&caller, &entry);
    clock.set(Duration::from_secs(100));
    let admitted = (0..4).filter(|_| check(&store, charge).outcome().is_admitted()).count();
    assert_eq!(admitted, 1);
    // The bucket is full and is dropped. Then the clock goes back.
    clock.set(Duration::from_secs(200));
    store.shrink();
    clock.set(Duration::from_secs(110));
    assert_eq!(peek(&store, charge).outcome(), check(&store, charge).outcome());
}
