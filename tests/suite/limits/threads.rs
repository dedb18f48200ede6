//! Many threads: exact counts while the clock stands still.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Account, Policy, Quota};

use super::{call, left, member};
use crate::support::stopped_limiter;

#[test]
fn refusals_by_one_limit_never_cost_units_of_another() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(1_000))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(100)))
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let (drained, over) = (member("u-0", "o"), AtomicBool::new(false));
    (0..100).for_each(|_| assert!(call(&limiter, &drained).is_admitted()));
    let admitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        // The requests of a user who is refused never cost the organization anything, ...
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let refused = call(&limiter, &drained);
                    assert!(!refused.is_admitted());
                    let of_organization = refused.decisions()[0];
                    assert!(of_organization.is_allowed(), "{of_organization:?}");
                }
            });
        }
        // ... so all others find the rest of its units.
        let others: Vec<_> = (1..=8)
            .map(|user| {
                let (limiter, admitted) = (&limiter, &admitted);
                scope.spawn(move || {
                    let other = member(&format!("u-{user}"), "o");
                    for _ in 0..100 {
                        assert!(call(limiter, &other).is_admitted());
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(!call(limiter, &other).is_admitted());
                })
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(admitted.into_inner(), 800);
    assert_eq!(left(&limiter, &drained), [("call", 100), ("call-user", 0)]);
}

#[test]
fn everyone_together_gets_exactly_the_limit_from_many_threads_and_accounts() {
    let policy = Policy::bolna()
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(1_000)))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(300)))
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let admitted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let limiter = &limiter;
                scope.spawn(move || {
                    let accounts: Vec<Account> = (0..50)
                        .map(|user| member(&format!("u-{user}"), &format!("o-{thread}")))
                        .collect();
                    (0..400).filter(|at| call(limiter, &accounts[at % 50]).is_admitted()).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1_000);
    // What the refused ones were not charged is left to their organizations.
    let left_of_all: u32 =
        (0..8).map(|it| left(&limiter, &member("u-0", &format!("o-{it}")))[0].1).sum();
    assert_eq!(left_of_all, 8 * 500 - 1_000);
}
