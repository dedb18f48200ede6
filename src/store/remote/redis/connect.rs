//! Connects to a server, and checks that it can charge buckets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::time::Instant;

use super::address::Address;
use super::connection::{Live, broken};
use super::credentials::Provider;
use super::error::answer::{is_elsewhere, is_unknown_script, refuses_time};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::script::{self, Probe};
use super::sentinel::Route;
use super::session::{Session, Unanswered, login_at};
#[cfg(feature = "redis-tls")]
use super::tls::Tls;
use crate::store::nanos;
use crate::store::remote::core::Greeting;
use crate::store::remote::failure::Reason;
use crate::store::remote::server_time::Sighting;
use crate::store::remote::worker::{Connected, Protocol};
use crate::values::clock::{Clock, MonotonicClock};

/// The most probe keys that are tried on a node: one in a slot that is being migrated may fail.
const KEYS: usize = 8;

/// How servers are connected to.
pub(super) struct Connecting {
    /// The beginning of all keys.
    pub(super) prefix: String,
    /// The longest time that a check takes.
    pub(super) deadline: Duration,
    /// The longest time that one step of connecting takes.
    pub(super) timeout: Duration,
    pub(super) credentials: Option<Provider>,
    #[cfg(feature = "redis-tls")]
    pub(super) tls: Tls,
}

/// One server, and how it is found.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) settings: Arc<Connecting>,
    pub(super) route: Arc<Route>,
    /// The key of a probe bucket, which belongs to no principal, for a random number.
    pub(super) probe: Arc<dyn Fn(u32) -> String + Send + Sync>,
    /// Whether the server, or a proxy in front of it, does not know HELLO. A proxy may close the
    /// connection then, so it is not asked again.
    pub(super) lacks_hello: Arc<AtomicBool>,
}

/// What is particular about a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trait {
    /// It refuses to tell scripts the time.
    pub(super) refuses_time: bool,
    /// It does not know HELLO.
    pub(super) lacks_hello: bool,
}

impl Protocol for Node {
    type Connection = Live;

    fn connect(
        &mut self,
        clock: MonotonicClock,
    ) -> impl Future<Output = Connected<Live>> + Send + 'static {
        let node = self.clone();
        async move { node.greet(clock).await.map_err(|error| Reason::from(&error)) }
    }
}

impl Node {
    /// The server before it is connected to, as it is named in texts.
    pub(super) fn name(&self) -> Arc<str> {
        self.route.to_string().into()
    }

    /// Connects, and charges a probe bucket. So anything that requests need and the server lacks is
    /// found here.
    pub(super) async fn greet(
        self,
        clock: MonotonicClock,
    ) -> Result<(Live, Greeting), RedisStoreError> {
        let knew = self.lacks_hello.load(Ordering::Relaxed);
        let greeted = self.clone().attempt(clock).await;
        if knew || !self.lacks_hello.load(Ordering::Relaxed) {
            return greeted;
        }
        // The connection broke at HELLO. If it is made without HELLO, HELLO was the reason.
        let greeted = self.clone().attempt(clock).await;
        self.lacks_hello.store(greeted.is_ok(), Ordering::Relaxed);
        greeted
    }

    async fn attempt(self, clock: MonotonicClock) -> Result<(Live, Greeting), RedisStoreError> {
        let address = self.route.find(&self.settings).await?;
        let mut session = Session::log_in(address, &self.settings).await?;
        let mut traits = Trait::default();
        let key = self.charge_first(&mut session, &mut traits).await?;
        traits.lacks_hello = self.verify(&mut session).await?;
        let seen = self.time_charge(&mut session, &key, traits, clock).await?;
        let server = Arc::clone(session.server.name());
        let greeting = Greeting { server, seen, names_time: traits.refuses_time };
        Ok((Live::new(self, session, traits, clock), greeting))
    }

    /// Logs a connection in again. Returns the server with its new login, unless that has failed,
    /// and when to log in next.
    pub(super) async fn log_in_again(
        &self,
        mut commands: MultiplexedConnection,
        server: &Address,
    ) -> (Option<Address>, Option<Instant>) {
        let soon = || (None, Some(Instant::now() + Duration::from_secs(1)));
        let Some(provider) = self.settings.credentials.as_ref() else { return (None, None) };
        let asked = tokio::time::timeout(self.settings.timeout, provider.call()).await;
        // If this fails, the old credentials may still be valid. If not, the server says so.
        let Ok(Ok(credentials)) = asked else { return soon() };
        let mut auth = redis::cmd("AUTH");
        if let Some(user) = &credentials.user {
            auth.arg(&**user);
        }
        auth.arg(&*credentials.password);
        match auth.exec_async(&mut commands).await {
            Ok(()) => {
                let user = credentials.user.as_deref();
                let server = server.with_credentials(user, Some(&credentials.password));
                (Some(server), login_at(&credentials))
            }
            Err(_) => soon(),
        }
    }

