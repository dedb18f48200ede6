//! A store on a Redis or Valkey server, shared by several replicas: the protocol.

mod address;
mod builder;
mod cluster;
mod connect;
mod connection;
mod credentials;
mod error;
mod key;
mod majority;
mod script;
mod secret;
mod sentinel;
mod servers;
mod session;
mod stream;
#[cfg(feature = "redis-tls")]
mod tls;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::store::{
    Answer, Capabilities, Charge, Checked, Command, Concluding, DenialCache, DenialCacheCall,
    FallbackCall, LocalFallback, Reply, Store, StoreError, StoreListener, StoreReport,
};

use servers::{RemoteCheck, Servers};

pub use builder::RedisStoreBuilder;
pub use credentials::Credentials;
pub use error::{RedisStoreError, RedisStoreErrorKind};

/// Keeps the buckets on a Redis or Valkey server, so that several replicas share one limit.
///
/// ```no_run
/// use bolna_rate_limit::store::RedisStore;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://limiter:secret@redis.internal:6379")
///     .expected_replicas(3)
///     .connect()
///     .await?;
/// let limiter = Limiter::with_store(Policy::default(), store)?;
/// limiter.on_event(|event| eprintln!("{event}"));
/// let layer = BolnaRateLimitLayer::with_limiter(limiter);
/// # Ok(())
/// # }
/// ```
///
/// # Addresses
/// * A server: `redis://user:password@host:6379/0`, `rediss://` for TLS (feature `redis-tls`), or
///   `unix:///path`.
/// * A primary that Sentinels watch:
///   `redis+sentinel://user:password@host:26379,host,host/mymaster/0`. The user is that of the
///   primary; if the Sentinels have users of their own, use [`sentinel`](Self::sentinel).
/// * A cluster: `redis+cluster://user:password@host:7000,host:7000`.
///
/// # What is exact
/// A script on the server charges all buckets of a [`Charge`] in one step, by the server's clock,
/// so the limit holds however many replicas there are. It decides as [`Charge::apply`] does, with
/// costs, shadow entries and overdrafts. Times are whole microseconds. An
/// [emission interval](crate::Quota::emission_interval) that is not a whole number of them is
/// rounded up, so the bucket refills a little more slowly.
/// * Requests of a principal that arrive while a call for it is in flight share the next call, and
///   are charged in the order of their arrival, whatever their buckets and quotas.
/// * After a bucket was seen without a unit, requests that are charged to it alone are refused
///   without a call until it can have one again, but for at most one emission interval or one
///   second, whichever is shorter ([`DenialCache`]).
/// * A check that has waited for longer than the [deadline](RedisStoreBuilder::deadline) is decided
///   without the server. If the call reaches the server after that, the server charges nothing. If
///   only the answer comes later, the unit is not charged once more; it counts among the
///   [late charges](StoreReport::late_charges).
///
/// A cluster has no limits for [everyone](crate::values::Scope::Everyone), since it keeps their
/// buckets on other servers than those of a principal. A proxy that spreads keys among several
/// servers, such as `twemproxy`, keeps a bucket of everyone on each of them, and the store can't
/// know that: use no limits for everyone there.
///
/// If the connection breaks while a call is in flight, it is not known whether its units were
/// charged. They may then be charged twice, or without the caller learning of it.
///
/// # When the server is lost
/// No request waits for longer than the deadline. The server counts as lost
/// * when its connection breaks,
/// * when it fails the probe that is sent every second, or does not answer it within the
///   [connect timeout](RedisStoreBuilder::connect_timeout),
/// * after five failures in a row, or
/// * when at least half of at least 20 answers within one second are failures.
///
/// From then on no request is sent to it. Each replica charges buckets in its own process, as
/// [`LocalFallback`] describes: it goes on from what it last saw of each bucket, with its share of
/// the limit, which depends on [the expected replicas](RedisStoreBuilder::expected_replicas).
///
/// In the background the store reconnects at once, if the connection had served, and then every
/// 50 to 500 ms. It uses the server again as soon as the server has charged a probe bucket, which
/// belongs to no principal, within half the deadline. Nothing has to be restarted.
///
/// When the server is back, each replica charges it for what it has admitted meanwhile, by an
/// overdraft of at most one burst: see [how much that
/// is](LocalFallback#how-much-is-admitted). So, for each bucket,
/// * however often all replicas lose the server together, they admit at most one burst more than
///   the limit: in any interval, two bursts and what comes back in it;
/// * when k of N replicas are cut off while the others are not, they admit in addition k/N of a
///   burst and of what the limit allows for that time. At most one burst of that is charged back.
///
/// These bounds do not cover
/// * a replica that ends before it has charged back,
/// * a number of expected replicas that is too small,
/// * a burst below the number of replicas, since each replica has at least one unit, or
/// * a server that loses its data.
///
/// # Corrections after the response
/// A refund or a settlement that is [submitted](Store::submit) waits in this process for the next
/// call for its principal, which carries it out before it charges requests. If there is no request,
/// the store makes a call for it.
///
/// While the server is lost,
/// * a refund of a unit that this replica has admitted without the server reduces what it charges
///   back, immediately;
/// * other refunds wait;
/// * a settlement is added to what this replica charges back, and waits only
///   [without a fallback](RedisStoreBuilder::without_fallback), or if there is no room for that.
///
/// What waits is carried out at most once; what is charged back may be charged twice, if the
/// connection breaks before the answer.
///
/// * At most [`max_corrections`](RedisStoreBuilder::max_corrections) wait. A correction is merged
///   with the last one of its bucket if both are refunds, or both settlements, by the same quota.
///   So a series of refunds of one caller takes one entry of the queue for each bucket.
/// * If the server refuses a call, or the call reaches it after its deadline, nothing was done, and
///   the correction waits again. If the connection breaks before the answer, the correction counts
///   as lost, although the server may have carried it out.
/// * In a cluster, corrections wait for the node that has their buckets. Those for other nodes do
///   not wait for it.
/// * A [reset](Command::Reset) makes void what waits for its bucket.
/// * What waits when the store is dropped or the process ends is lost, as is what was to be charged
///   back.
///
/// The [report](StoreReport) says how many wait and how many are lost.
///
/// # The server
/// It is tested on Redis 6.2 and later, Valkey 8 and 9, with Sentinels, as a cluster, and behind
/// `haproxy` and `twemproxy` (with `hash_tag: "{}"`). No version is too old in itself: if the
/// server lacks something that the store needs, the error says what when the store connects. Where
/// a server refuses `TIME` inside scripts, the time is an argument of each call. Then the server
/// can't check the deadline, so late calls are charged, and the time is known only to within half
/// of the shortest round trip.
///
/// The server needs no configuration. Its user needs
/// * the commands `+evalsha +eval +time +get +set +del`,
/// * in a cluster also `+cluster|slots +asking`,
/// * for a database other than 0 also `+select`, and
/// * the keys `~bolna:2:*`, or those of another [prefix](RedisStoreBuilder::prefix).
///
/// A bucket is a key such as `bolna:2:{organization:org-4}:call`, which expires when the bucket is
/// full and not [blocked](Command::Block). That of a user within the organization ends in
/// `:call-user:user:u-17`, and one of [everyone](crate::values::Scope::Everyone) is
/// `bolna:2:{~everyone}:call-all`. The `2` is the format of keys and values. A format is
/// never changed in place, so releases of different formats can share a server. While releases of
/// two formats run, a caller can spend a burst with each of them.
///
/// If `maxmemory` is set, the policy `volatile-ttl` evicts mostly the buckets that will be full
/// soonest.
pub struct RedisStore {
    store: DenialCache<LocalFallback<Servers>>,
}

