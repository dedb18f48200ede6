//! Paths that are charged to several endpoints: all or nothing, on the server too.

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::store::Charge;
use bolna_rate_limit::{Account, Endpoint, Policy};

use super::{charges, keys, member, names, nothing_was_lost};
use crate::servers::Server;
use crate::support::{HOUR, Replica, once_an_hour};

/// `default` as it is written, and `call` where the server decodes it.
const CALL: &str = "/%63all";

async fn check(replica: &Replica, account: &Account, path: &str) -> bolna_rate_limit::Ruling {
    replica.limiter.check(account, path).unwrap().wait().await.unwrap()
}

#[tokio::test]
async fn replicas_charge_all_endpoints_of_a_path_or_none() {
    let server = Server::start().await;
    let policy = Policy::bolna().quota("call", once_an_hour(3)).default_quota(once_an_hour(9));
    let policy = policy.build().unwrap();
    let fleet = [Replica::on(&server, policy.clone()).await, Replica::on(&server, policy).await];
    let caller = member("u-1", "o-1");
    for at in 0..8 {
        let ruling = check(&fleet[at % 2], &caller, CALL).await;
        assert_eq!(ruling.is_admitted(), at < 3);
        assert_eq!(ruling.endpoint(), Some(Endpoint::DEFAULT));
        assert_eq!(names(ruling.decisions().iter()), ["default", "call"]);
    }
    let charged =
        keys([("bolna:2:{organization:o-1}:call", 3), ("bolna:2:{organization:o-1}:default", 3)]);
    assert_eq!(charges(&server).await, charged);
    // A block on one of them refuses, and nothing is charged.
    let other = member("u-1", "o-2");
    fleet[0].limiter.block(&other, Endpoint::CALL, HOUR).await.unwrap();
    let blocked = check(&fleet[1], &other, CALL).await;
    assert_eq!((blocked.outcome().name(), blocked.is_admitted()), ("blocked", false));
    assert!(check(&fleet[1], &other, "/user/me").await.is_admitted());
    nothing_was_lost(&fleet);
}

#[tokio::test]
async fn one_call_of_the_script_charges_sixteen_buckets() {
    let server = Server::start().await;
    let four = |policy: PolicyBuilder, endpoint: &str| {
        (1..4).fold(policy.quota(endpoint, once_an_hour(9)), |policy, at| {
            let name = format!("{endpoint}-{at}");
            policy.also(endpoint, LimitBuilder::account(name, once_an_hour(9 - at)))
        })
    };
    let policy = ["executions", "agent", "call", "default"]
        .into_iter()
        .fold(Policy::bolna(), four)
        .build()
        .unwrap();
    let path = "/v2/agent/x%2Fexecutions%3f/../../../../../call%00/../../v2/agent/x";
    assert_eq!(policy.endpoints_of(path).len() * 4, Charge::MAX_ENTRIES);
    let replica = Replica::on(&server, policy).await;
    let caller = member("u-1", "o-1");
    for at in 0..8 {
        assert_eq!(check(&replica, &caller, path).await.is_admitted(), at < 6);
    }
    let charged = charges(&server).await;
    assert_eq!(charged.len(), Charge::MAX_ENTRIES);
    assert!(charged.values().all(|units| *units == 6), "{charged:?}");
    nothing_was_lost(&[replica]);
}