    /// Charges a probe bucket by the script's text and fills it up again. Returns the bucket's key.
    async fn charge_first(
        &self,
        session: &mut Session,
        traits: &mut Trait,
    ) -> Result<String, RedisStoreError> {
        let within = self.settings.timeout;
        let mut keys = KEYS;
        let key = loop {
            let key = (self.probe)(super::random());
            let now = if traits.refuses_time { time(session, within).await? } else { 0 };
            let charge = script::probe("EVAL", &key, now, Probe::Charge(1_000_000));
            match session.query::<Value>(&charge, within).await {
                Ok(_) => break key,
                Err(Unanswered::Error(error)) if refuses_time(&error) && !traits.refuses_time => {
                    traits.refuses_time = true;
                }
                // The slot is being migrated.
                Err(Unanswered::Error(error))
                    if self.route.is_of_cluster() && is_elsewhere(&error).is_some() =>
                {
                    keys -= 1;
                    if keys == 0 {
                        break key;
                    }
                }
                Err(error) => {
                    let error = error.of(&session.server, "EVAL");
                    return Err(self.explained(session, &key, error).await);
                }
            }
        };
        if keys > 0 {
            let now = if traits.refuses_time { time(session, within).await? } else { 0 };
            let fill = script::probe("EVALSHA", &key, now, Probe::Fill);
            if let Err(error) = session.query::<Value>(&fill, within).await {
                let error = error.of(&session.server, "EVALSHA");
                return Err(self.explained(session, &key, error).await);
            }
        }
        Ok(key)
    }

    /// The error, or a better one if the server has more to say.
    async fn explained(
        &self,
        session: &mut Session,
        key: &str,
        error: RedisStoreError,
    ) -> RedisStoreError {
        let better = match error.kind() {
            Kind::MissingPermission => self.which_permission(session, key).await,
            // A Sentinel runs no scripts.
            Kind::NoScripts => self.verify(session).await.err(),
            _ => None,
        };
        better.unwrap_or(error)
    }

    /// Finds out which command the user may not run. If a script runs it, the server's error does
    /// not name it; if it is sent on its own, the error does.
    async fn which_permission(&self, session: &mut Session, key: &str) -> Option<RedisStoreError> {
        let mut asked = ["TIME", "GET", "SET", "DEL"].map(|name| (name, redis::cmd(name)));
        for (_, cmd) in &mut asked[1..] {
            cmd.arg(key);
        }
        asked[2].1.arg(0).arg("PX").arg(1);
        for (name, cmd) in asked {
            if let Err(refused) = session.query::<Value>(&cmd, self.settings.timeout).await {
                return Some(refused.of(&session.server, name));
            }
        }
        None
    }

    /// Checks the role of the server. Every connection may ask for it, whatever permissions its
    /// user has. Returns whether the role is unknown.
    async fn verify(&self, session: &mut Session) -> Result<bool, RedisStoreError> {
        if self.lacks_hello.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let (hello, within) = (redis::cmd("HELLO"), self.settings.timeout);
        match session.query::<HashMap<String, Value>>(&hello, within).await {
            Ok(hello) => self.check_role(&session.server, &hello).map(|()| false),
            Err(error) if error.is_broken() => {
                self.lacks_hello.store(true, Ordering::Relaxed);
                Err(error.of(&session.server, "HELLO"))
            }
            // It does not know the command, or does not let this user ask.
            Err(Unanswered::Error(_)) => Ok(true),
            Err(error) => Err(error.of(&session.server, "HELLO")),
        }
    }

