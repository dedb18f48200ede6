//! The settings of a store, as an operator gives them.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::connect::Connecting;
use super::credentials::Provider;
use super::error::RedisStoreError;
use super::key::is_prefix;
use super::servers::{Parts, Servers};
#[cfg(feature = "redis-tls")]
use super::tls::{Certificates, Tls};
use super::{Credentials, RedisStore, address};
use crate::store::fallback::{Ledger, LocalFallback};
use crate::store::listeners::Listeners;
use crate::store::memory::MemoryStore;
use crate::store::remote::corrections::Corrections;
use crate::store::remote::home::Home;
use crate::store::remote::settings::Settings;
use crate::values::clock::MonotonicClock;

/// The default for the most buckets whose local charges are remembered until the server is back.
const MOST_OWED: usize = 1_000_000;

/// The default for the most corrections that wait.
const MOST_CORRECTIONS: usize = 65_536;

/// Sets up a [`RedisStore`]. Made by [`RedisStore::builder`], [`sentinel`](RedisStore::sentinel) or
/// [`cluster`](RedisStore::cluster).
///
/// If a setting is wrong, [`connect`](Self::connect) fails and says why.
#[must_use = "nothing is connected before `connect`"]
pub struct RedisStoreBuilder {
    servers: Result<address::Servers, RedisStoreError>,
    user: Option<String>,
    password: Option<String>,
    credentials: Option<Provider>,
    database: Option<u32>,
    #[cfg(feature = "redis-tls")]
    certificates: Certificates,
    prefix: String,
    deadline: Duration,
    connect_timeout: Duration,
    most_waiting: usize,
    expected_replicas: u32,
    /// Whether this process decides while the server is lost.
    falls_back: bool,
    most_local: Option<usize>,
    most_corrections: usize,
    degraded: bool,
}

impl RedisStoreBuilder {
    pub(super) fn new(servers: Result<address::Servers, RedisStoreError>) -> Self {
        Self {
            servers,
            user: None,
            password: None,
            credentials: None,
            database: None,
            #[cfg(feature = "redis-tls")]
            certificates: Certificates::default(),
            prefix: "bolna".to_owned(),
            deadline: Duration::from_millis(25),
            connect_timeout: Duration::from_millis(500),
            most_waiting: 8192,
            expected_replicas: 1,
            falls_back: true,
            most_local: None,
            most_corrections: MOST_CORRECTIONS,
            degraded: false,
        }
    }

    /// The ACL user, instead of the one in the URL. With Sentinels, this is the primary's user.
    ///
    /// The user needs
    /// * the commands `+evalsha +eval +time +get +set +del`,
    /// * in a cluster also `+cluster|slots +asking`,
    /// * for a [database](Self::database) other than 0 also `+select`, and
    /// * the keys `~bolna:2:*`, or those of another [prefix](Self::prefix).
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The password, instead of the one in the URL. With Sentinels, this is the password for the
    /// primary.
    pub fn password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// Asks `callback` for the user and the password at each connect, instead of those in the URL
    /// and those that [`user`](Self::user) and [`password`](Self::password) set. This is for
    /// passwords that change, such as the tokens of managed services or of a vault. With Sentinels,
    /// these are the credentials for the primary.
    ///
    /// The callback has the [connect timeout](Self::connect_timeout) to answer. If it fails or
    /// panics, the attempt to connect has failed, and the store tries again as after any other
    /// failure. In a cluster the store also connects to each node every 10 s, to ask it for the
    /// slots. So the callback should keep a password for as long as it is valid.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use bolna_rate_limit::store::{Credentials, RedisStore};
    ///
    /// # async fn token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = RedisStore::builder("rediss://cache.internal:6379")
    ///     .credentials(|| async {
    ///         // A token that is valid for 15 minutes.
    ///         let credentials = Credentials::new(token().await?).user("limiter");
    ///         Ok::<_, std::io::Error>(credentials.expires_after(Duration::from_secs(900)))
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials<F, E>(self, callback: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self { credentials: Some(Provider::new(callback)), ..self }
    }

    /// The number of the database, instead of the one in the URL. Defaults to 0, which is the only
    /// database of a cluster.
    pub fn database(self, number: u32) -> Self {
        Self { database: Some(number), ..self }
    }

