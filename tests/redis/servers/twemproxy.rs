use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Directory, Process, free_port};
use super::{Server, until, when};

/// twemproxy, whose program is `nutcracker`: it distributes keys among servers by their hash tags.
/// It closes a connection on commands without a key, such as `HELLO`, `TIME` and `INFO`.
#[derive(Debug)]
pub(crate) struct Twemproxy {
    port: u16,
    // Declared before the directory, because the process has to end first.
    _process: Process,
    _directory: Directory,
}

impl Twemproxy {
    pub(crate) async fn to(servers: &[Server]) -> Self {
        let port = free_port();
        let directory = Directory::of(port);
        let mut config = format!(
            "pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  \
             hash_tag: \"{{}}\"\n  distribution: ketama\n  timeout: 2000\n  servers:\n",
        );
        for server in servers {
            config += &format!("    - 127.0.0.1:{}:1\n", server.port());
        }
        let file = directory.path().join("nutcracker.yml");
        fs::write(&file, config).unwrap();
        let statistics = free_port().to_string();
        let args = ["-c", file.to_str().unwrap(), "-a", "127.0.0.1", "-s", &statistics];
        let process = Process::start("nutcracker", &args.map(str::to_owned), &directory);
        until("the proxy passes", async || {
            // The client sends commands that twemproxy does not know when it connects.
            let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
            connection.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
            let mut answer = [0; 7];
            connection.read_exact(&mut answer).await?;
            when(answer == *b"+PONG\r\n", directory.log())
        })
        .await;
        Self { port, _process: process, _directory: directory }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
