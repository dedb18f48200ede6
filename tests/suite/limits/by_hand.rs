//! What operators do to accounts with several limits.

use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::{Account, Endpoint, Policy, Quota};

use super::{admitted, call, left, member, names, ten_four_fifteen};
use crate::support::{now, stopped_limiter};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_reset_fills_the_accounts_and_the_users_limits_but_not_everyones() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let (caller, other) = (member("u-1", "o-1"), member("u-2", "o-1"));
    admitted(&limiter, &caller);
    admitted(&limiter, &other);
    now(limiter.reset(&caller, Endpoint::CALL)).unwrap();
    assert_eq!(left(&limiter, &caller), [("call", 10), ("call-user", 4), ("call-all", 7)]);
    assert_eq!(left(&limiter, &other)[1], ("call-user", 0));
    // Without a user, the organization's limits alone.
    admitted(&limiter, &caller);
    now(limiter.reset(Account::user("").in_organization("o-1"), Endpoint::CALL)).unwrap();
    assert_eq!(left(&limiter, &caller), [("call", 10), ("call-user", 0), ("call-all", 3)]);
}

#[test]
fn a_refund_gives_back_what_the_requests_cost_each_limit_but_everyones() {
    let rows = LimitBuilder::account("rows", Quota::per_minute(100)).cost(20);
    let policy = ten_four_fifteen().also("call", rows).build().unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let caller = member("u-1", "o-1");
    assert_eq!(admitted(&limiter, &caller), 4);
    now(limiter.refund(&caller, Endpoint::CALL, 3)).unwrap();
    let expected = [("call", 9), ("call-user", 3), ("call-all", 11), ("rows", 80)];
    assert_eq!(left(&limiter, &caller), expected);
    now(limiter.refund(&caller, Endpoint::CALL, u32::MAX)).unwrap();
    let full = [("call", 10), ("call-user", 4), ("call-all", 11), ("rows", 100)];
    assert_eq!(left(&limiter, &caller), full);
}

#[test]
fn a_block_refuses_the_whole_account_and_charges_no_limit() {
    let (limiter, clock) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let caller = member("u-1", "o-1");
    now(limiter.block(&caller, Endpoint::CALL, HOUR)).unwrap();
    let refused = call(&limiter, &member("u-2", "o-1"));
    assert_eq!((refused.outcome(), refused.is_admitted()), (Outcome::Blocked, false));
    assert_eq!(refused.retry_after(), Some(HOUR));
    assert!(call(&limiter, &member("u-1", "o-2")).is_admitted());
    assert_eq!(left(&limiter, &caller)[1..], [("call-user", 4), ("call-all", 14)]);
    clock.advance(HOUR);
    assert!(call(&limiter, &caller).is_admitted());
}

#[test]
fn one_user_can_be_blocked_where_a_limit_counts_each_user() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let (caller, other) = (member("u-1", "o-1"), member("u-2", "o-1"));
    now(limiter.block_user(&caller, Endpoint::CALL, HOUR)).unwrap();
    let refused = call(&limiter, &caller);
    assert_eq!(
        (refused.outcome(), names(refused.violated())),
        (Outcome::Blocked, vec!["call-user"])
    );
    assert!(call(&limiter, &other).is_admitted());
    now(limiter.reset(&caller, Endpoint::CALL)).unwrap();
    assert!(call(&limiter, &caller).is_admitted());

    let without_user = Account::user("").in_organization("o-1");
    let error = now(limiter.block_user(without_user, Endpoint::CALL, HOUR)).unwrap_err();
    assert_eq!(error.kind(), "no_user");
    let error = now(limiter.block_user(&caller, Endpoint::AGENT, HOUR)).unwrap_err();
    assert_eq!(error.kind(), "no_user_limit");
}

#[test]
fn when_limits_change_every_bucket_that_is_still_there_keeps_its_state() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let caller = member("u-1", "o-1");
    admitted(&limiter, &caller);
    let more = LimitBuilder::user("call-user", Quota::per_minute(8));
    let policy = Policy::bolna().quota("call", Quota::per_minute(10)).also("call", more);
    limiter.set_policy(policy.build().unwrap()).unwrap();
    // A full refill of the old quota is one of the new: the user's bucket is still drained.
    assert_eq!(left(&limiter, &caller), [("call", 6), ("call-user", 0)]);
    limiter.set_policy(ten_four_fifteen().build().unwrap()).unwrap();
    assert_eq!(left(&limiter, &caller), [("call", 6), ("call-user", 0), ("call-all", 11)]);
}
