//! Snapshots while requests are decided.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bolna_rate_limit::Policy;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Quota, store::Snapshot};

use super::{left, member, restored, snapshot, wall};
use crate::support::stopped_limiter;

#[test]
fn a_snapshot_has_all_of_a_charge_or_none_and_no_bucket_falls_behind() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_day(1_000_000))
        .also("call", LimitBuilder::user("call-user", Quota::per_day(1_000_000)))
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy.clone());
    let caller = member("ana", "acme");
    let ends = AtomicBool::new(false);
    let snapshots: Vec<Snapshot> = thread::scope(|scope| {
        for thread in 0..2 {
            let (limiter, caller, ends) = (&limiter, &caller, &ends);
            scope.spawn(move || {
                let mut others = 0;
                while !ends.load(Ordering::Relaxed) {
                    assert!(limiter.check_now(caller, "/call").unwrap().is_admitted());
                    // New buckets, so that tables grow meanwhile.
                    let other = member("u", &format!("{thread}-{others}"));
                    assert!(limiter.check_now(&other, "/other").unwrap().is_admitted());
                    others += 1;
                }
            });
        }
        let snapshots = (0..50).map(|_| snapshot(&limiter)).collect();
        ends.store(true, Ordering::Relaxed);
        snapshots
    });
    let mut before = 1_000_000;
    for snapshot in snapshots.into_iter().chain([snapshot(&limiter)]) {
        let (restored, _) = restored(&snapshot, policy.clone(), wall());
        let [(_, account), (_, user)] = left(&restored, &caller)[..] else { panic!("two limits") };
        assert_eq!(account, user, "all of a charge or none");
        assert!(account <= before, "{account} units after {before}");
        before = account;
    }
    assert_eq!(left(&limiter, &caller)[0].1, before, "the last one has all");
}