    /// The root certificates, in PEM, by which the servers' certificates are verified, instead of
    /// the system's. They are used only over TLS, with addresses such as `rediss://`.
    ///
    /// The cryptography provider is the one that the process has installed for rustls, or else
    /// `ring`.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// The certificate by which servers identify this client, and its key, both in PEM. They are
    /// used only over TLS.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.client = Some((certificate.into(), key.into()));
        self
    }

    /// The beginning of all keys: 1 to 64 characters of `[A-Za-z0-9_.:/-]`. Defaults to `bolna`.
    ///
    /// Limiters with the same prefix on the same server share their buckets, whatever their
    /// policies.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The longest time that a check takes, everything included: 1 ms to 60 s. Defaults to 25 ms.
    /// When the deadline passes, the check is decided as if the server were lost. The server
    /// charges nothing for a call that reaches it after the deadline, unless it refuses `TIME`
    /// inside scripts. What it has charged for a check that did not wait for the answer is one of
    /// the [late charges](crate::store::StoreReport::late_charges).
    ///
    /// The deadline has to exceed two round trips, because a request may wait for the call in
    /// flight and then for its own. So a connection is used only if the server answers within half
    /// the deadline when it is made.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The longest time that one step of connecting takes: 1 ms to 60 s. Defaults to 500 ms. After
    /// the start the store connects in the background, so no request waits for it.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// The most principals whose requests wait for a server at a time; at least 1. Defaults to
    /// 8192. Requests of further principals are decided as if the server were lost. In a cluster,
    /// the number is per primary.
    ///
    /// The requests of one principal share a call, so they need no more than one place, however
    /// many there are.
    pub fn max_in_flight(self, principals: usize) -> Self {
        Self { most_waiting: principals, ..self }
    }

    /// The number of replicas that share the server; at least 1. While the server is lost, each
    /// replica admits its share of the limit. As long as the server answers, the number has no
    /// effect on rates. Limits of
    /// [requests in flight](crate::policy::PolicyBuilder::concurrent) are not counted by the
    /// server: each replica always has its share of them.
    ///
    /// Defaults to 1, **which is right for one replica only**: while the server is lost, three
    /// replicas that are set to 1 admit three times the limit. If the number is too high, they
    /// admit too little.
    ///
    /// See [`LocalFallback`](crate::store::LocalFallback) for what is charged, and how exactly.
    pub fn expected_replicas(self, replicas: u32) -> Self {
        Self { expected_replicas: replicas, ..self }
    }

    /// The most buckets that are kept in this process for the time when the server is lost; at
    /// least 1. It works as [`MemoryStore::max_buckets`](crate::store::MemoryStore::max_buckets).
    /// By default there is no cap, and memory grows with the number of buckets that are not full.
    ///
    /// This number also caps the buckets for which this process remembers what it has to charge
    /// back. That cap is 1,000,000 by default. When it is reached, the checks of further buckets
    /// fail while the server is lost, and the layer's
    /// [`on_store_failure`](crate::BolnaRateLimitLayer::on_store_failure) decides.
    pub fn max_local_buckets(self, buckets: usize) -> Self {
        Self { most_local: Some(buckets), ..self }
    }

    /// The most corrections that wait for the server, or in a cluster for all servers; at least 1.
    /// Defaults to 65,536. Corrections are refunds and settlements that were
    /// [submitted](crate::store::Store::submit): see
    /// [corrections](RedisStore#corrections-after-the-response).
    ///
    /// When as many wait, further ones are lost. The report
    /// [counts](crate::store::StoreReport::lost_corrections) them, and the limiter sends an
    /// [event](crate::observe::Event::CorrectionFailed) for the first.
    pub fn max_corrections(self, corrections: usize) -> Self {
        Self { most_corrections: corrections, ..self }
    }

    /// Switches off the fallback in this process. While the server is lost, every check fails, and
    /// the layer's [`on_store_failure`](crate::BolnaRateLimitLayer::on_store_failure) decides
    /// whether the request is admitted. By default it is refused with a 503.
    pub fn without_fallback(self) -> Self {
        Self { falls_back: false, ..self }
    }

    /// Starts even if the server can't be used yet, as if it had just been lost. By default,
    /// [`connect`](Self::connect) fails then. A wrong setting is an error either way.
    pub fn start_degraded(self) -> Self {
        Self { degraded: true, ..self }
    }

    /// Connects, and starts a task that keeps the connection. In a cluster there is a task for each
    /// primary, and one more. The tasks end when the store is dropped.
    ///
    /// The tasks run on the current tokio runtime if it is multi-threaded. Otherwise the store
    /// starts a thread for them: a current-thread runtime is driven only while it blocks on a
    /// future, and a check must get its answer in time. Checks may be made from any thread or
    /// executor.
    ///
    /// Connecting charges a probe bucket, which belongs to no principal. So anything that requests
    /// need and the server lacks is found now.
    ///
    /// # Errors
    /// * If a setting is wrong.
    /// * If the current tokio runtime is multi-threaded and its timers or sockets are not enabled.
    /// * If the server, or any primary of a cluster, can't be used, unless the store may
    ///   [start degraded](Self::start_degraded).
    pub async fn connect(self) -> Result<RedisStore, RedisStoreError> {
        self.check()?;
        let servers = self.servers.clone()?.with(
            self.user.as_deref(),
            self.password.as_deref(),
            self.database,
        )?;
        let home = Home::find().map_err(|error| {
            RedisStoreError::setting("its thread", format!("it can't be started: {error}"))
        })?;
        let clock = MonotonicClock::default();
        let replicas = NonZeroU32::new(self.expected_replicas).unwrap_or(NonZeroU32::MIN);
        let most_owed = self.most_local.unwrap_or(MOST_OWED);
        let ledger = self.falls_back.then(|| Arc::new(Ledger::new(replicas, most_owed)));
        let connecting = Connecting {
            prefix: self.prefix,
            deadline: self.deadline,
            timeout: self.connect_timeout,
            credentials: self.credentials,
            #[cfg(feature = "redis-tls")]
            tls: if servers.use_tls() { Tls::new(&self.certificates)? } else { Tls::none() },
        };
        let settings = Settings {
            deadline: self.deadline,
            connect_timeout: self.connect_timeout,
            most_waiting: self.most_waiting,
            listeners: Listeners::default(),
        };
        let (settings, connecting) = (Arc::new(settings), Arc::new(connecting));
        let corrections = Arc::new(Corrections::new(self.most_corrections));
        let owed = ledger.clone();
        let parts = Parts { settings, connecting, clock, ledger: owed, corrections, home };
        let servers = Servers::start(servers, parts, self.degraded).await?;
        let local = MemoryStore::with_clock(clock);
        let local = match self.most_local {
            Some(most) => local.max_buckets(most),
            None => local,
        };
        Ok(RedisStore::on(LocalFallback::charging_back(servers, local, replicas, ledger)))
    }

    fn check(&self) -> Result<(), RedisStoreError> {
        let setting = |what: &str, detail: String| Err(RedisStoreError::setting(what, detail));
        if !is_prefix(&self.prefix) {
            let detail = format!(
                "it is {:?} and must be 1 to 64 characters of [A-Za-z0-9_.:/-]",
                self.prefix
            );
            return setting("the prefix of its keys", detail);
        }
        for (what, time) in
            [("its deadline", self.deadline), ("its connect timeout", self.connect_timeout)]
        {
            if time < Duration::from_millis(1) || time > Duration::from_secs(60) {
                return setting(what, format!("it is {time:?} and must be 1 ms to 60 s"));
            }
        }
        for (what, number) in [
            ("the number of expected replicas", self.expected_replicas as usize),
            ("the number of principals in flight", self.most_waiting),
            ("the number of local buckets", self.most_local.unwrap_or(1)),
            ("the number of corrections", self.most_corrections),
        ] {
            if number == 0 {
                return setting(what, "it is 0 and must be at least 1".to_owned());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Show neither addresses nor passwords.
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_in_flight", &self.most_waiting)
            .field("expected_replicas", &self.expected_replicas)
            .field("max_local_buckets", &self.most_local)
            .field("max_corrections", &self.most_corrections)
            .field("start_degraded", &self.degraded)
            .finish_non_exhaustive()
    }
}
