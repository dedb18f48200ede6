use std::env;
use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, InfoDict, RedisResult};

use super::process::{Directory, Process, free_port};
use super::{until, when};

/// A primary waits five seconds for more replicas before it sends its data, unless this is set.
pub(super) const AT_ONCE: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// A server on a port of its own that keeps nothing on disk.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    program: String,
    args: Vec<String>,
    // Declared before the directory, because the process has to end first.
    process: Mutex<Option<Process>>,
    directory: Directory,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_args(&[]).await
    }

    /// With options as on the command line, such as `["--maxmemory", "1mb"]`.
    pub(crate) async fn with_args(args: &[&str]) -> Self {
        let program = env::var("VALKEY_SERVER").or_else(|_| env::var("REDIS_SERVER"));
        let program = program.unwrap_or_else(|_| "redis-server".to_owned());
        Self::launch(&program, |port, directory| {
            let (port, directory) = (port.to_string(), directory.path().to_str().unwrap());
            let own = [
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--dir",
                directory,
                "--save",
                "",
                "--appendonly",
                "no",
            ];
            own.iter().chain(args).map(|arg| (*arg).to_owned()).collect()
        })
        .await
    }

    /// A primary, and a replica that has all its data.
    pub(crate) async fn with_replica() -> [Self; 2] {
        let primary = Self::with_args(&AT_ONCE).await;
        let port = primary.port.to_string();
        let args = [&AT_ONCE[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let replica = Self::with_args(&args).await;
        replica.until_in_step().await;
        [primary, replica]
    }

    pub(super) async fn launch(
        program: &str,
        args: impl Fn(u16, &Directory) -> Vec<String>,
    ) -> Self {
        // Another program may take the port before the server does.
        for _ in 0..5 {
            let port = free_port();
            let directory = Directory::of(port);
            let args = args(port, &directory);
            let server = Self {
                port,
                program: program.to_owned(),
                args,
                process: Mutex::new(None),
                directory,
            };
            if server.run().await {
                return server;
            }
        }
        panic!("each of five ports was taken by another program");
    }

    /// False if another program has the port.
    async fn run(&self) -> bool {
        let process = Process::start(&self.program, &self.args, &self.directory);
        let pid = process.id();
        *self.process.lock().unwrap() = Some(process);
        until("the server is up", async || {
            if self.process.lock().unwrap().as_mut().unwrap().has_ended() {
                let log = self.directory.log();
                assert!(log.contains("Address already in use"), "{} ended: {log}", self.program);
                return Ok(false);
            }
            let info: InfoDict = self.command(&["INFO", "server"]).await?;
            when(info.get("process_id") == Some(pid), (info, self.directory.log()))?;
            Ok(true)
        })
        .await
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let patient = Some(Duration::from_secs(5));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(patient)
            .set_response_timeout(patient);
        Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// One command, over a connection of its own.
    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut self.connection().await?).await
    }

    /// How many times the command, named in lower case, has been called since the server started.
    pub(crate) async fn calls_of(&self, command: &str) -> u64 {
        let stats: InfoDict = self.command(&["INFO", "commandstats"]).await.unwrap();
        let line: Option<String> = stats.get(&format!("cmdstat_{command}"));
        line.map_or(0, |line| line.split(['=', ',']).nth(1).unwrap().parse().unwrap())
    }

    /// Whether the server is up, and says that it is a primary.
    pub(crate) async fn is_primary(&self) -> bool {
        let info: RedisResult<InfoDict> = self.command(&["INFO", "replication"]).await;
        info.is_ok_and(|info| info.get("role") == Some("master".to_owned()))
    }

    /// Waits until this replica has all data of its primary.
    pub(super) async fn until_in_step(&self) {
        until("the replica is in step", async || {
            let info: InfoDict = self.command(&["INFO", "replication"]).await?;
            when(info.get("master_link_status") == Some("up".to_owned()), info)
        })
        .await;
    }

    /// Suspends the server in the middle of its work, with its connections open.
    pub(crate) fn suspend(&self) {
        self.process.lock().unwrap().as_ref().unwrap().signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.process.lock().unwrap().as_ref().unwrap().signal("CONT");
    }

    /// Kills the server as a crash would, and waits until it is gone.
    pub(crate) fn kill(&self) {
        self.process.lock().unwrap().take();
    }

    /// Starts the server again, on the same port, with the same options, and empty.
    pub(crate) async fn restart(&self) {
        self.kill();
        until("the port is free", async || when(self.run().await, self.directory.log())).await;
    }
}
