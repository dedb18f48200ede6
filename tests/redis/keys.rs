//! Each principal has a bucket of its own, whatever characters its id has.

use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::{Limiter, Policy, Principal};

use crate::servers::Server;
use crate::support::{
    Replica, assert_lasts_until, buckets, charged, once_an_hour, organization, slow, store,
};

#[tokio::test]
async fn a_key_names_the_endpoint_and_who_pays_and_expires_when_the_bucket_is_full() {
    let server = Server::start().await;
    let policy = Policy::bolna().quota("call", once_an_hour(2)).build().unwrap();
    let replica = Replica::connect(store(server.url()).prefix("eu/api:v7"), policy.clone()).await;
    let other = Replica::connect(store(server.url()), policy).await;
    let user = Principal::user("u-17").unwrap();
    let check = async |limiter: &Limiter<RedisStore>, who: &Principal, path: &str| {
        assert!(limiter.check(&who.into(), path).unwrap().wait().await.unwrap().is_allowed());
    };
    check(&replica.limiter, &organization("org-4"), "/call").await;
    check(&replica.limiter, &user, "/v2/agent/7/executions").await;
    check(&other.limiter, &user, "/user/me").await;
    assert_eq!(
        buckets(&server).await,
        [
            "bolna:2:{user:u-17}:default",
            "eu/api:v7:2:{organization:org-4}:call",
            "eu/api:v7:2:{user:u-17}:executions"
        ]
    );

    let key = "eu/api:v7:2:{organization:org-4}:call";
    let full_at = server.command(&["GET", key]).await.unwrap();
    assert_lasts_until(&server, key, full_at).await;
}

#[tokio::test]
async fn every_id_has_a_bucket_of_its_own() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(100)).await;
    let long = "x".repeat(10_240);
    let almost = format!("{}y", &long[1..]);
    let ids = [
        "a",
        "A",
        "a:b",
        "a%3Ab",
        "{a}",
        "{a}b",
        "a{b}",
        "{}",
        "{",
        " a",
        "a b",
        "a\r\nb",
        "\r\na",
        "a\0b",
        "a\0",
        "\0",
        "ä",
        "a\u{308}",
        "日本",
        "~",
        "*",
        "?",
        "o:a",
        "u:a",
        ":",
        "bolna:2:{organization:a}:default",
        &long,
        &almost,
    ];
    let principals = || ids.iter().flat_map(|id| [Principal::user(id).unwrap(), organization(id)]);
    // Each principal has another number of requests, so that a unit in another's bucket is noticed.
    for (times, who) in (1..).zip(principals()) {
        for _ in 0..times {
            assert!(replica.check(&who).await.is_allowed(), "{who:?}");
        }
    }
    for (times, who) in (1..).zip(principals()) {
        assert_eq!(replica.left(&who).await, 100 - times, "{who:?}");
    }
    assert_eq!(buckets(&server).await.len(), 2 * ids.len());
    assert_eq!(charged(&server, "bolna:2:{organization:a}:default").await, 2);
    assert_eq!(charged(&server, "bolna:2:{user:a%3Ab}:default").await, 5);
    assert_eq!(replica.events.all().len(), 0);
}
