//! How a server is found: at its address, or by asking the Sentinels which one is the primary.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use redis::Cmd;

use super::address::{Address, Sentinels};
use super::connect::Connecting;
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::majority::majority;
use super::session::{Session, Unanswered};

/// How the store finds the address of a server, each time it connects.
pub(super) enum Route {
    Fixed(Address),
    /// A node of a cluster.
    Node(Address),
    Sentinels(Box<SentinelRoute>),
}

/// The Sentinels, and the session with one of them.
pub(super) struct SentinelRoute {
    sentinels: Sentinels,
    /// The session with the Sentinel of that index, unless it is in use.
    session: Mutex<Option<(usize, Session)>>,
}

impl Route {
    pub(super) fn by(sentinels: Sentinels) -> Self {
        Self::Sentinels(Box::new(SentinelRoute { sentinels, session: Mutex::new(None) }))
    }

    pub(super) const fn is_of_cluster(&self) -> bool {
        matches!(self, Self::Node(_))
    }

    pub(super) async fn find(&self, settings: &Connecting) -> Result<Address, RedisStoreError> {
        match self {
            Self::Fixed(address) | Self::Node(address) => Ok(address.clone()),
            Self::Sentinels(route) => route.primary(settings).await,
        }
    }

    /// The address that the route leads to now, if it is not that of `server`. Different turns ask
    /// different Sentinels first.
    pub(super) async fn leads_elsewhere(
        &self,
        server: &Address,
        turn: usize,
        settings: &Connecting,
    ) -> Option<String> {
        match self {
            Self::Fixed(_) | Self::Node(_) => None,
            Self::Sentinels(route) => route.successor_of(server, turn, settings).await,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) | Self::Node(address) => address.fmt(f),
            Self::Sentinels(route) => route.sentinels.fmt(f),
        }
    }
}

impl SentinelRoute {
    /// The primary, according to most of the Sentinels that answer.
    async fn primary(&self, settings: &Connecting) -> Result<Address, RedisStoreError> {
        let asked = self.sentinels.nodes.iter().map(|node| async {
            let mut session = self.open(node, settings).await?;
            self.query(node, &mut session, settings).await
        });
        let (node, (host, port)) = (&self.sentinels.nodes[0], majority(asked).await?);
        self.sentinels.primary(node, &host, port).ok_or_else(|| {
            RedisStoreError::new(Kind::NoPrimary, node, "it names a primary that is no address")
        })
    }

    /// The primary, if it is not `server`. Asks one Sentinel over a session that is kept, and all
    /// of them only if that one names another server.
    async fn successor_of(
        &self,
        server: &Address,
        turn: usize,
        settings: &Connecting,
    ) -> Option<String> {
        let kept = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        let index = kept.as_ref().map_or(turn, |(index, _)| *index) % self.sentinels.nodes.len();
        let node = &self.sentinels.nodes[index];
        // If the Sentinel does not answer, the primary is kept, since it does answer.
        let mut session = match kept {
            Some((_, session)) => session,
            None => self.open(node, settings).await.ok()?,
        };
        let (host, port) = self.query(node, &mut session, settings).await.ok()?;
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some((index, session));
        let is_server = |named: &Address| named.place == server.place;
        if self.sentinels.primary(node, &host, port).as_ref().is_some_and(is_server) {
            return None;
        }
        let named = self.primary(settings).await.ok()?;
        (!is_server(&named)).then(|| named.to_string())
    }

    async fn open(
        &self,
        node: &Address,
        settings: &Connecting,
    ) -> Result<Session, RedisStoreError> {
        Session::open(node.clone(), settings).await.map_err(|error| error.of_a_sentinel(node))
    }

    async fn query(
        &self,
        node: &Address,
        session: &mut Session,
        settings: &Connecting,
    ) -> Result<(String, u16), RedisStoreError> {
        let service = &self.sentinels.service;
        let mut cmd = Cmd::new();
        cmd.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        match session.query::<Option<(String, u16)>>(&cmd, settings.timeout).await {
            Ok(Some(address)) => Ok(address),
            Ok(None) => Err(RedisStoreError::quoting(
                Kind::NoPrimary,
                node,
                "it watches no service named ",
                service,
                ": see sentinel monitor in its configuration",
            )
            .of_a_sentinel(node)),
            Err(Unanswered::Error(error)) => {
                Err(RedisStoreError::of_sentinel(node, "SENTINEL", &error))
            }
            Err(error) => Err(error.of(node, "SENTINEL").of_a_sentinel(node)),
        }
    }
}
