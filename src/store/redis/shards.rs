//! Finds the server that holds a bucket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(feature = "redis-cluster")]
use super::cluster::Cluster;
use super::connect::{Connection, connect};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::key::probe;
use super::link::{Link, LinkCheck};
use super::servers::{Route, Servers};
use super::settings::{Settings, WHOLE};
use super::supervisor::Supervisor;
use crate::store::{
    Answer, Breaker, BreakerCall, Charge, Command, Concluding, Reply, Store, StoreError,
    StoreEvent, StoreListener, StoreReport,
};

/// One server, behind a breaker that keeps requests from waiting for it when it fails.
pub(super) type Shard = Arc<Breaker<Link>>;

/// The servers: one that holds all buckets, or the primaries of a cluster, which share them.
pub(super) enum Shards {
    One(Shard),
    #[cfg(feature = "redis-cluster")]
    Cluster(Arc<Cluster>),
}

impl Shards {
    pub(super) async fn start(
        servers: Servers,
        settings: Arc<Settings>,
        degraded: bool,
    ) -> Result<Self, RedisStoreError> {
        let route = match servers {
            Servers::One(info) => Route::Fixed(Box::new(info)),
            Servers::Sentinels(sentinels) => Route::Sentinels(Arc::new(sentinels)),
            #[cfg(feature = "redis-cluster")]
            Servers::Cluster(nodes) => {
                return Cluster::start(nodes, settings, degraded).await.map(Self::Cluster);
            }
        };
        let nobodys = probe(&settings.prefix, super::random());
        let first = match route.find(settings.connect_timeout).await {
            Ok(info) => connect(&info, &nobodys, &settings).await,
            Err(error) => Err(error),
        };
        let first = or_degraded(first, WHOLE, &route.to_string(), &settings, degraded)?;
        let told = first.is_none();
        Ok(Self::One(start(route, nobodys, settings, WHOLE, first, told, || {})))
    }
}

/// The result of a first attempt to connect. If it failed and `degraded` is set, reports the server
/// as lost and returns `None`; a wrong setting stays an error.
pub(super) fn or_degraded<T>(
    first: Result<T, RedisStoreError>,
    number: u64,
    server: &str,
    settings: &Settings,
    degraded: bool,
) -> Result<Option<T>, RedisStoreError> {
    match first {
        Ok(first) => Ok(Some(first)),
        Err(reason) if degraded && reason.kind() != Kind::Setting => {
            settings.tell(number, reason.lost(server));
            Ok(None)
        }
        Err(reason) => Err(reason),
    }
}

/// Starts the supervisor of one server, which connects unless `first` is a connection. `number`
/// identifies the server in the standing events. `told` is whether it was reported that the server
/// of its buckets is lost.
pub(super) fn start(
    route: Route,
    probe: String,
    settings: Arc<Settings>,
    number: u64,
    first: Option<Connection>,
    told: bool,
    on_trouble: impl Fn() + Send + Sync + 'static,
) -> Shard {
    let (link, shared, messages) = Link::new(settings, number);
    shared.up.store(first.is_some(), Ordering::Release);
    shared.told.store(told, Ordering::Release);
    let trip = link.tripper();
    // Only the supervisor, which reconnects in the background, closes the breaker: no request is
    // sent as a trial.
    let breaker = Breaker::new(link).try_again_after(Duration::MAX).on_change(move |event| {
        if matches!(event, StoreEvent::Lost { .. }) {
            trip();
        }
    });
    let shard = Arc::new(breaker);
    let guarded = Arc::downgrade(&shard);
    let told = move |tell: fn(&Breaker<Link>)| {
        if let Some(shard) = guarded.upgrade() {
            tell(&shard);
        }
    };
    let (up, down) = (told.clone(), told);
    let supervisor = Supervisor {
        route,
        probe,
        shared,
        messages,
        on_up: Box::new(move || up(Breaker::close)),
        on_down: Box::new(move || down(Breaker::open)),
        on_trouble: Box::new(on_trouble),
    };
    tokio::spawn(supervisor.run(first));
    shard
}

impl Store for Shards {
    type Check = Concluding<LinkCheck, BreakerCall>;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        match self {
            Self::One(shard) => shard.check(charge),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => {
                match cluster.shard(charge.principal(), charge.entries()[0].endpoint()) {
                    Ok(shard) => shard.check(charge),
                    Err(error) => Answer::Now(Err(error)),
                }
            }
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match self {
            Self::One(shard) => shard.command(command).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => {
                let (principal, endpoint) = command.first_bucket();
                cluster.shard(principal, endpoint)?.command(command).await
            }
        }
    }

    fn report(&self) -> StoreReport {
        match self {
            Self::One(shard) => shard.report(),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.report(),
        }
    }

    /// Does not subscribe to the breakers: they open because a server is lost, which is reported
    /// already.
    fn subscribe(&self, listener: StoreListener) {
        match self {
            Self::One(shard) => shard.store().settings().subscribe(listener),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.settings().subscribe(listener),
        }
    }
}
