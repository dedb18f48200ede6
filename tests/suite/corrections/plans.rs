//! A correction after a change of the policy, of the plan of an account, or of the bucket.

use std::time::Duration;

use bolna_rate_limit::{Account, Endpoint, Policy, Quota};

use crate::support::{now, stopped_limiter};

fn caller() -> Account {
    Account::user("u").in_organization("o")
}

/// One request a second, and one at once.
fn fast() -> Policy {
    Policy::bolna().quota("call", Quota::per_second(1)).build().unwrap()
}

/// 24 requests a day: a unit comes back every hour.
fn slow() -> Policy {
    Policy::bolna().quota("call", Quota::per_day(24)).build().unwrap()
}

/// After a request by the fast quota, ten by the slow one. Then the first is corrected. The ten
/// have to count as before.
fn ten_hours_are_owed_after(
    correct: impl Fn(&bolna_rate_limit::limiter::Admission),
    is_plan: bool,
) {
    let (limiter, _clock) = stopped_limiter(fast());
    let account = |policy: Policy| if is_plan { caller().with_policy(policy) } else { caller() };
    let admit = |policy: Policy| {
        let admitted = now(limiter.admit(&account(policy), "/call").unwrap().wait()).unwrap();
        admitted.admission.unwrap()
    };
    let first = admit(fast());
    limiter.set_policy(slow()).unwrap();
    for _ in 0..10 {
        admit(slow());
    }
    correct(&first);
    let ruling = now(limiter.peek(account(slow()), Endpoint::CALL)).unwrap().unwrap();
    let owed = ruling.decisions()[0].reset();
    let (least, most) = (Duration::from_secs(10 * 3600), Duration::from_secs(10 * 3600 + 2));
    assert!((least..=most).contains(&owed), "{owed:?}");
}

#[test]
fn a_refund_of_what_a_faster_quota_has_charged_gives_back_that_time_only() {
    for is_plan in [false, true] {
        ten_hours_are_owed_after(bolna_rate_limit::limiter::Admission::refund, is_plan);
    }
}

#[test]
fn a_settlement_of_what_a_faster_quota_has_charged_gives_nothing_back() {
    for is_plan in [false, true] {
        ten_hours_are_owed_after(|admission| admission.settle(Endpoint::CALL, 2), is_plan);
    }
}

#[test]
fn what_was_paid_before_a_reset_is_not_given_back_after_it() {
    let policy = || Policy::bolna().quota("call", Quota::per_day(10));
    let (limiter, _clock) = stopped_limiter(policy().build().unwrap());
    let admit = || {
        let admitted = now(limiter.admit(&caller(), "/call").unwrap().wait()).unwrap();
        admitted.admission.unwrap()
    };
    let left = || {
        let ruling = now(limiter.peek(caller(), Endpoint::CALL)).unwrap().unwrap();
        ruling.decisions()[0].remaining()
    };
    let before: Vec<_> = (0..5).map(|_| admit()).collect();
    now(limiter.reset(caller(), Endpoint::CALL)).unwrap();
    let after: Vec<_> = (0..5).map(|_| admit()).collect();
    before.iter().for_each(bolna_rate_limit::limiter::Admission::refund);
    assert_eq!(left(), 5);
    // A reset of another account's bucket changes nothing.
    now(limiter.reset(Account::user("other"), Endpoint::CALL)).unwrap();
    after.iter().for_each(bolna_rate_limit::limiter::Admission::refund);
    assert_eq!(left(), 10);
}
