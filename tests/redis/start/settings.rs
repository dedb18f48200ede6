use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, RedisStoreBuilder, RedisStoreErrorKind::Setting};

use super::{assert_refused, refusal};

/// No server listens there: the error has to be found before the store connects.
const URL: &str = "redis://127.0.0.1:1";

/// The same is true if the operator wants to start without a server.
async fn assert_wrong(builder: impl Fn() -> RedisStoreBuilder, words: &[&str]) {
    assert_refused(&refusal(builder()).await, Setting, words);
    assert_refused(&refusal(builder().start_degraded()).await, Setting, words);
}

#[tokio::test]
async fn an_address_that_can_not_be_right_is_told() {
    for (url, words) in [
        ("", &["redis://"][..]),
        ("127.0.0.1:6379", &["127.0.0.1:6379", "no scheme", "redis://"]),
        ("localhost", &["localhost", "no scheme", "redis://"]),
        ("redis:localhost", &["redis:...", "no scheme"]),
        (
            "http://localhost:6379",
            &["http://localhost:6379", "redis://user:password@host:port/database"],
        ),
        ("Redis+http://localhost", &["http://localhost"]),
        ("redis+nonsense://localhost", &["redis+nonsense://localhost"]),
        ("redis://user:password@localhost:port", &["redis://localhost:..."]),
        ("redis://user:password@localhost:99999", &["redis://localhost:99999"]),
        ("redis://localhost:99999", &["redis://localhost:99999"]),
        ("redis://localhost/three", &["redis://localhost/three", "database"]),
        ("redis://", &["redis://"]),
        ("redis://:6379", &["redis://:6379"]),
        ("redis://user:password@", &["redis://"]),
        ("redis://0.0.0.0:6379", &["redis://0.0.0.0:6379", "wildcard"]),
        ("redis://localhost?protocol=4", &["redis://localhost", "rotocol"]),
        ("redis+sentinel://localhost:26379", &["redis+sentinel://localhost:26379", "service"]),
        ("redis+sentinel://localhost:26379/", &["redis+sentinel://localhost:26379/", "service"]),
        (
            "redis+sentinel://localhost:26379//0",
            &["redis+sentinel://localhost:26379//0", "service"],
        ),
        ("redis+sentinel:///mymaster", &["redis://"]),
        ("redis+sentinel://localhost,/mymaster", &["redis://"]),
        ("redis+sentinel://localhost/mymaster/three", &["three", "database"]),
        ("http+sentinel://localhost/mymaster", &["http://localhost"]),
    ] {
        assert_wrong(|| RedisStore::builder(url), words).await;
    }
    assert_wrong(|| RedisStore::sentinel("mymaster", [""; 0]), &["Sentinels", "none is named"])
        .await;
    assert_wrong(
        || RedisStore::sentinel("mymaster", ["localhost:26379"]),
        &["localhost:26379", "no scheme"],
    )
    .await;
    assert_wrong(|| RedisStore::sentinel("", ["redis://localhost:26379"]), &["service"]).await;
}

#[cfg(feature = "redis-cluster")]
#[tokio::test]
async fn an_address_of_a_cluster_that_can_not_be_right_is_told() {
    for (url, words) in [
        ("redis+cluster://", &["redis://"][..]),
        ("redis+cluster://user:password@", &["redis://"]),
        ("redis+cluster://localhost:7000,", &["redis://"]),
        ("redis+cluster://localhost:7000,localhost:port", &["redis://localhost:..."]),
        ("http+cluster://localhost:7000", &["http://localhost:7000"]),
    ] {
        assert_wrong(|| RedisStore::builder(url), words).await;
    }
    assert_wrong(|| RedisStore::cluster([""; 0]), &["cluster", "no node of it is named"]).await;
    assert_wrong(|| RedisStore::cluster([URL, "localhost:7000"]), &["localhost:7000", "no scheme"])
        .await;
}

#[tokio::test]
async fn a_prefix_that_can_not_be_right_is_told() {
    for prefix in ["", "{bolna}", "a{", "a b", "a\n", "ä", "a*", &"x".repeat(65)] {
        assert_wrong(
            || RedisStore::builder(URL).prefix(prefix),
            &["prefix", &format!("{prefix:?}"), "1 to 64"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_time_or_a_number_that_can_not_be_right_is_told() {
    for (time, value) in [
        (Duration::ZERO, "0ns"),
        (Duration::from_micros(999), "999µs"),
        (Duration::from_secs(61), "61s"),
        (Duration::MAX, "18446744073709551615.999999999s"),
    ] {
        assert_wrong(
            || RedisStore::builder(URL).deadline(time),
            &["deadline", value, "1 ms to 60 s"],
        )
        .await;
        let builder = || RedisStore::builder(URL).connect_timeout(time);
        assert_wrong(builder, &["connect timeout", value, "1 ms to 60 s"]).await;
    }
    assert_wrong(|| RedisStore::builder(URL).expected_replicas(0), &["expected replicas", "is 0"])
        .await;
    assert_wrong(|| RedisStore::builder(URL).max_in_flight(0), &["in flight", "is 0"]).await;
}
