//! A store without requests asks little of its servers.

use std::time::Duration;

use bolna_rate_limit::store::RedisStore;
use redis::InfoDict;
use tokio::time::sleep;

use crate::servers::{Sentinels, Server};
use crate::support::{Replica, buckets, patient, slow, stored};

/// The time in which the store probes its server some three times.
const A_WHILE: Duration = Duration::from_millis(3500);

#[tokio::test]
async fn probes_write_nothing() {
    let server = Server::start().await;
    let replica = Replica::on(&server, slow(5)).await;
    // The probe bucket that is charged at the start is full again.
    sleep(Duration::from_millis(50)).await;
    let keys: Vec<String> = stored(&server, &["KEYS", "*"]).await;
    assert_eq!(keys, [""; 0]);
    let writes = async || {
        let persistence: InfoDict = stored(&server, &["INFO", "persistence"]).await;
        persistence.get::<u64>("rdb_changes_since_last_save").unwrap()
    };
    let (written, called) = (writes().await, server.calls_of("evalsha").await);
    sleep(A_WHILE).await;
    assert_eq!(writes().await, written);
    let probes = server.calls_of("evalsha").await - called;
    assert!((2..=5).contains(&probes), "{probes}");
    assert_eq!(buckets(&server).await.len(), 0);
    assert_eq!(replica.events.all(), []);
}

#[tokio::test]
async fn one_connection_to_one_sentinel_is_kept() {
    let sentinels = Sentinels::start().await;
    let builder = RedisStore::sentinel(sentinels.service(), sentinels.urls());
    let replica = Replica::connect(patient(builder), slow(5)).await;
    let received = async || {
        let mut received = 0;
        for url in sentinels.urls() {
            let client = redis::Client::open(url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let mut info = redis::cmd("INFO");
            let stats: InfoDict = info.arg("stats").query_async(&mut connection).await.unwrap();
            received += stats.get::<u64>("total_connections_received").unwrap();
        }
        received
    };
    // Until it watches.
    sleep(Duration::from_millis(1500)).await;
    let before = received().await;
    sleep(A_WHILE).await;
    let own = sentinels.urls().len() as u64;
    assert_eq!(received().await - before, own, "the store makes no connection");
    assert_eq!(replica.events.all(), []);
}
