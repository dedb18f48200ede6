//! Several servers, which keep everyone's buckets apart from those of an account.

use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::{Limiter, Policy, PolicyError};

use super::{admitted, call, charges, left, member, names, nothing_was_lost, ten_four_fifteen};
use crate::servers::{Cluster, Server, Twemproxy};
use crate::support::{Replica, patient, store};

#[tokio::test]
async fn a_cluster_counts_accounts_and_users_and_says_that_it_can_not_count_everyone() {
    let cluster = Cluster::start().await;
    let connect = async || patient(RedisStore::cluster(cluster.urls())).connect().await.unwrap();
    let policy = ten_four_fifteen().build().unwrap();
    let error = Limiter::with_store(policy.clone(), connect().await).unwrap_err();
    assert!(matches!(&error, PolicyError::Unsupported { limit, .. } if limit == "call-all"));
    assert_eq!(
        error.to_string(),
        "limit \"call-all\": it counts everyone together, and the store can't: a Redis Cluster \
         never can"
    );

    let limiter = Limiter::with_store(Policy::default(), connect().await)
        .expect("the store can do what the policy asks for");
    assert_eq!(limiter.set_policy(policy.clone()), Err(error.clone()));
    assert_eq!(limiter.set_candidate(policy.clone()), Err(error));
    assert_eq!((limiter.policy(), limiter.candidate()), (Policy::default(), None));

    // The limits for everyone are left out of an account's own policy.
    let caller = member("u-1", "o-1").with_policy(policy);
    let ruling = call(&limiter, &caller).await;
    assert!(ruling.is_admitted());
    assert_eq!(names(ruling.decisions().iter()), ["call", "call-user"]);
    assert_eq!(admitted(&limiter, &caller).await, 3);
    assert_eq!(left(&limiter, &caller).await, [("call", 6), ("call-user", 0)]);
}

/// The proxy sends a script to the server of its first key, and does not say that it spreads keys.
#[tokio::test]
async fn behind_a_proxy_that_spreads_keys_each_server_has_a_bucket_of_everyone() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let proxy = Twemproxy::to(&servers).await;
    let policy = ten_four_fifteen().build().unwrap();
    let replica = Replica::connect(store(proxy.url()), policy).await;
    let mut all = 0;
    for number in 0..30 {
        // The number comes first: the proxy's hash hardly mixes in the last characters of a key.
        all += admitted(&replica.limiter, &member("u", &format!("{number}-org"))).await;
    }
    assert_eq!(all, 3 * 15);
    for server in &servers {
        assert_eq!(charges(server).await["bolna:2:{~everyone}:call-all"], 15);
    }
    nothing_was_lost(&[replica]);
}
