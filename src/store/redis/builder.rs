use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::ConnectionInfo;
#[cfg(feature = "redis-tls")]
use redis::{Client, ClientTlsConfig, ConnectionAddr, TlsCertificates};

use super::RedisStore;
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::key::is_prefix;
use super::ladder::Ladder;
use super::servers::Servers;
use super::settings::{RedisEvent, Settings};
use super::shards::Shards;
use crate::store::listeners::Listeners;
use crate::store::{LocalFallback, MemoryStore};

/// Sets a [`RedisStore`] up. From [`RedisStore::builder`], [`sentinel`](RedisStore::sentinel) or
/// `cluster`.
///
/// What is wrong with a setting is told by [`connect`](Self::connect).
#[must_use = "nothing is connected before `connect`"]
pub struct RedisStoreBuilder {
    servers: Result<Servers, RedisStoreError>,
    user: Option<String>,
    password: Option<String>,
    database: Option<i64>,
    #[cfg(feature = "redis-tls")]
    tls: TlsCertificates,
    prefix: String,
    deadline: Duration,
    connect_timeout: Duration,
    most_waiting: usize,
    expected_replicas: Option<u32>,
    most_local: Option<usize>,
    degraded: bool,
    listeners: Listeners<RedisEvent>,
}

impl RedisStoreBuilder {
    pub(super) fn new(servers: Result<Servers, RedisStoreError>) -> Self {
        Self {
            servers,
            user: None,
            password: None,
            database: None,
            #[cfg(feature = "redis-tls")]
            tls: TlsCertificates { client_tls: None, root_cert: None },
            prefix: "bolna".to_owned(),
            deadline: Duration::from_millis(25),
            connect_timeout: Duration::from_millis(500),
            most_waiting: 8192,
            expected_replicas: Some(1),
            most_local: None,
            degraded: false,
            listeners: Listeners::default(),
        }
    }

    /// The ACL user, instead of the one in the URL. For Sentinels, the user on the servers that
    /// they name.
    ///
    /// He needs `+evalsha +eval +time +get +set +del`, in a cluster `+cluster|slots` too, for a
    /// [database](Self::database) other than 0 `+select`, and the keys `~bolna:1:*`.
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The password, instead of the one in the URL. For Sentinels, that of the servers that they
    /// name.
    pub fn password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// The number of the database, instead of the one in the URL; 0 by default. A cluster has only
    /// that.
    pub fn database(self, number: u32) -> Self {
        Self { database: Some(i64::from(number)), ..self }
    }

