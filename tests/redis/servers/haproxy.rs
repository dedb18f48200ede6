use std::fs;

use redis::InfoDict;

use super::process::{Directory, Process, free_port};
use super::{Server, until, when};

/// `haproxy`, which passes connections to the server that says it is a primary.
#[derive(Debug)]
pub(crate) struct Haproxy {
    port: u16,
    // Declared before the directory, because the process has to end first.
    _process: Process,
    _directory: Directory,
}

impl Haproxy {
    pub(crate) async fn to(servers: &[&Server]) -> Self {
        let port = free_port();
        let directory = Directory::of(port);
        let mut config = format!(
            "defaults\n mode tcp\n timeout connect 1s\n timeout client 1m\n timeout server 1m\n\
             listen redis\n bind 127.0.0.1:{port}\n option tcp-check\n tcp-check connect\n \
             tcp-check send INFO\\ replication\\r\\n\n tcp-check expect string role:master\n \
             default-server check inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions\n",
        );
        for server in servers {
            config += &format!(" server s{port} 127.0.0.1:{port}\n", port = server.port());
        }
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        // In the foreground, so that the process that is started is the one that listens.
        let args = ["-db", "-f", file.to_str().unwrap()].map(str::to_owned);
        let process = Process::start("haproxy", &args, &directory);
        until("the proxy passes to the primary only", async || {
            // It takes all for primaries before it has asked them, and distributes connections
            // evenly.
            for _ in servers {
                let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
                let mut connection = client.get_multiplexed_async_connection().await?;
                let info: InfoDict =
                    redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
                let role: Option<String> = info.get("role");
                when(role.as_deref() == Some("master"), (role, directory.log()))?;
            }
            Ok(())
        })
        .await;
        Self { port, _process: process, _directory: directory }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
