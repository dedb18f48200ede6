//! Where the store runs: behind proxies, and on servers that lack something. In each place it
//! starts, and counts exactly.

use bolna_rate_limit::store::RedisStoreBuilder;
use futures_util::future::join_all;

use crate::support::{Replica, organization, slow};

mod credentials;
mod lacking;
mod proxies;

/// Asserts that of 600 requests exactly the 500 that the quota allows are admitted, and that there
/// is no event. Without the server, a replica would admit 250.
async fn assert_exact(builder: RedisStoreBuilder) -> Replica {
    let replica = Replica::connect(builder, slow(500)).await;
    let who = organization("acme");
    let mut admitted = 0;
    for _ in 0..20 {
        // Some share a call, others have one of their own.
        let shared = join_all((0..29).map(|_| replica.check(&who))).await;
        let own = replica.check(&who).await;
        admitted += shared.iter().chain([&own]).filter(|decision| decision.is_allowed()).count();
    }
    assert_eq!(admitted, 500);
    assert_eq!(replica.events.all(), []);
    replica
}
