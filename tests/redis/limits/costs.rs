//! Requests that cost more than one unit of a limit.

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::{Costs, LimitName, Outcome};
use bolna_rate_limit::{Endpoint, Policy};
use tokio::task::JoinSet;

use super::{call, charges, keys, left, member, named, names, nothing_was_lost};
use crate::servers::Server;
use crate::support::{Replica, once_an_hour};

/// 50 calls and 100 rows of an organization, 60 rows of a user, 150 of everyone. A call costs 20
/// rows unless the request says otherwise.
fn with_rows() -> Policy {
    Policy::bolna()
        .quota("call", once_an_hour(50))
        .also("call", LimitBuilder::account("rows", once_an_hour(100)).cost(20))
        .also("call", LimitBuilder::user("rows-user", once_an_hour(60)).cost(20))
        .also("call", LimitBuilder::everyone("rows-all", once_an_hour(150)).cost(20))
        .build()
        .unwrap()
}

/// A call of so many rows.
fn rows(count: u32) -> Costs {
    ["rows", "rows-user", "rows-all"]
        .into_iter()
        .fold(Costs::default(), |costs, name| costs.of(LimitName::new(name).unwrap(), count))
}

#[tokio::test]
async fn each_limit_is_charged_its_own_cost() {
    let server = Server::start().await;
    let replica = Replica::on(&server, with_rows()).await;
    let limiter = &replica.limiter;
    let (one, two) = (member("u-1", "o-1"), member("u-2", "o-1"));
    for _ in 0..3 {
        assert!(call(limiter, &one).await.is_admitted());
    }
    let refused = call(limiter, &one).await;
    assert_eq!(names(refused.violated()), ["rows-user"]);
    let of = async |account, rows| {
        limiter.check_endpoint(account, Endpoint::CALL, rows).wait().await.unwrap()
    };
    // 40 rows are left of the organization.
    assert_eq!(names(of(&two, rows(41)).await.violated()), ["rows"]);
    assert!(of(&two, rows(33)).await.is_admitted());
    assert!(of(&two, rows(7)).await.is_admitted());
    assert_eq!(names(of(&two, rows(1)).await.violated()), ["rows"]);
    // 50 rows are left of everyone.
    let other = member("u-1", "o-2");
    assert_eq!(names(of(&other, rows(51)).await.violated()), ["rows-all"]);
    assert!(of(&other, rows(50)).await.is_admitted());
    // A refusal has cost no call either.
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 5),
        ("bolna:2:{organization:o-1}:rows", 100),
        ("bolna:2:{organization:o-1}:rows-user:user:u-1", 60),
        ("bolna:2:{organization:o-1}:rows-user:user:u-2", 40),
        ("bolna:2:{organization:o-2}:call", 1),
        ("bolna:2:{organization:o-2}:rows", 50),
        ("bolna:2:{organization:o-2}:rows-user:user:u-1", 50),
        ("bolna:2:{~everyone}:rows-all", 150),
    ]);
    assert_eq!(charges(&server).await, expected);
    nothing_was_lost(&[replica]);
}

#[tokio::test]
async fn a_peek_foretells_a_request_of_the_same_costs_and_changes_nothing() {
    let server = Server::start().await;
    let replica = Replica::on(&server, with_rows()).await;
    let limiter = &replica.limiter;
    let caller = member("u-1", "o-1");
    assert!(call(limiter, &caller).await.is_admitted());
    let before = charges(&server).await;
    for (count, outcome) in
        [(40, Outcome::Allowed), (41, Outcome::Limited), (61, Outcome::TooCostly)]
    {
        let peek = limiter.peek_costs(&caller, Endpoint::CALL, rows(count)).await;
        let peek = peek.unwrap().unwrap();
        assert_eq!((peek.outcome(), peek.is_admitted()), (outcome, outcome == Outcome::Allowed));
    }
    assert_eq!(charges(&server).await, before);
    // What can never be allowed does not reach the server.
    let never = limiter.check_endpoint(&caller, Endpoint::CALL, rows(61)).wait().await.unwrap();
    assert_eq!(
        never.too_costly_for().map(|(limit, cost)| (limit.name().name(), cost)),
        Some(("rows-user", 61))
    );
    assert_eq!(charges(&server).await, before);
    // As much as two requests, of every limit.
    let two = limiter.check_endpoint(&caller, Endpoint::CALL, 2).wait().await.unwrap();
    let said: Vec<_> = two.decisions().iter().map(named).collect();
    assert_eq!(said, [("call", 47), ("rows", 40), ("rows-user", 0), ("rows-all", 90)]);
    assert_eq!(left(limiter, &caller).await, said);
    nothing_was_lost(&[replica]);
}

/// Each request has another cost, so that they share calls and not runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_admit_together_of_different_costs_is_charged_to_each_limit() {
    let server = Server::start().await;
    let policy = Policy::bolna()
        .quota("call", once_an_hour(100_000))
        .also("call", LimitBuilder::account("rows", once_an_hour(3000)))
        .also("call", LimitBuilder::user("rows-user", once_an_hour(1500)))
        .also("call", LimitBuilder::everyone("rows-all", once_an_hour(4000)));
    let policy = policy.build().unwrap();
    let (mut fleet, mut tasks) = (Vec::new(), JoinSet::new());
    for _ in 0..3 {
        fleet.push(Replica::on(&server, policy.clone()).await);
    }
    for (task, replica) in fleet.iter().flat_map(|replica| [replica; 4]).enumerate() {
        let replica = replica.clone();
        tasks.spawn(async move {
            let mut admitted = Vec::new();
            for number in 0..80 {
                let count = u32::try_from(1 + (number * 7 + task) % 20).unwrap();
                let (user, of) = [("u-1", "o-1"), ("u-2", "o-1"), ("u-3", "o-2")][number % 3];
                let account = member(user, of);
                let check = replica.limiter.check_endpoint(&account, Endpoint::CALL, rows(count));
                if check.wait().await.unwrap().is_admitted() {
                    admitted.push((user, of, u64::from(count)));
                }
            }
            admitted
        });
    }
    let all = tasks.join_all().await.concat();
    let sum = |is_it: &dyn Fn(&str, &str) -> bool| -> u64 {
        all.iter().filter(|(user, of, _)| is_it(user, of)).map(|(.., count)| count).sum()
    };
    let charged = charges(&server).await;
    for (user, of) in [("u-1", "o-1"), ("u-2", "o-1"), ("u-3", "o-2")] {
        let key = format!("bolna:2:{{organization:{of}}}:rows-user:user:{user}");
        assert_eq!(charged[&key], sum(&|its, _| its == user), "{user}");
    }
    for of in ["o-1", "o-2"] {
        let rows = format!("bolna:2:{{organization:{of}}}:rows");
        assert_eq!(charged[&rows], sum(&|_, its| its == of), "{of}");
    }
    assert_eq!(charged["bolna:2:{~everyone}:rows-all"], sum(&|_, _| true));
    // What is left is less than the largest request, and so is refused in the end.
    assert!((3981..=4000).contains(&sum(&|_, _| true)), "{charged:?}");
    nothing_was_lost(&fleet);
}
