//! Which requests a limit counts together, and the keys of its buckets on the server.

use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{Store, StoreError};
use bolna_rate_limit::values::Kind;
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Principal, Quota, Ruling};

use super::{
    admitted, call, charges, keys, left, member, named, names, nothing_was_lost, ten_four_fifteen,
};
use crate::servers::Server;
use crate::support::{Replica, once_an_hour, store};

#[tokio::test]
async fn a_user_an_organization_and_everyone_each_have_their_limit_and_their_key() {
    let server = Server::start().await;
    let replica = Replica::on(&server, ten_four_fifteen().build().unwrap()).await;
    let limiter = &replica.limiter;
    assert_eq!(admitted(limiter, &member("u-1", "o-1")).await, 4, "by the user's limit");
    assert_eq!(admitted(limiter, &member("u-2", "o-1")).await, 4, "by another user's");
    assert_eq!(admitted(limiter, &member("u-3", "o-1")).await, 2, "what the organization has");
    assert_eq!(admitted(limiter, &member("u-1", "o-2")).await, 4, "in another organization");
    assert_eq!(admitted(limiter, &member("u-9", "o-9")).await, 1, "what is left for everyone");
    let refused = call(limiter, &member("u-9", "o-9")).await;
    assert_eq!(names(refused.violated()), ["call-all"]);
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 10),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 4),
        ("bolna:2:{organization:o-1}:call-user:user:u-2", 4),
        ("bolna:2:{organization:o-1}:call-user:user:u-3", 2),
        ("bolna:2:{organization:o-2}:call", 4),
        ("bolna:2:{organization:o-2}:call-user:user:u-1", 4),
        ("bolna:2:{organization:o-9}:call", 1),
        ("bolna:2:{organization:o-9}:call-user:user:u-9", 1),
        ("bolna:2:{~everyone}:call-all", 15),
    ]);
    assert_eq!(charges(&server).await, expected);
    nothing_was_lost(&[replica]);
}

#[tokio::test]
async fn a_request_that_a_limit_refuses_costs_nothing_of_the_others() {
    let server = Server::start().await;
    let replica = Replica::on(&server, ten_four_fifteen().build().unwrap()).await;
    let limiter = &replica.limiter;
    let [one, two, other] =
        [("u-1", "o-1"), ("u-2", "o-1"), ("u-1", "o-2")].map(|(user, of)| member(user, of));
    let unchanged = async |account: &Account, refuses: &str, before: [(&str, u32); 3]| {
        let on_the_server = charges(&server).await;
        assert_eq!(left(limiter, account).await, before);
        for _ in 0..5 {
            let refused = call(limiter, account).await;
            assert!(!refused.is_admitted());
            assert_eq!(names(refused.violated()), [refuses]);
            assert_eq!(refused.decisions().iter().map(named).collect::<Vec<_>>(), before);
        }
        assert_eq!(left(limiter, account).await, before);
        assert_eq!(charges(&server).await, on_the_server);
    };
    assert_eq!(admitted(limiter, &one).await, 4);
    unchanged(&one, "call-user", [("call", 6), ("call-user", 0), ("call-all", 11)]).await;
    assert_eq!(admitted(limiter, &two).await, 4);
    for user in ["u-3", "u-4"] {
        assert!(call(limiter, &member(user, "o-1")).await.is_admitted());
    }
    unchanged(&member("u-3", "o-1"), "call", [("call", 0), ("call-user", 3), ("call-all", 5)])
        .await;
    assert_eq!(admitted(limiter, &other).await, 4);
    assert!(call(limiter, &member("u-2", "o-2")).await.is_admitted());
    unchanged(&member("u-2", "o-2"), "call-all", [("call", 5), ("call-user", 3), ("call-all", 0)])
        .await;
    nothing_was_lost(&[replica]);
}