    /// Charges the probe bucket as requests charge theirs, and in the time that they have: a server
    /// that is too slow for requests must be found before it gets any. The time is half the
    /// deadline, because a request may wait for the call in flight and then for its own. There are
    /// three tries, because the first ones may be slow for other reasons.
    async fn time_charge(
        &self,
        session: &mut Session,
        key: &str,
        traits: Trait,
        clock: MonotonicClock,
    ) -> Result<Option<Sighting>, RedisStoreError> {
        let mut tries = 3;
        loop {
            tries -= 1;
            let seen = async {
                let within = self.settings.deadline / 2;
                let sent = nanos(clock.now());
                if traits.refuses_time {
                    let shown = time(session, within).await?;
                    return Ok(Some(Sighting { sent, arrived: nanos(clock.now()), shown }));
                }
                let charge = script::probe("EVALSHA", key, 0, Probe::Charge(1000));
                let shown = match session.query::<Value>(&charge, within).await {
                    Ok(value) => script::shown(value),
                    Err(Unanswered::Error(error)) if is_elsewhere(&error).is_some() => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error.of(&session.server, "EVALSHA")),
                };
                let shown = shown
                    .map_err(|error| RedisStoreError::of(&session.server, "EVALSHA", &error))?;
                Ok(Some(Sighting { sent, arrived: nanos(clock.now()), shown }))
            };
            match seen.await {
                Err(_) if tries > 0 => {}
                answer => return answer,
            }
        }
    }

    fn check_role(
        &self,
        server: &Address,
        hello: &HashMap<String, Value>,
    ) -> Result<(), RedisStoreError> {
        let field = |name| match hello.get(name) {
            Some(Value::BulkString(text)) => std::str::from_utf8(text).ok(),
            Some(Value::SimpleString(text)) => Some(text.as_str()),
            _ => None,
        };
        if field("mode") == Some("sentinel") {
            let detail = "it is a Sentinel, which holds no buckets: name it by \
                          redis+sentinel://host/service";
            return Err(RedisStoreError::new(Kind::WrongServer, server, detail));
        }
        // The node may have only some of the slots. Without this check, requests would fail one by
        // one.
        if field("mode") == Some("cluster") && !self.route.is_of_cluster() {
            let detail = "it is a node of a cluster: name it by redis+cluster://host:port";
            return Err(RedisStoreError::new(Kind::WrongServer, server, detail));
        }
        // A call about a drained bucket writes nothing, so a demoted server would not reject it,
        // and would go on refusing requests from data that is out of date.
        match field("role") {
            Some(role) if role != "master" => {
                let detail = "it is a replica and can't be written to: name the primary, or the \
                          Sentinels";
                Err(RedisStoreError::new(Kind::ReadOnly, server, detail))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the connected server still answers and is still a primary. Nothing is written.
    pub(super) async fn beat(
        &self,
        mut commands: MultiplexedConnection,
        server: &Address,
        traits: Trait,
        clock: MonotonicClock,
        turn: usize,
    ) -> Result<Option<Sighting>, RedisStoreError> {
        let began = Instant::now();
        let failed = |asked, error: &RedisError| {
            if error.is_io_error() {
                broken(server)
            } else {
                RedisStoreError::of(server, asked, error)
            }
        };
        if !traits.lacks_hello {
            let hello: HashMap<String, Value> = redis::cmd("HELLO")
                .query_async(&mut commands)
                .await
                .map_err(|error| failed("HELLO", &error))?;
            self.check_role(server, &hello)?;
        }
        let sent = nanos(clock.now());
        let shown = if traits.refuses_time {
            let now: (i64, i64) = redis::cmd("TIME")
                .query_async(&mut commands)
                .await
                .map_err(|error| failed("TIME", &error))?;
            Some(now.0.saturating_mul(1_000_000).saturating_add(now.1))
        } else {
            let key = (self.probe)(super::random());
            let read = |command| script::probe(command, &key, 0, Probe::Read);
            let mut seen = read("EVALSHA").query_async::<Value>(&mut commands).await;
            if seen.as_ref().is_err_and(is_unknown_script) {
                seen = read("EVAL").query_async(&mut commands).await;
            }
            match seen.and_then(script::shown) {
                Ok(shown) => Some(shown),
                // The slot of the probe is being migrated, which says nothing about the server.
                Err(error) if self.route.is_of_cluster() && is_elsewhere(&error).is_some() => None,
                Err(error) => return Err(failed("EVALSHA", &error)),
            }
        };
        let arrived = nanos(clock.now());
        // A server that knows that it was demoted has said so above. One that does not know it yet
        // still charges, so a Sentinel is asked. One that hangs must not make the beat late: half
        // of the time that is left is for the answer to arrive.
        let left = self.settings.timeout.saturating_sub(began.elapsed()) / 2;
        let asked = self.route.leads_elsewhere(server, turn, &self.settings);
        match tokio::time::timeout(left, asked).await.ok().flatten() {
            Some(named) => Err(RedisStoreError::quoting(
                Kind::ReadOnly,
                server,
                "the Sentinels now name ",
                &named,
                " as the primary",
            )),
            None => Ok(shown.map(|shown| Sighting { sent, arrived, shown })),
        }
    }
}

/// The server's time in microseconds.
async fn time(session: &mut Session, within: Duration) -> Result<i64, RedisStoreError> {
    let now = session.query::<(i64, i64)>(&redis::cmd("TIME"), within).await;
    let (seconds, micros) = now.map_err(|error| error.of(&session.server, "TIME"))?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
