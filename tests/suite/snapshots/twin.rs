//! A store that is restarted again and again, beside one that never is: both decide alike.

use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{Charge, Command, Entry, MemoryStore, Snapshot, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, Decision, Endpoint, Limiter, Policy, Quota};
use proptest::prelude::*;

use super::recorded::recorded;
use super::{Stopped, member, wall};
use crate::support::{now, organization, stopped_limiter};

#[derive(Clone, Debug)]
enum Step {
    Call(usize, &'static str),
    Pause(u64),
    Refund(usize, u32),
    Settle(usize, u32),
    Reset(usize),
    Block(usize, u64),
    BlockUser(usize, u64),
    /// A restart that takes so long.
    Restart(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nanos =
        || prop_oneof![3 => 0..2_000_000_000_u64, 1 => 0..120_000_000_000_u64, 1 => 0..3_u64];
    let step = prop_oneof![
        12 => (0..4_usize, prop::sample::select(&["/call", "/other"][..]))
            .prop_map(|(caller, path)| Step::Call(caller, path)),
        3 => nanos().prop_map(Step::Pause),
        1 => (0..4_usize, 1..4_u32).prop_map(|(caller, units)| Step::Refund(caller, units)),
        2 => (0..4_usize, 1..4_u32).prop_map(|(caller, units)| Step::Settle(caller, units)),
        1 => (0..4_usize).prop_map(Step::Reset),
        1 => (0..4_usize, nanos()).prop_map(|(caller, nanos)| Step::Block(caller, nanos)),
        1 => (0..4_usize, nanos()).prop_map(|(caller, nanos)| Step::BlockUser(caller, nanos)),
        3 => nanos().prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

fn policy() -> Policy {
    Policy::bolna()
        .quota("default", Quota::per_minute(60).burst(3))
        .quota("call", Quota::per_minute(60).burst(6))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(30).burst(4)))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(90).burst(12)))
        .build()
        .unwrap()
}

fn callers() -> [Account; 4] {
    [member("ana", "acme"), member("ben", "acme"), member("ana", "other"), Account::user("ana")]
}

fn settle(limiter: &Stopped, caller: usize, units: u32) {
    let quota = Quota::per_minute(60).burst(6).build().unwrap();
    let entry = Entry::new(Endpoint::CALL, quota).with_cost(units).unwrap();
    let principal = organization(if caller < 2 { "acme" } else { "other" });
    now(limiter.store().command(Command::Settle(Charge::of_one(&principal, &entry)))).unwrap();
}

fn carry_out(limiter: &Stopped, clock: &ManualClock, step: &Step) -> Vec<Decision> {
    let callers = callers();
    match *step {
        Step::Call(caller, path) => {
            let ruling = limiter.check_now(&callers[caller], path).unwrap();
            return ruling.decisions().to_vec();
        }
        Step::Pause(nanos) | Step::Restart(nanos) => clock.advance(Duration::from_nanos(nanos)),
        Step::Refund(caller, units) => {
            now(limiter.refund(&callers[caller], Endpoint::CALL, units)).unwrap();
        }
        Step::Settle(caller, units) => settle(limiter, caller, units),
        Step::Reset(caller) => now(limiter.reset(&callers[caller], Endpoint::CALL)).unwrap(),
        Step::Block(caller, nanos) => {
            let period = Duration::from_nanos(nanos);
            now(limiter.block(&callers[caller], Endpoint::CALL, period)).unwrap();
        }
        Step::BlockUser(caller, nanos) => {
            let period = Duration::from_nanos(nanos);
            now(limiter.block_user(&callers[caller], Endpoint::CALL, period)).unwrap();
        }
    }
    Vec::new()
}

fn peeks(limiter: &Stopped) -> Vec<Decision> {
    let peek = |account: &Account| {
        let peek = |endpoint| now(limiter.peek(account, endpoint)).unwrap().unwrap();
        [Endpoint::CALL, Endpoint::DEFAULT].map(peek)
    };
    let rulings = callers().into_iter().flat_map(|account| peek(&account));
    rulings.flat_map(|ruling| ruling.decisions().to_vec()).collect()
}

/// The same after a restart; its clock begins at `origin`, and its wall clock is `behind`.
fn restart(limiter: &Stopped, down: u64, origin: u64, behind: u64) -> (Stopped, ManualClock) {
    let bytes = limiter.store().snapshot_at(wall()).as_bytes().to_vec();
    let clock = ManualClock::new();
    clock.set(Duration::from_nanos(origin));
    let mut store = MemoryStore::with_clock(clock.clone());
    let at = wall() + Duration::from_nanos(down) - Duration::from_nanos(behind);
    store.restore_at(&Snapshot::from_bytes(bytes).unwrap(), at).unwrap();
    (Limiter::with_store(policy(), store).unwrap(), clock)
}

/// A limiter whose store is empty, but has its keys from another process: this one has made ids
/// before, those of the policy's callers.
fn of_another_process() -> (Stopped, ManualClock) {
    let _ = callers();
    let (snapshot, clock) = (recorded(), ManualClock::new());
    let mut store = MemoryStore::with_clock(clock.clone());
    store.restore_at(&snapshot, snapshot.taken_at() + Duration::from_secs(86_400)).unwrap();
    assert!(store.is_empty());
    (Limiter::with_store(policy(), store).unwrap(), clock)
}

proptest! {
    #[test]
    fn a_store_that_is_restarted_decides_as_one_that_is_not(
        steps in steps(),
        origins in prop::array::uniform4(0..1_u64 << 60),
        has_own_keys in any::<bool>(),
    ) {
        let (steady, steady_clock) = stopped_limiter(policy());
        let (mut restarted, mut clock) = stopped_limiter(policy());
        if has_own_keys {
            (restarted, clock) = of_another_process();
        }
        let mut origins = origins.into_iter().cycle();
        for step in &steps {
            if let Step::Restart(down) = step {
                (restarted, clock) = restart(&restarted, *down, origins.next().unwrap(), 0);
                carry_out(&steady, &steady_clock, step);
            } else {
                let expected = carry_out(&steady, &steady_clock, step);
                prop_assert_eq!(carry_out(&restarted, &clock, step), expected, "{:?}", step);
            }
            prop_assert_eq!(peeks(&restarted), peeks(&steady), "after {:?}", step);
        }
    }

    #[test]
    fn nothing_is_given_back_for_a_wall_clock_that_is_behind(
        steps in steps(),
        down in 0..120_000_000_000_u64,
        behind in 0..240_000_000_000_u64,
    ) {
        let (steady, clock) = stopped_limiter(policy());
        for step in &steps {
            carry_out(&steady, &clock, step);
        }
        let (restarted, _) = restart(&steady, down, 7, behind);
        clock.advance(Duration::from_nanos(down));
        for (restarted, steady) in peeks(&restarted).iter().zip(peeks(&steady)) {
            prop_assert!(restarted.remaining() <= steady.remaining());
            // The answer to a blocked caller does not say what the bucket owes.
            prop_assert!(restarted.is_blocked() || restarted.reset() >= steady.reset());
            prop_assert!(restarted.retry_after() >= steady.retry_after());
            prop_assert!(restarted.is_blocked() >= steady.is_blocked());
        }
    }
}