    /// The certificates, in PEM, by which servers are known, instead of the system's. Addresses
    /// have to begin with `rediss://`.
    ///
    /// When no cryptography is installed for rustls in this process, connecting over TLS installs
    /// that of `ring`. To choose another, install it before.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.root_cert = Some(pem.into());
        self
    }

    /// The certificate and its key, both in PEM, by which servers know this client.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.client_tls =
            Some(ClientTlsConfig { client_cert: certificate.into(), client_key: key.into() });
        self
    }

    /// What all keys begin with, `bolna` by default: 1 to 64 characters of `[A-Za-z0-9_.:/-]`.
    ///
    /// Limiters with one prefix on one server count together, whatever their policies.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The longest that a check takes, everything included; 25 ms by default, and at least 1 ms.
    /// Who gets no answer by then is decided as if the server were lost. What the server does
    /// later it does not charge; what it charges in the last moment, while its answer is on the
    /// way, is lost.
    ///
    /// It has to exceed two round trips, since a request may wait for another's call and then for
    /// its own: a server that does not answer within half of it counts as lost.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The longest that one step of connecting takes, in the background; 500 ms by default, and at
    /// least 1 ms.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// The most requests that wait for a server at a time, 8192 by default and at least 1. Those
    /// beyond are decided as if the server were lost. In a cluster, of each primary.
    pub fn max_in_flight(self, requests: usize) -> Self {
        Self { most_waiting: requests, ..self }
    }

    /// How many replicas count on the server: the share of the limit that each takes when it is
    /// lost. 1 by default and at least, **which is right for one replica only**: three that are
    /// told 1 admit three times the limit as long as the server is lost. Too high a number
    /// admits too little then. It means nothing as long as the server answers.
    ///
    /// See [`LocalFallback`](crate::store::LocalFallback) for what is counted, and how exactly.
    pub fn expected_replicas(self, replicas: u32) -> Self {
        Self { expected_replicas: Some(replicas), ..self }
    }

    /// The most buckets that are kept in this process for when the server is lost, at least 1: as
    /// [`MemoryStore::max_buckets`](crate::store::MemoryStore::max_buckets). By default there is no
    /// cap, and memory grows with the callers who owe at one time.
    pub fn max_local_buckets(self, buckets: usize) -> Self {
        Self { most_local: Some(buckets), ..self }
    }

    /// Does not count in this process when the server is lost: there is an error, and the layer's
    /// [`on_store_failure`](crate::BolnaRateLimitLayer::on_store_failure) says what becomes of the
    /// request. By default that is a 503.
    pub fn without_fallback(self) -> Self {
        Self { expected_replicas: None, ..self }
    }

    /// Starts even if the server can't be counted on yet, as if it had been lost just now. By
    /// default [`connect`](Self::connect) fails. A wrong setting is an error either way.
    pub fn start_degraded(self) -> Self {
        Self { degraded: true, ..self }
    }

    /// Calls `listener` when the server is lost, when that has another reason, and when it is
    /// regained. It runs in the task that connects, so it should do no more than to log or to
    /// count. Several listeners are all told.
    ///
    /// Once there is a store, [`subscribe`](crate::store::Store::subscribe) tells the same, and of
    /// the [cap](Self::max_local_buckets).
    pub fn on_event(self, listener: impl Fn(RedisEvent) + Send + Sync + 'static) -> Self {
        self.listeners.add(move |event| listener(event.clone()));
        self
    }

    /// Connects, and starts a task on the current tokio runtime that keeps the connection; it ends
    /// when the store is dropped. Checks may come from anywhere, but that runtime has to be
    /// running for them to be answered, and for their deadlines.
    ///
    /// Connecting includes the charging of a bucket that is nobody's, so that what requests will
    /// need and the server lacks is found now: a permission, scripts, a version of 6.2.
    ///
    /// # Errors
    /// When a setting is wrong; and, but for [`start_degraded`](Self::start_degraded), when the
    /// server can't be counted on.
    ///
    /// # Panics
    /// When it is polled outside of a tokio runtime with its timers enabled.
    pub async fn connect(self) -> Result<RedisStore, RedisStoreError> {
        let setting =
            |what: &str, detail: String| Err(RedisStoreError::new(Kind::Setting, what, detail));
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
            (
                "the number of expected replicas",
                self.expected_replicas.map_or(1, |replicas| replicas as usize),
            ),
            ("the number of requests in flight", self.most_waiting),
            ("the number of local buckets", self.most_local.unwrap_or(1)),
        ] {
            if number == 0 {
                return setting(what, "it is 0 and must be at least 1".to_owned());
            }
        }
        let servers = self.servers.clone()?;
        let servers = servers
            .try_map(|info| self.with_tls(self.with_user(info)), |info| self.with_tls(info))?;
        let settings = Settings {
            prefix: self.prefix,
            deadline: self.deadline,
            connect_timeout: self.connect_timeout,
            most_waiting: self.most_waiting,
            listeners: self.listeners,
        };
        let shards = Shards::start(servers, Arc::new(settings), self.degraded).await?;
        Ok(RedisStore::on(match self.expected_replicas {
            Some(replicas) => {
                let local = self
                    .most_local
                    .map_or_else(MemoryStore::new, |most| MemoryStore::new().max_buckets(most));
                Ladder::Counting(
                    LocalFallback::with_local(shards, local).expected_replicas(replicas),
                )
            }
            None => Ladder::Failing(shards),
        }))
    }

    fn with_user(&self, info: ConnectionInfo) -> ConnectionInfo {
        let mut settings = info.redis_settings().clone();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        if let Some(database) = self.database {
            settings = settings.set_db(database);
        }
        info.set_redis_settings(settings)
    }

    #[cfg(feature = "redis-tls")]
    fn with_tls(&self, info: ConnectionInfo) -> Result<ConnectionInfo, RedisStoreError> {
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Ok(info);
        }
        install_cryptography();
        let server = info.addr().to_string();
        let wrong = |detail: String| Err(RedisStoreError::new(Kind::Setting, &server, detail));
        let TlsCertificates { client_tls, root_cert } = &self.tls;
        // The client would take them for none.
        let is_empty = |pem: &Vec<u8>| !pem.windows(BEGIN.len()).any(|line| line == BEGIN);
        if root_cert.iter().chain(client_tls.iter().map(|client| &client.client_cert)).any(is_empty)
        {
            return wrong(
                "what is given as its certificates, or as the client's, holds none in PEM"
                    .to_owned(),
            );
        }
        match Client::build_with_tls(info, self.tls.clone()) {
            Ok(client) => Ok(client.get_connection_info().clone()),
            Err(error) => wrong(format!(
                "its certificates, or the client's and its key, can't be read: {error}"
            )),
        }
    }

    #[cfg(not(feature = "redis-tls"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
    fn with_tls(&self, info: ConnectionInfo) -> Result<ConnectionInfo, RedisStoreError> {
        Ok(info)
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither addresses nor passwords.
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_in_flight", &self.most_waiting)
            .field("expected_replicas", &self.expected_replicas)
            .field("max_local_buckets", &self.most_local)
            .field("start_degraded", &self.degraded)
            .finish_non_exhaustive()
    }
}

/// How a certificate begins in PEM.
#[cfg(feature = "redis-tls")]
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// rustls panics when no provider of cryptography is installed for the process, or several are
/// built in.
#[cfg(feature = "redis-tls")]
fn install_cryptography() {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Fails when another thread was faster.
        let _ = ring::default_provider().install_default();
    }
}
