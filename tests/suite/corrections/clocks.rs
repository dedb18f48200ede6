//! A clock that goes back and forth between a charge and its correction.

use std::time::Duration;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Account, Endpoint, Policy, Quota};
use proptest::prelude::*;

use crate::support::{now, stopped_limiter};

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit,
    Refund(usize),
    Settle(usize, u32),
    Drop(usize),
    /// The clock jumps to so many milliseconds.
    Jump(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any = || 0..1000_usize;
    prop_oneof![
        6 => Just(Step::Admit),
        2 => any().prop_map(Step::Refund),
        2 => (any(), prop_oneof![0..12_u32, Just(u32::MAX)])
            .prop_map(|(which, units)| Step::Settle(which, units)),
        2 => any().prop_map(Step::Drop),
        2 => (0..200_000_u64).prop_map(Step::Jump),
        3 => (90_000..100_000_u64).prop_map(Step::Jump),
    ]
}

const UNIT: u128 = 1_000_000_000;
const BURST: u32 = 5;
const FULL: u128 = UNIT * BURST as u128;

proptest! {
    /// Whatever the clock does, a correction changes a bucket by exactly what it is about, the
    /// bucket is never above full and never overdrawn by more than a burst, and places do not
    /// depend on the time at all.
    #[test]
    fn a_correction_is_exact_whatever_the_clock_has_done(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let policy = Policy::bolna()
            .quota("call", Quota::per_second(1).burst(BURST))
            .also("call", LimitBuilder::account("places", Quota::concurrent(4)))
            .build()
            .unwrap();
        let (limiter, clock) = stopped_limiter(policy);
        let caller = Account::user("u");
        let owed = || {
            let ruling = now(limiter.peek(&caller, Endpoint::CALL)).unwrap().unwrap();
            let owed = ruling.decisions()[0].reset().as_nanos();
            assert!(owed <= 2 * FULL, "{owed}");
            owed
        };
        // Each with what it has paid.
        let mut kept: Vec<(Admission, u32)> = Vec::new();
        let mut time = 0;
        for step in steps {
            let before = owed();
            match step {
                Step::Admit => {
                    let admitted = now(limiter.admit(&caller, "/call").unwrap().wait()).unwrap();
                    let fits = before + UNIT <= FULL && kept.len() < 4;
                    prop_assert_eq!(admitted.ruling.is_admitted(), fits);
                    prop_assert_eq!(owed(), before + if fits { UNIT } else { 0 });
                    kept.extend(admitted.admission.map(|admission| (admission, 1)));
                }
                Step::Refund(which) => {
                    if let Some(index) = which.checked_rem(kept.len()) {
                        let (admission, paid) = &mut kept[index];
                        admission.refund();
                        let paid = UNIT * u128::from(std::mem::take(paid));
                        prop_assert_eq!(owed(), before.saturating_sub(paid));
                        // Nor is anything settled after it.
                        admission.settle(Endpoint::CALL, 3);
                        prop_assert_eq!(owed(), before.saturating_sub(paid));
                        kept.remove(index);
                    }
                }
                Step::Settle(which, units) => {
                    if let Some(index) = which.checked_rem(kept.len()) {
                        let (admission, paid) = &mut kept[index];
                        admission.settle(Endpoint::CALL, units);
                        let units = units.min(1 + BURST);
                        let change = UNIT * u128::from(units.abs_diff(*paid));
                        let after = if units < *paid {
                            before.saturating_sub(change)
                        } else {
                            (before + change).min(2 * FULL)
                        };
                        *paid = units;
                        prop_assert_eq!(owed(), after);
                    }
                }
                Step::Drop(which) => {
                    if let Some(index) = which.checked_rem(kept.len()) {
                        kept.remove(index);
                        prop_assert_eq!(owed(), before);
                    }
                }
                Step::Jump(millis) => {
                    let passed = millis.saturating_sub(time);
                    time = millis;
                    clock.set(Duration::from_millis(time));
                    // At most an overdraft is forgotten.
                    let passed = u128::from(passed) * 1_000_000;
                    prop_assert!(owed() >= before.saturating_sub(passed).min(FULL));
                }
            }
            prop_assert_eq!(limiter.report().in_flight, kept.len() as u64);
        }
        kept.clear();
        prop_assert_eq!(limiter.report().in_flight, 0);
    }
}
