//! Enforcement of each limit, and a candidate with several.

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::{Enforcement, Policy, Quota};

use super::{admitted, call, left, member, names, ten_four_fifteen};
use crate::support::stopped_limiter;

#[test]
fn a_shadow_limit_refuses_nothing_and_is_charged_if_all_shadow_limits_hold() {
    let policy = ten_four_fifteen().enforce("call-user", Enforcement::SHADOW).build().unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let caller = member("u-1", "o-1");
    // Admitted, and the shadow limit with it.
    for left_of_user in (0..4).rev() {
        let ruling = call(&limiter, &caller);
        assert_eq!(ruling.outcome(), Outcome::Allowed);
        assert_eq!(ruling.decisions()[1].remaining(), left_of_user);
        assert_eq!(names(ruling.enforced()), ["call", "call-all"]);
    }
    // Admitted, and the shadow limit would have refused.
    let ruling = call(&limiter, &caller);
    assert_eq!((ruling.outcome(), ruling.is_enforced()), (Outcome::Limited, false));
    assert!(ruling.is_admitted() && !ruling.is_allowed());
    assert_eq!((ruling.violated().count(), ruling.retry_after()), (0, None));
    assert_eq!(ruling.decision().map(|it| it.name().name()), Some("call-user"));
    assert_eq!(left(&limiter, &caller), [("call", 5), ("call-user", 0), ("call-all", 10)]);
    // Refused by the organization's limit: the shadow limit of another user is not charged either.
    assert_eq!(admitted(&limiter, &caller), 5);
    let other = member("u-2", "o-1");
    let ruling = call(&limiter, &other);
    assert_eq!((ruling.outcome(), ruling.is_enforced()), (Outcome::Limited, true));
    assert_eq!(left(&limiter, &other)[1], ("call-user", 4));
}

#[test]
fn with_shadow_limits_only_all_are_charged_or_none_and_every_request_is_admitted() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    limiter.set_enforcement(Enforcement::SHADOW);
    let caller = member("u-1", "o-1");
    assert_eq!(admitted(&limiter, &caller), 100);
    // As if they were enforced: the user's limit stopped the others from being charged.
    assert_eq!(left(&limiter, &caller), [("call", 6), ("call-user", 0), ("call-all", 11)]);
}

#[test]
fn a_share_is_of_the_accounts_and_can_differ_between_limits() {
    let half = Enforcement::percent(50).unwrap();
    let policy = ten_four_fifteen()
        .quota("call-all", Quota::per_minute(1_000_000))
        .enforce("call-user", half)
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy);
    for organization in 0..50 {
        let caller = member("u-1", &format!("o-{organization}"));
        let is_enforced = half.applies_to(caller.principal().unwrap());
        assert_eq!(admitted(&limiter, &caller), if is_enforced { 4 } else { 10 });
    }
}

#[test]
fn a_candidate_is_compared_with_all_of_its_limits_and_charges_its_own_buckets() {
    let (limiter, _) = stopped_limiter(Policy::default());
    limiter.set_candidate(ten_four_fifteen().build().unwrap()).unwrap();
    let caller = member("u-1", "o-1");
    for at in 0..12 {
        let ruling = call(&limiter, &caller);
        assert!(ruling.is_allowed());
        let candidate = ruling.candidate().unwrap();
        assert_eq!(candidate.all_allow(), at < 4);
        assert_eq!(names(candidate.as_slice().iter()), ["call", "call-user", "call-all"]);
    }
    let report = limiter.candidate_report();
    let of_call = report.iter().find(|it| it.endpoint.name() == "call").unwrap();
    assert_eq!((of_call.allowed, of_call.newly_limited), (4, 8));
    assert_eq!(left(&limiter, &caller), [("call", 488)]);

    // A candidate without the user's limit.
    limiter
        .set_candidate(Policy::bolna().quota("call", Quota::per_minute(1)).build().unwrap())
        .unwrap();
    assert!(call(&limiter, &member("u-1", "o-2")).candidate().unwrap().all_allow());
}

#[test]
fn a_candidate_has_the_same_costs() {
    let rows = LimitBuilder::account("rows", Quota::per_minute(100)).cost(30);
    let (limiter, _) = stopped_limiter(Policy::default());
    limiter.set_candidate(Policy::bolna().also("call", rows).build().unwrap()).unwrap();
    let caller = member("u-1", "o-1");
    let allowed = (0..5).map(|_| call(&limiter, &caller).candidate().unwrap().all_allow());
    assert_eq!(allowed.collect::<Vec<_>>(), [true, true, true, false, false]);
}
