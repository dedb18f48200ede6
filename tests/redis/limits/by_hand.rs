//! Blocks, refunds and resets by an operator.

use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::{Account, Endpoint};

use super::{
    admitted, call, charges, keys, left, member, names, nothing_was_lost, ten_four_fifteen,
};
use crate::servers::{Server, until, when};
use crate::support::{HOUR, Replica};

async fn two_on(server: &Server) -> [Replica; 2] {
    let policy = ten_four_fifteen().build().unwrap();
    [Replica::on(server, policy.clone()).await, Replica::on(server, policy).await]
}

#[tokio::test]
async fn a_block_refuses_all_users_of_the_account_at_all_replicas_and_charges_no_limit() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let caller = member("u-1", "o-1");
    assert!(call(&fleet[0].limiter, &caller).await.is_admitted());
    let before = charges(&server).await;
    fleet[0].limiter.block(&caller, Endpoint::CALL, HOUR).await.unwrap();
    for replica in &fleet {
        for user in ["u-1", "u-2"] {
            let refused = call(&replica.limiter, &member(user, "o-1")).await;
            assert_eq!((refused.outcome(), refused.is_admitted()), (Outcome::Blocked, false));
            assert_eq!(names(refused.violated()), ["call"]);
            assert!(refused.retry_after().unwrap() <= HOUR);
        }
    }
    assert_eq!(charges(&server).await, before);
    assert!(call(&fleet[1].limiter, &member("u-1", "o-2")).await.is_admitted());
    // A reset lifts it.
    fleet[1].limiter.reset(&caller, Endpoint::CALL).await.unwrap();
    assert_eq!(admitted(&fleet[0].limiter, &caller).await, 4);
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn one_user_can_be_blocked_and_no_other() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let (caller, other) = (member("u-1", "o-1"), member("u-2", "o-1"));
    fleet[0].limiter.block_user(&caller, Endpoint::CALL, HOUR).await.unwrap();
    for replica in &fleet {
        let refused = call(&replica.limiter, &caller).await;
        assert_eq!(refused.outcome(), Outcome::Blocked);
        assert_eq!(names(refused.violated()), ["call-user"]);
        assert!(call(&replica.limiter, &other).await.is_admitted());
        assert!(call(&replica.limiter, &member("u-1", "o-2")).await.is_admitted());
    }
    assert_eq!(left(&fleet[0].limiter, &caller).await[0], ("call", 8));
    fleet[1].limiter.block_user(&caller, Endpoint::CALL, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(admitted(&fleet[0].limiter, &caller).await, 4);

    let error = fleet[0].limiter.block_user(&caller, Endpoint::AGENT, HOUR).await.unwrap_err();
    assert_eq!(error.kind(), "no_user_limit");
    let without_user = Account::user("").in_organization("o-1");
    let error = fleet[0].limiter.block_user(without_user, Endpoint::CALL, HOUR).await;
    assert_eq!(error.unwrap_err().kind(), "no_user");
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn a_refund_gives_units_back_to_the_account_and_the_user_and_not_to_everyone() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let caller = member("u-1", "o-1");
    assert_eq!(admitted(&fleet[0].limiter, &caller).await, 4);
    fleet[1].limiter.refund(&caller, Endpoint::CALL, 3).await.unwrap();
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 1),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 1),
        ("bolna:2:{~everyone}:call-all", 4),
    ]);
    assert_eq!(charges(&server).await, expected);
    until("the other replica sees it", async || {
        let ruling = call(&fleet[0].limiter, &caller).await;
        when(ruling.is_admitted(), ruling)
    })
    .await;
    fleet[1].limiter.refund(&caller, Endpoint::CALL, u32::MAX).await.unwrap();
    assert_eq!(charges(&server).await, keys([("bolna:2:{~everyone}:call-all", 5)]));
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn a_reset_fills_the_buckets_of_the_account_and_the_user_and_not_that_of_everyone() {
    let server = Server::start().await;
    let fleet = two_on(&server).await;
    let [caller, other] = ["u-1", "u-2"].map(|user| member(user, "o-1"));
    for account in [&caller, &other] {
        assert_eq!(admitted(&fleet[0].limiter, account).await, 4);
    }
    fleet[1].limiter.reset(&caller, Endpoint::CALL).await.unwrap();
    let expected = keys([
        ("bolna:2:{organization:o-1}:call-user:user:u-2", 4),
        ("bolna:2:{~everyone}:call-all", 8),
    ]);
    assert_eq!(charges(&server).await, expected);
    for replica in &fleet {
        let expected = [("call", 10), ("call-user", 4), ("call-all", 7)];
        assert_eq!(left(&replica.limiter, &caller).await, expected);
    }
    // Without a user, the account's own limits alone.
    assert_eq!(admitted(&fleet[1].limiter, &caller).await, 4);
    let without_user = Account::user("").in_organization("o-1");
    fleet[0].limiter.reset(&without_user, Endpoint::CALL).await.unwrap();
    let expected = [("call", 10), ("call-user", 0), ("call-all", 3)];
    assert_eq!(left(&fleet[0].limiter, &caller).await, expected);
    nothing_was_lost(&fleet);
}
