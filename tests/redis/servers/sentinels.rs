use std::collections::HashMap;
use std::env;

use redis::RedisResult;

use super::{Server, until, when};

const SERVICE: &str = "mymaster";

/// A primary with a replica, and three Sentinels that monitor them.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: [Server; 2],
    sentinels: [Server; 3],
}

impl Sentinels {
    pub(crate) async fn start() -> Self {
        // A Sentinel that doesn't see the replica at first looks again ten seconds later.
        let servers = Server::with_replica().await;
        let port = servers[0].port();
        let sentinels = [sentinel(port).await, sentinel(port).await, sentinel(port).await];
        for sentinel in &sentinels {
            until("the sentinels know all", async || {
                let known: HashMap<String, String> =
                    sentinel.command(&["SENTINEL", "MASTER", SERVICE]).await?;
                let of = |what| known.get(what).map_or("", String::as_str);
                when(
                    (of("flags"), of("num-slaves"), of("num-other-sentinels"))
                        == ("master", "1", "2"),
                    &known,
                )
            })
            .await;
        }
        Self { servers, sentinels }
    }

    /// The URLs of the Sentinels.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::url).collect()
    }

    /// The name by which the Sentinels know the primary.
    pub(crate) fn service(&self) -> &'static str {
        SERVICE
    }

    /// The server that all Sentinels take for the primary, and that reports itself as one.
    pub(crate) async fn primary(&self) -> &Server {
        self.agreed(|_| true).await
    }

    /// Waits until the other server is the primary. This asks for nothing: the caller has killed or
    /// suspended `old`.
    pub(crate) async fn successor_of(&self, old: &Server) -> &Server {
        self.agreed(|primary| primary.port() != old.port()).await
    }

    /// Makes the replica the primary, with both up, and the primary its replica.
    pub(crate) async fn failover(&self) -> &Server {
        let old = self.primary().await;
        until("a sentinel begins", async || {
            Ok(self.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", SERVICE]).await?)
        })
        .await;
        let new = self.successor_of(old).await;
        until("the old primary follows", async || when(!old.is_primary().await, old.port())).await;
        new
    }

    async fn agreed(&self, is_it: impl Fn(&Server) -> bool) -> &Server {
        until("the sentinels agree", async || {
            let mut named = Vec::new();
            for sentinel in &self.sentinels {
                let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
                named.push(sentinel.command::<(String, u16)>(&question).await?.1);
            }
            let primary =
                self.servers.iter().find(|server| named.iter().all(|port| *port == server.port()));
            let primary =
                primary.filter(|primary| is_it(primary)).ok_or_else(|| format!("{named:?}"))?;
            when(primary.is_primary().await, format!("{named:?}, not yet"))?;
            Ok(primary)
        })
        .await
    }
}

async fn sentinel(primary: u16) -> Server {
    let program = env::var("REDIS_SENTINEL").unwrap_or_else(|_| "redis-sentinel".to_owned());
    let sentinel = Server::launch(&program, |port, directory| {
        let file = directory.path().join("sentinel.conf");
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {directory}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} 300\n\
             sentinel failover-timeout {SERVICE} 2000\n",
            directory = directory.path().display(),
        );
        std::fs::write(&file, config).unwrap();
        // For a server's program, which `--sentinel` turns into a Sentinel.
        vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()]
    })
    .await;
    // By default Sentinels look every ten seconds which primary a server follows, and exchange
    // messages every two. They give a new primary four times that before they make it a replica
    // again, unless they have learned of the failover. Before 7.0 these times are fixed.
    let hurry = ["SENTINEL", "DEBUG", "INFO-PERIOD", "100", "PUBLISH-PERIOD", "500"];
    let _: RedisResult<()> = sentinel.command(&hurry).await;
    sentinel
}
