//! Asks the Sentinels which server is the primary.

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo};

use super::connect::{open, silent};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::majority::majority;

/// The Sentinels to ask, the service to ask for, and how to connect to its primary.
#[derive(Clone)]
pub(super) struct Sentinels {
    pub(super) service: String,
    pub(super) nodes: Vec<ConnectionInfo>,
    /// User, password, database and TLS of the primary. The Sentinels say its address.
    pub(super) server: ConnectionInfo,
}

impl Sentinels {
    /// The primary that most of the Sentinels that answer name.
    pub(super) async fn primary(
        &self,
        within: Duration,
    ) -> Result<ConnectionInfo, RedisStoreError> {
        majority(self.nodes.iter().map(|node| self.ask(node, within)))
            .await
            .map(|named| self.at(named))
    }

    /// The primary, if it is not `server`. Asks one Sentinel, chosen by `turn`, and all of them
    /// only if that one names another server.
    pub(super) async fn successor_of(
        &self,
        server: &str,
        turn: usize,
        within: Duration,
    ) -> Option<String> {
        let address = |info: ConnectionInfo| info.addr().to_string();
        let node = &self.nodes[turn % self.nodes.len()];
        // If the Sentinel does not answer, the primary is kept, since it does answer.
        let named = self.ask(node, within).await.ok()?;
        if address(self.at(named)) == server {
            return None;
        }
        self.primary(within).await.ok().map(address).filter(|named| named != server)
    }

    async fn ask(
        &self,
        node: &ConnectionInfo,
        within: Duration,
    ) -> Result<(String, u16), RedisStoreError> {
        let server = format!("the Sentinel {}", node.addr());
        let mut commands = open(node, within).await?;
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer =
            tokio::time::timeout(within, cmd.query_async::<Option<(String, u16)>>(&mut commands))
                .await;
        let answer = answer.map_err(|_| silent(&server, within))?;
        if answer
            .as_ref()
            .is_err_and(|error| error.detail().is_some_and(|said| said.contains("unknown command")))
        {
            return Err(RedisStoreError::new(Kind::NoPrimary, &server, "it is not a Sentinel"));
        }
        match answer.map_err(|error| RedisStoreError::of(&server, error))? {
            Some(address) => Ok(address),
            None => {
                let detail = format!(
                    "it watches no service named {}: see sentinel monitor in its configuration",
                    self.service
                );
                Err(RedisStoreError::new(Kind::NoPrimary, &server, detail))
            }
        }
    }

    fn at(&self, (host, port): (String, u16)) -> ConnectionInfo {
        at(&self.server, host, port)
    }
}

/// The settings of `like` (user, database, TLS) with another address.
pub(super) fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}
