//! Asking the Sentinels who is the primary.

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo};

use super::connect::{open, silent};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::majority::majority;

/// Who to ask, what for, and how the answer is connected to.
#[derive(Clone)]
pub(super) struct Sentinels {
    pub(super) service: String,
    pub(super) nodes: Vec<ConnectionInfo>,
    /// User, password, database and TLS of the primary; its address is what the Sentinels say.
    pub(super) server: ConnectionInfo,
}

impl Sentinels {
    /// The primary that most of those who answer name.
    pub(super) async fn primary(
        &self,
        within: Duration,
    ) -> Result<ConnectionInfo, RedisStoreError> {
        majority(self.nodes.iter().map(|node| self.ask(node, within)))
            .await
            .map(|named| self.at(named))
    }

    /// The primary, if it is another server. Asks all only when the one whose turn it is says so.
    pub(super) async fn successor_of(
        &self,
        server: &str,
        turn: usize,
        within: Duration,
    ) -> Option<String> {
        let address = |info: ConnectionInfo| info.addr().to_string();
        let node = &self.nodes[turn % self.nodes.len()];
        // Sentinels that are silent are no reason to leave a primary that answers.
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
            return Err(RedisStoreError::new(Kind::NoPrimary, &server, "it is no Sentinel"));
        }
        match answer.map_err(|error| RedisStoreError::of(&server, error))? {
            Some(address) => Ok(address),
            None => {
                let detail = format!(
                    "it watches no service named {}: see sentinel monitor in its file",
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

/// The same user, database and TLS at another address.
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
