use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, RedisStoreBuilder, RedisStoreErrorKind::Setting, Store};

use super::{assert_refused, refusal};

/// No server listens there: the error has to be found before the store connects.
const URL: &str = "redis://127.0.0.1:1";

/// The same is true if the operator wants to start without a server.
async fn assert_wrong(builder: impl Fn() -> RedisStoreBuilder, words: &[&str]) {
    assert_refused(&refusal(builder()).await, Setting, words);
    assert_refused(&refusal(builder().start_degraded()).await, Setting, words);
}

/// A wrong address, of which no part is in the text but its scheme.
async fn assert_address(builder: impl Fn() -> RedisStoreBuilder, words: &[&str]) {
    assert_wrong(&builder, words).await;
    let (_, text) = refusal(builder()).await;
    for part in ["localhost", "6379", "u-17", "secret", "mymaster", "nonsense", "http"] {
        // The examples name the usual ports.
        let told = text.replace("host:6379", "").replace("host:26379", "");
        assert!(!told.contains(part), "a part of an address may be a password: {text}");
    }
}

#[tokio::test]
async fn an_address_that_can_not_be_right_is_told() {
    for (url, words) in [
        ("", &["no scheme", "redis://"][..]),
        ("127.0.0.1:6379", &["no scheme", "redis://"]),
        ("localhost", &["no scheme", "redis://"]),
        ("redis:localhost", &["no scheme", "redis://"]),
        ("http://localhost:6379", &["scheme is not known", "redis://user:password@host:6379/0"]),
        ("Redis+http://localhost", &["scheme is not known"]),
        ("redis+nonsense://localhost", &["scheme is not known"]),
        ("http+sentinel://localhost/mymaster", &["scheme is not known"]),
        ("redis://u-17:secret@localhost:port", &["redis://...", "port is not a number"]),
        ("redis://u-17:secret@localhost:99999", &["redis://...", "port is not a number"]),
        ("rediss://localhost:0", &["rediss://..."]),
        ("redis://localhost/three", &["redis://...", "database"]),
        ("redis://", &["no host"]),
        ("redis://:6379", &["no host"]),
        ("redis://u-17:secret@", &["no host"]),
        ("redis://u-17:secret@localhost:1@localhost", &["@", "%40"]),
        ("redis://localhost,localhost", &["several hosts", "redis+sentinel://"]),
        ("redis://0.0.0.0:6379", &["wildcard"]),
        ("redis://localhost?protocol=4", &["protocol"]),
        ("redis://localhost?password=secret", &["before the host"]),
        ("redis+sentinel://localhost:26379", &["redis+sentinel://...", "service"]),
        ("redis+sentinel://localhost:26379/", &["service"]),
        ("redis+sentinel://localhost:26379//0", &["service"]),
        ("redis+sentinel:///mymaster", &["no host"]),
        ("redis+sentinel://localhost,/mymaster", &["no host", "host 2"]),
        ("redis+sentinel://localhost/mymaster/three", &["database"]),
    ] {
        assert_address(|| RedisStore::builder(url), words).await;
    }
    let of = |urls: &[&'static str]| {
        let urls = urls.to_vec();
        move || RedisStore::sentinel("mymaster", urls.clone())
    };
    assert_address(of(&[]), &["Sentinels", "none is named"]).await;
    assert_address(of(&["localhost:26379"]), &["no scheme", "host 1"]).await;
    assert_address(|| RedisStore::sentinel("", ["redis://localhost:26379"]), &["service"]).await;
}

#[tokio::test]
async fn an_address_of_a_cluster_that_can_not_be_right_is_told() {
    for (url, words) in [
        ("redis+cluster://", &["redis+cluster://...", "no host"][..]),
        ("redis+cluster://u-17:secret@", &["no host"]),
        ("redis+cluster://localhost:7000,", &["no host", "host 2"]),
        ("redis+cluster://localhost:7000,localhost:port", &["port is not a number", "host 2"]),
        ("redis+cluster://localhost:7000/3", &["database 0 only"]),
        ("http+cluster://localhost:7000", &["scheme is not known"]),
    ] {
        assert_address(|| RedisStore::builder(url), words).await;
    }
    assert_address(|| RedisStore::cluster([""; 0]), &["cluster", "no node of it is named"]).await;
    assert_address(|| RedisStore::cluster([URL, "localhost:7000"]), &["no scheme", "host 2"]).await;
    let database = format!("{URL}/3");
    assert_address(|| RedisStore::cluster([URL, &database]), &["database 0 only"]).await;
    assert_address(|| RedisStore::cluster([URL]).database(3), &["database"]).await;
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
    assert_wrong(|| RedisStore::builder(URL).max_corrections(0), &["corrections", "is 0"]).await;
}

/// Each replica counts its part of the requests in flight, whether it falls back or not.
#[tokio::test]
async fn capabilities_tell_the_number_of_replicas() {
    let replicas = async |builder: RedisStoreBuilder| {
        let store = builder.start_degraded().connect().await.unwrap();
        store.capabilities().replicas.get()
    };
    let builder = || RedisStore::builder(URL);
    assert_eq!(replicas(builder()).await, 1);
    assert_eq!(replicas(builder().expected_replicas(3)).await, 3);
    assert_eq!(replicas(builder().expected_replicas(3).without_fallback()).await, 3);
    assert_eq!(replicas(builder().without_fallback().expected_replicas(3)).await, 3);
}