impl RedisStore {
    /// Connects to the server at `url`, with the default settings. See
    /// [addresses](Self#addresses).
    ///
    /// # Errors
    /// If the address can't be read, or the server can't be used: see [`RedisStoreErrorKind`], and
    /// [`RedisStoreBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, RedisStoreError> {
        Self::builder(url).connect().await
    }

    /// Sets up a store on the server, or servers, at `url`. See [addresses](Self#addresses).
    pub fn builder(url: impl AsRef<str>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(address::Servers::parse(url.as_ref()))
    }

    /// Sets up a store on the primary that these Sentinels know as `service`. At every reconnection
    /// all Sentinels are asked for it, and the answer of most of them counts. In between, one
    /// Sentinel is asked every second, over a connection that is kept open, whether that server is
    /// still the primary.
    ///
    /// A user in `urls` is a user of the Sentinels. Set the user of the primary with
    /// [`user`](RedisStoreBuilder::user) and [`password`](RedisStoreBuilder::password).
    pub fn sentinel(
        service: impl AsRef<str>,
        urls: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> RedisStoreBuilder {
        RedisStoreBuilder::new(address::Servers::sentinels(service.as_ref(), urls))
    }

    /// Sets up a store on the cluster to which these nodes belong. One node is enough to find the
    /// others; name several in case that one is down.
    pub fn cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(address::Servers::cluster(urls))
    }

    fn on(store: LocalFallback<Servers>) -> Self {
        Self { store: DenialCache::new(store) }
    }
}

impl Store for RedisStore {
    type Check = RedisCheck;

    fn check(&self, charge: Charge<'_>) -> Answer<RedisCheck> {
        match self.store.check(charge) {
            Answer::Now(answer) => Answer::Now(answer),
            Answer::Later(check) => Answer::Later(RedisCheck { check }),
        }
    }

    /// A block takes effect on all replicas at once, and ends by the server's clock. A reset, a
    /// refund or the end of a block can reach other replicas later, by one emission interval or one
    /// second, whichever is shorter.
    ///
    /// # Errors
    /// If the server fails, or the command is not supported. The command may have been carried out
    /// all the same, unless the server was not reached at all.
    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.store.command(command).await
    }

    /// Takes refunds and settlements: see [corrections](Self#corrections-after-the-response).
    ///
    /// # Errors
    /// If as many as the store keeps are waiting already, which is of the kind `too_many`. If the
    /// command is another one, or beyond the store's [capabilities](Self::capabilities).
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        self.store.submit(command)
    }

    /// Everything that [`Capabilities`] lists, but on a cluster no limits for
    /// [everyone](crate::values::Scope::Everyone).
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn report(&self) -> StoreReport {
        self.store.report()
    }

    /// Subscribes to the loss and the return of servers, and to the changes of the
    /// [cap](RedisStoreBuilder::max_local_buckets) if there is one.
    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener);
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Show neither addresses, which may contain passwords, nor buckets.
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

pin_project! {
    /// The check of a [`RedisStore`].
    ///
    /// The [example of `RedisStore`](RedisStore) makes the store that it belongs to.
    #[must_use = "futures do nothing unless polled"]
    pub struct RedisCheck {
        #[pin]
        check: Concluding<Concluding<RemoteCheck, FallbackCall>, DenialCacheCall>,
    }
}

impl Future for RedisCheck {
    type Output = Checked;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().check.poll(cx)
    }
}

impl fmt::Debug for RedisCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCheck").finish_non_exhaustive()
    }
}

/// A random number, different in every process and at every call; not for secrets.
fn random() -> u32 {
    // A new `RandomState` has random keys.
    let [first, second, third, fourth, ..] = RandomState::new().hash_one(0_u8).to_ne_bytes();
    u32::from_ne_bytes([first, second, third, fourth])
}