#[tokio::test]
async fn the_wait_is_that_of_the_limit_that_refuses() {
    let server = Server::start().await;
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(10))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(4)))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_day(5)));
    let replica = Replica::on(&server, policy.build().unwrap()).await;
    let caller = member("u-1", "o-1");
    for _ in 0..4 {
        assert!(call(&replica.limiter, &caller).await.is_admitted());
    }
    // A busy machine takes a while, and a unit of the user comes back after 15 s.
    let is_just = |wait: Duration, most: Duration| wait <= most && wait > most * 9 / 10;
    let refused = call(&replica.limiter, &caller).await;
    assert_eq!(names(refused.violated()), ["call-user"]);
    assert!(is_just(refused.retry_after().unwrap(), Duration::from_secs(15)), "{refused:?}");
    let other = member("u-2", "o-1");
    assert!(call(&replica.limiter, &other).await.is_admitted());
    let refused = call(&replica.limiter, &other).await;
    assert_eq!(names(refused.violated()), ["call-all"]);
    let fifth = Duration::from_secs(24 * 3600 / 5);
    assert!(is_just(refused.retry_after().unwrap(), fifth), "{refused:?}");
    // Both refuse, and the longer wait counts.
    let refused = call(&replica.limiter, &caller).await;
    assert_eq!(names(refused.violated()), ["call-user", "call-all"]);
    assert!(is_just(refused.retry_after().unwrap(), fifth), "{refused:?}");
}

#[tokio::test]
async fn an_account_may_be_a_user_alone_or_have_no_user() {
    let server = Server::start().await;
    let replica = Replica::on(&server, ten_four_fifteen().build().unwrap()).await;
    let limiter = &replica.limiter;
    let without_user = Account::user("").in_organization("o-1");
    assert_eq!(admitted(limiter, &without_user).await, 10);
    assert_eq!(admitted(limiter, &Account::user("u-1")).await, 4);
    let key = Principal::new(Kind::new("api_key").unwrap(), "k-1").unwrap();
    assert_eq!(admitted(limiter, &key.into()).await, 1, "what is left for everyone");
    let expected = keys([
        ("bolna:2:{api_key:k-1}:call", 1),
        ("bolna:2:{organization:o-1}:call", 10),
        ("bolna:2:{user:u-1}:call", 4),
        ("bolna:2:{user:u-1}:call-user:user:u-1", 4),
        ("bolna:2:{~everyone}:call-all", 15),
    ]);
    assert_eq!(charges(&server).await, expected);
}

#[tokio::test]
async fn no_id_leads_to_the_bucket_of_another_user() {
    let server = Server::start().await;
    let policy = super::calls(100_000, 100).build().unwrap();
    let replica = Replica::on(&server, policy).await;
    let long = "x".repeat(10_240);
    let almost = format!("{}y", &long[1..]);
    let ids =
        ["a", "a:b", "{a}", "}", "user:a", "~everyone", "a%3Ab", "ä", "a\r\nb", &long, &almost];
    let of_all = || ids.iter().flat_map(|user| ids.iter().map(move |of| member(user, of)));
    // Each has another number of requests, so that a unit in another's bucket is noticed.
    for (number, account) in of_all().enumerate() {
        for _ in 0..=number % 17 {
            assert!(call(&replica.limiter, &account).await.is_admitted());
        }
    }
    for (number, account) in of_all().enumerate() {
        let expected = 99 - u32::try_from(number % 17).unwrap();
        assert_eq!(left(&replica.limiter, &account).await[1], ("call-user", expected));
    }
    assert_eq!(charges(&server).await.len(), ids.len() * ids.len() + ids.len());
    nothing_was_lost(&[replica]);
}

#[tokio::test]
async fn a_limit_of_several_endpoints_counts_their_requests_together() {
    let server = Server::start().await;
    let day = LimitBuilder::account("day", once_an_hour(5));
    let policy = Policy::bolna().shared(day, ["call", "default"]).build().unwrap();
    let replica = Replica::on(&server, policy).await;
    let caller = member("u-1", "o-1");
    let request = async |path| replica.limiter.check(&caller, path).unwrap().wait().await.unwrap();
    for path in ["/call", "/user/me", "/call", "/user/me"] {
        assert!(request(path).await.is_admitted());
    }
    let odd = request("/call;x").await;
    assert!(odd.is_admitted());
    assert_eq!(names(odd.decisions().iter()), ["default", "day", "call"]);
    for path in ["/call", "/user/me", "/call;x"] {
        assert_eq!(names(request(path).await.violated()), ["day"]);
    }
    assert!(request("/v2/agent/1").await.is_admitted());
    assert_eq!(charges(&server).await["bolna:2:{organization:o-1}:day"], 5);
}

