//! Counting on a Redis or Valkey server, for several replicas.

mod backoff;
mod builder;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod commit;
mod connect;
mod error;
mod flight;
mod key;
mod ladder;
mod link;
mod majority;
mod script;
mod sentinel;
mod server_time;
mod servers;
mod service;
mod settings;
mod shards;
mod supervisor;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::{
    Answer, Bucket, DenialCache, DenialCacheCheck, Store, StoreError, StoreListener, StoreReport,
};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;

use ladder::{Ladder, LadderCheck};

pub use builder::RedisStoreBuilder;
pub use error::{RedisStoreError, RedisStoreErrorKind};
pub use settings::RedisEvent;

/// Counts on a Redis (6.2 or later) or Valkey server, so that several replicas have one limit.
///
/// ```no_run
/// use bolna_rate_limit::store::RedisStore;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://limiter:secret@redis.internal:6379")
///     .expected_replicas(3)
///     .on_event(|event| eprintln!("{event}"))
///     .connect()
///     .await?;
/// let layer = BolnaRateLimitLayer::with_limiter(Limiter::with_store(Policy::default(), store));
/// # Ok(())
/// # }
/// ```
///
/// # Addresses
/// | | |
/// |---|---|
/// | a server | `redis://user:password@host:6379/0`, `rediss://` for TLS (feature `redis-tls`), `unix:///path` |
/// | a primary that Sentinels watch | `redis+sentinel://user:password@host:26379,host,host/mymaster/0`, where the user is that of the primary; [`sentinel`](Self::sentinel) for Sentinels with users of their own |
/// | a cluster (feature `redis-cluster`) | `redis+cluster://user:password@host:7000,host:7000` |
///
/// # What is exact
/// A bucket is one key that holds one time, or two when it is [blocked](Store::block), and a script
/// decides by the server's clock: one Redis call is one decision, however many replicas ask. Time
/// counts in whole microseconds, so a quota whose
/// [emission interval](crate::Quota::emission_interval) is not a whole number of them refills that
/// much more slowly.
/// * Requests for one bucket that come while a call for it is under way share the next call, and
///   are granted in the order of their arrival.
/// * A bucket that has been seen empty is refused without a call until it can have a unit
///   ([`DenialCache`]).
/// * A check that has waited for longer than the [deadline](RedisStoreBuilder::deadline) is
///   answered without the server, and the server, should it ever get to it, sees that it is late
///   and charges nothing. What it may charge and not be heard of is what it does in the moment in
///   which a connection breaks, or in which its clock is set back.
///
/// # When the server is lost
/// No request waits for longer than the deadline. After five failures in a row, or when half of at
/// least twenty in a second have failed, the server is not asked any more, and each replica counts
/// in its own process, as [`LocalFallback`](crate::store::LocalFallback) describes: it goes on from
/// what it has seen of each bucket, and takes its share of [the expected
/// replicas](RedisStoreBuilder::expected_replicas). In the background the server is connected to at
/// once and then every 50 ms to 2 s, and counts again as soon as it has charged a bucket of
/// nobody's. Nothing has to be restarted.
///
/// # The server
/// It needs no configuration. A user needs `+evalsha +eval +time +get +set +del`, in a cluster
/// `+cluster|slots` as well, for a database other than 0 `+select`, and the keys `~bolna:1:*`. With
/// `maxmemory`, the policy `volatile-ttl` evicts the buckets first that are full soonest.
pub struct RedisStore {
    store: DenialCache<Ladder>,
}

impl RedisStore {
    /// Connects to the server of that address, with all settings as they are by default. See
    /// [addresses](Self#addresses).
    ///
    /// # Errors
    /// When the address can't be read, or the server can't be counted on.
    ///
    /// # Panics
    /// When it is polled outside of a tokio runtime with its timers enabled.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, RedisStoreError> {
        Self::builder(url).connect().await
    }

    /// Sets up a store on the server, or servers, of that address. See [addresses](Self#addresses).
    pub fn builder(url: impl AsRef<str>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(servers::parse(url.as_ref()))
    }

    /// Sets up a store on the primary that these Sentinels know as `service`. They are asked again
    /// at every reconnection, and once a second whether it still is the primary.
    ///
    /// A user in their addresses is one of the Sentinels; that of the primary is set with
    /// [`user`](RedisStoreBuilder::user) and [`password`](RedisStoreBuilder::password).
    pub fn sentinel(
        service: impl AsRef<str>,
        urls: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> RedisStoreBuilder {
        RedisStoreBuilder::new(servers::sentinels(service.as_ref(), urls))
    }

    /// Sets up a store on the cluster to which these nodes belong. One is enough to find the
    /// others, but it may be the one that is down.
    #[cfg(feature = "redis-cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-cluster")))]
    pub fn cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(servers::cluster(urls))
    }

    fn on(ladder: Ladder) -> Self {
        Self { store: DenialCache::new(ladder) }
    }
}

impl Store for RedisStore {
    type Check = RedisCheck;

    fn check(&self, bucket: Bucket<'_>) -> Answer<RedisCheck> {
        match self.store.check(bucket) {
            Answer::Now(answer) => Answer::Now(answer),
            Answer::Later(check) => Answer::Later(RedisCheck { check }),
        }
    }

    fn report(&self) -> StoreReport {
        self.store.report()
    }

    /// Tells what [`on_event`](RedisStoreBuilder::on_event) tells, and of the
    /// [cap](RedisStoreBuilder::max_local_buckets), if there is one.
    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener);
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        self.store.peek(bucket).await
    }

    /// Other replicas see it within an emission interval, and within a second.
    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.store.reset(principal, endpoint).await
    }

    /// Other replicas see it within an emission interval, and within a second. After an error it is
    /// not known whether the units have been given back, unless the server was not reached at
    /// all.
    async fn grant(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        if units == 0 { Ok(()) } else { self.store.grant(bucket, units).await }
    }

    /// Other replicas refuse at once; that a block is lifted they see within an emission interval,
    /// and within a second. It ends by the server's clock.
    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        self.store.block(principal, endpoint, period).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither addresses, which may hold passwords, nor buckets.
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

pin_project! {
    /// The check of a [`RedisStore`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RedisCheck {
        #[pin]
        check: DenialCacheCheck<LadderCheck>,
    }
}

impl Future for RedisCheck {
    type Output = Result<Decision, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().check.poll(cx)
    }
}

impl fmt::Debug for RedisCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCheck").finish_non_exhaustive()
    }
}

/// Different in every process and at every call; not for secrets.
fn random() -> u32 {
    // The keys of a new state are random.
    let [first, second, third, fourth, ..] = RandomState::new().hash_one(0_u8).to_ne_bytes();
    u32::from_ne_bytes([first, second, third, fourth])
}
