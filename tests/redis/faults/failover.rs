//! Primaries that Sentinels replace.

use std::time::Instant;

use bolna_rate_limit::store::RedisStore;

use super::{Fleet, MINUTELY, WHO, until_replicated};
use crate::servers::Sentinels;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_replaced_is_left_for_its_successor() {
    let sentinels = Sentinels::start().await;
    let fleet =
        Fleet::of(MINUTELY, || RedisStore::sentinel(sentinels.service(), sentinels.urls())).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    until_replicated(sentinels.primary().await).await;
    let (old, began) = (sentinels.primary().await.port(), Instant::now());
    let new = sentinels.failover().await;
    assert_ne!(new.port(), old);
    fleet.until("all have gone over", |replica| replica.events().len() == 2).await;
    let lost = began.elapsed();
    fleet.counts_on(new).await;
    // Until the old primary is demoted, both admit requests.
    traffic.stop().await.is_within_in_all(1, lost);
    fleet.has_told_once(&["read_only", "unreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_is_succeeded() {
    let sentinels = Sentinels::start().await;
    let fleet =
        Fleet::of(MINUTELY, || RedisStore::sentinel(sentinels.service(), sentinels.urls())).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let old = sentinels.primary().await;
    until_replicated(old).await;
    let lost = fleet
        .outage(
            async || old.kill(),
            async || {
                sentinels.successor_of(old).await;
            },
        )
        .await;
    fleet.counts_on(sentinels.primary().await).await;
    traffic.stop().await.is_within(1, lost);
    fleet.has_told_once(&["unreachable"]);
}