#[tokio::test]
async fn a_plan_has_its_own_limits_and_those_of_the_active_policy_for_everyone() {
    let server = Server::start().await;
    let replica = Replica::on(&server, ten_four_fifteen().build().unwrap()).await;
    let plan = Policy::bolna()
        .quota("call", once_an_hour(100))
        .also("call", LimitBuilder::everyone("plan-all", once_an_hour(1)))
        .build()
        .unwrap();
    let on_plan = member("u-1", "o-1").with_policy(plan);
    assert_eq!(admitted(&replica.limiter, &on_plan).await, 15);
    assert_eq!(admitted(&replica.limiter, &member("u-2", "o-2")).await, 0);
    let expected =
        keys([("bolna:2:{organization:o-1}:call", 15), ("bolna:2:{~everyone}:call-all", 15)]);
    assert_eq!(charges(&server).await, expected);
}

/// What each limit says, and what comes of it.
fn said(ruling: &Ruling) -> (bool, Vec<(&'static str, bool, bool, u32)>) {
    let of = |decision: &bolna_rate_limit::Decision| {
        let (name, left) = named(decision);
        (name, decision.is_allowed(), decision.is_blocked(), left)
    };
    (ruling.is_admitted(), ruling.decisions().iter().map(of).collect())
}

/// Does what support does now and then.
async fn support<St: Store>(
    limiter: &Limiter<St>,
    account: &Account,
    number: usize,
) -> Result<(), StoreError> {
    let hour = Duration::from_secs(3600);
    match number % 40 {
        11 => limiter.refund(account, Endpoint::CALL, 2).await,
        17 => limiter.block_user(account, Endpoint::CALL, hour).await,
        23 | 37 => limiter.reset(account, Endpoint::CALL).await,
        29 => limiter.block(account, Endpoint::CALL, hour).await,
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_limiter_with_several_limits_decides_on_a_server_as_it_does_in_this_process() {
    let server = Server::start().await;
    let policy = Policy::bolna()
        .quota("call", once_an_hour(30))
        .quota("agent", once_an_hour(12))
        .default_quota(once_an_hour(40))
        .user_share("call", 40)
        .also("agent", LimitBuilder::account("rows", once_an_hour(50)).cost(7))
        .shared(LimitBuilder::everyone("all", once_an_hour(90)), ["call", "agent", "default"])
        .shared(
            LimitBuilder::user("light", once_an_hour(20))
                .enforce(bolna_rate_limit::Enforcement::SHADOW),
            ["call", "default"],
        )
        .build()
        .unwrap();
    let there = Replica::connect(store(server.url()), policy.clone()).await;
    let here = Limiter::new(policy);
    let accounts = [("u-1", "o-1"), ("u-2", "o-1"), ("u-1", "o-2"), ("u-3", "")];
    let accounts = accounts.map(|(user, of)| member(user, of));
    let paths = ["/call", "/user/me", "//call", "/v2/agent/7", "/v2/agent/7/../8", "/call;x"];
    let mut refused = 0;
    for number in 0..400 {
        let (account, path) = (&accounts[number * 7 % 4], paths[number * 5 % 6]);
        let ruling = there.limiter.check(account, path).unwrap().wait().await.unwrap();
        let wanted = here.check(account, path).unwrap().wait().await.unwrap();
        assert_eq!(said(&ruling), said(&wanted), "{number}: {path}");
        refused += usize::from(!ruling.is_admitted());
        support(&there.limiter, account, number).await.unwrap();
        support(&here, account, number).await.unwrap();
        if number % 10 == 0 {
            let usage = there.limiter.usage(account).await.unwrap();
            let wanted = here.usage(account).await.unwrap();
            let [usage, wanted] =
                [usage, wanted].map(|it| it.iter().map(named).collect::<Vec<_>>());
            assert_eq!(usage, wanted, "{number}");
        }
    }
    assert!((50..350).contains(&refused), "{refused} were refused");
    nothing_was_lost(&[there]);
}
