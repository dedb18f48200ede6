//! Limits that are not enforced, beside those that are.

use bolna_rate_limit::Enforcement;
use bolna_rate_limit::values::Outcome;

use super::{
    admitted, call, charges, keys, left, member, names, nothing_was_lost, ten_four_fifteen,
};
use crate::servers::Server;
use crate::support::Replica;

#[tokio::test]
async fn a_shadow_limit_among_others_refuses_nothing_and_is_charged_as_long_as_it_holds() {
    let server = Server::start().await;
    let policy = ten_four_fifteen().enforce("call-user", Enforcement::SHADOW).build().unwrap();
    let fleet = [Replica::on(&server, policy.clone()).await, Replica::on(&server, policy).await];
    let caller = member("u-1", "o-1");
    let limiter = |number: usize| &fleet[number % 2].limiter;
    // Admitted, and charged to the shadow limit.
    for number in 0..4 {
        let ruling = call(limiter(number), &caller).await;
        assert_eq!((ruling.outcome(), ruling.is_admitted()), (Outcome::Allowed, true));
        assert_eq!(names(ruling.enforced()), ["call", "call-all"]);
    }
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 4),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 4),
        ("bolna:2:{~everyone}:call-all", 4),
    ]);
    assert_eq!(charges(&server).await, expected);
    // Admitted, though the shadow limit would have refused.
    for number in 0..6 {
        let ruling = call(limiter(number), &caller).await;
        assert_eq!((ruling.outcome(), ruling.is_admitted()), (Outcome::Limited, true));
        assert_eq!((ruling.is_enforced(), ruling.violated().count()), (false, 0));
        assert_eq!(ruling.decision().map(|it| it.name().name()), Some("call-user"));
    }
    // Refused by the organization's limit: no bucket is charged, also not the shadow limit's.
    let other = member("u-2", "o-1");
    for number in 0..4 {
        let ruling = call(limiter(number), &other).await;
        assert_eq!((ruling.outcome(), ruling.is_admitted()), (Outcome::Limited, false));
        assert_eq!(names(ruling.violated()), ["call"]);
    }
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 10),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 4),
        ("bolna:2:{~everyone}:call-all", 10),
    ]);
    assert_eq!(charges(&server).await, expected);
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn with_shadow_limits_only_all_are_charged_or_none_and_every_request_is_admitted() {
    let server = Server::start().await;
    let replica = Replica::on(&server, ten_four_fifteen().build().unwrap()).await;
    replica.limiter.set_enforcement(Enforcement::SHADOW);
    let caller = member("u-1", "o-1");
    assert_eq!(admitted(&replica.limiter, &caller).await, 20);
    // As if they were enforced: the user's limit has kept the others from being charged.
    let expected = [("call", 6), ("call-user", 0), ("call-all", 11)];
    assert_eq!(left(&replica.limiter, &caller).await, expected);
    nothing_was_lost(&[replica]);
}

#[tokio::test]
async fn a_candidate_charges_buckets_of_its_own() {
    let server = Server::start().await;
    let replica = Replica::on(&server, super::calls(100, 50).build().unwrap()).await;
    let limiter = &replica.limiter;
    limiter.set_candidate(ten_four_fifteen().build().unwrap()).unwrap();
    let caller = member("u-1", "o-1");
    for number in 0..7 {
        let ruling = call(limiter, &caller).await;
        assert!(ruling.is_allowed());
        let candidate = ruling.candidate().unwrap();
        assert_eq!(candidate.all_allow(), number < 4);
        assert_eq!(names(candidate.as_slice().iter()), ["call", "call-user", "call-all"]);
    }
    let report = limiter.candidate_report();
    let of_call = report.iter().find(|it| it.endpoint.name() == "call").unwrap();
    assert_eq!((of_call.allowed, of_call.newly_limited), (4, 3));
    let expected = keys([
        ("bolna:2:{organization:o-1}:call", 7),
        ("bolna:2:{organization:o-1}:call+candidate", 4),
        ("bolna:2:{organization:o-1}:call-user+candidate:user:u-1", 4),
        ("bolna:2:{organization:o-1}:call-user:user:u-1", 7),
        ("bolna:2:{~everyone}:call-all+candidate", 4),
    ]);
    assert_eq!(charges(&server).await, expected);
    nothing_was_lost(&[replica]);
}
