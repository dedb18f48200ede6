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
use super::settings::Settings;
use super::shards::Shards;
use crate::store::listeners::Listeners;
use crate::store::{LocalFallback, MemoryStore};

/// Sets up a [`RedisStore`]. Made by [`RedisStore::builder`], [`sentinel`](RedisStore::sentinel) or
/// `cluster`.
///
/// If a setting is wrong, [`connect`](Self::connect) fails and says why.
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
        }
    }

    /// The ACL user, instead of the one in the URL. With Sentinels, this is the primary's user.
    ///
    /// The user needs
    /// * the commands `+evalsha +eval +time +get +set +del`,
    /// * in a cluster also `+cluster|slots`,
    /// * for a [database](Self::database) other than 0 also `+select`, and
    /// * the keys `~bolna:1:*`, or those of another [prefix](Self::prefix).
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The password, instead of the one in the URL. With Sentinels, this is the password for the
    /// primary.
    pub fn password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// The number of the database, instead of the one in the URL. Defaults to 0, which is the only
    /// database of a cluster.
    pub fn database(self, number: u32) -> Self {
        Self { database: Some(i64::from(number)), ..self }
    }

    /// The root certificates, in PEM, by which the servers' certificates are verified, instead of
    /// the system's. They are used only over TLS, with addresses such as `rediss://`.
    ///
    /// If this process has not installed a cryptography provider for rustls, connecting over TLS
    /// installs `ring`. To use another one, install it before.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.root_cert = Some(pem.into());
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
        self.tls.client_tls =
            Some(ClientTlsConfig { client_cert: certificate.into(), client_key: key.into() });
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
    /// charges nothing for a call that reaches it after the deadline; a unit charged just before it
    /// may be lost.
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

    /// The most requests that wait for a server at a time; at least 1. Defaults to 8192. Further
    /// requests are decided as if the server were lost. In a cluster, the number is per primary.
    pub fn max_in_flight(self, requests: usize) -> Self {
        Self { most_waiting: requests, ..self }
    }

    /// The number of replicas that share the server; at least 1. While the server is lost, each
    /// replica admits its share of the limit. As long as the server answers, the number has no
    /// effect.
    ///
    /// Defaults to 1, **which is right for one replica only**: while the server is lost, three
    /// replicas that are set to 1 admit three times the limit. If the number is too high, they
    /// admit too little.
    ///
    /// See [`LocalFallback`](crate::store::LocalFallback) for what is charged, and how exactly.
    pub fn expected_replicas(self, replicas: u32) -> Self {
        Self { expected_replicas: Some(replicas), ..self }
    }

    /// The most buckets that are kept in this process for the time when the server is lost; at
    /// least 1. It works as [`MemoryStore::max_buckets`](crate::store::MemoryStore::max_buckets).
    /// By default there is no cap, and memory grows with the number of buckets that are not full.
    pub fn max_local_buckets(self, buckets: usize) -> Self {
        Self { most_local: Some(buckets), ..self }
    }

    /// Switches off the fallback in this process. While the server is lost, every check fails, and
    /// the layer's [`on_store_failure`](crate::BolnaRateLimitLayer::on_store_failure) decides
    /// whether the request is admitted. By default it is refused with a 503.
    pub fn without_fallback(self) -> Self {
        Self { expected_replicas: None, ..self }
    }

    /// Starts even if the server can't be used yet, as if it had just been lost. By default,
    /// [`connect`](Self::connect) fails then. A wrong setting is an error either way.
    pub fn start_degraded(self) -> Self {
        Self { degraded: true, ..self }
    }

    /// Connects, and starts a task on the current tokio runtime that keeps the connection. In a
    /// cluster there is a task for each primary, and one more. The tasks end when the store is
    /// dropped. Checks may be made from any thread or executor, but they are answered, and their
    /// deadlines observed, only while that runtime is running.
    ///
    /// Connecting charges a probe bucket, which belongs to no principal. So anything that requests
    /// need and the server lacks is found now: a permission, scripts, or version 6.2.
    ///
    /// # Errors
    /// If a setting is wrong, or if the server can't be used; the latter not with
    /// [`start_degraded`](Self::start_degraded).
    ///
    /// # Panics
    /// If the future is polled outside of a tokio runtime with timers enabled.
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
            listeners: Listeners::default(),
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
        // The client would treat such a file as one without certificates, and not fail.
        let is_empty = |pem: &Vec<u8>| !pem.windows(BEGIN.len()).any(|line| line == BEGIN);
        if root_cert.iter().chain(client_tls.iter().map(|client| &client.client_cert)).any(is_empty)
        {
            return wrong(
                "the root certificates, or the client certificate, hold no certificate in PEM"
                    .to_owned(),
            );
        }
        match Client::build_with_tls(info, self.tls.clone()) {
            Ok(client) => Ok(client.get_connection_info().clone()),
            Err(error) => wrong(format!(
                "the root certificates, or the client certificate and its key, can't be read: \
                 {error}"
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
        // Show neither addresses nor passwords.
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

/// The first line of a certificate in PEM.
#[cfg(feature = "redis-tls")]
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Installs `ring` if the process has no cryptography provider. If none is installed, rustls panics
/// unless exactly one is built in.
#[cfg(feature = "redis-tls")]
fn install_cryptography() {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Fails if another thread installed one first.
        let _ = ring::default_provider().install_default();
    }
}
