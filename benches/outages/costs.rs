//! What a decision costs the server and the network, and what stores cost that have no requests.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bolna_rate_limit::store::{Charge, Entry, RedisStore, Store};
use bolna_rate_limit::{Endpoint, Principal, Quota};
use redis::InfoDict;
use tokio::task::JoinSet;

use crate::outages::Build;
use crate::servers::Server;

/// What the server has counted, less what it counts without decisions.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Scripts, and the commands that they have called.
    scripts: f64,
    commands: f64,
    bytes_in: f64,
    bytes_out: f64,
}

/// The calls, the commands, and the bytes to the server and from it, of one decision.
pub(super) type PerDecision = [f64; 4];

impl Counted {
    async fn on(server: &Server) -> Self {
        let stats: InfoDict = server.command(&["INFO", "stats"]).await.unwrap();
        let number = |name| stats.get::<f64>(name).unwrap();
        let mut commands = 0;
        for command in ["time", "get", "set", "evalsha", "eval"] {
            commands += server.calls_of(command).await;
        }
        Self {
            scripts: (server.calls_of("evalsha").await + server.calls_of("eval").await) as f64,
            commands: commands as f64,
            bytes_in: number("total_net_input_bytes"),
            bytes_out: number("total_net_output_bytes"),
        }
    }

    fn since(self, before: Self, without: Self, decisions: f64) -> PerDecision {
        [
            (self.scripts - before.scripts - without.scripts) / decisions,
            (self.commands - before.commands - without.commands) / decisions,
            (self.bytes_in - before.bytes_in - without.bytes_in) / decisions,
            (self.bytes_out - before.bytes_out - without.bytes_out) / decisions,
        ]
    }
}

/// What a decision costs with so many entries, with so many requests of one principal at a time.
pub(super) async fn of_decisions(build: Build, entries: usize, at_once: usize) -> PerDecision {
    const PRINCIPALS: usize = 1000;
    let server = Server::start().await;
    let store = Arc::new(build(&server.url()).connect().await.unwrap());
    let quota = Quota::per_minute(100_000).build().unwrap();
    let all = [Endpoint::CALL, Endpoint::AGENT].map(|endpoint| Entry::new(endpoint, quota));
    let entries = &all[..entries];
    // The text of the script is sent once.
    run(&store, entries, 1, at_once).await;
    let first = Counted::on(&server).await;
    let second = Counted::on(&server).await;
    let counting = Counted {
        scripts: second.scripts - first.scripts,
        commands: second.commands - first.commands,
        bytes_in: second.bytes_in - first.bytes_in,
        bytes_out: second.bytes_out - first.bytes_out,
    };
    run(&store, entries, PRINCIPALS, at_once).await;
    let after = Counted::on(&server).await;
    after.since(second, counting, (PRINCIPALS * at_once) as f64)
}

async fn run(store: &Arc<RedisStore>, entries: &[Entry], principals: usize, at_once: usize) {
    for number in 0..principals {
        let principal = Principal::organization(format!("org-{number:08}")).unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let (store, principal, entries) =
                (Arc::clone(store), principal.clone(), entries.to_vec());
            tasks.spawn(async move {
                let charge = Charge::new(&principal, &entries).unwrap();
                store.check(charge).wait().await.unwrap()
            });
        }
        tasks.join_all().await;
    }
}

/// The share of one core that so many stores take, in per cent, without requests: while their
/// server is well, and while it is lost.
pub(super) async fn of_idle_stores(build: Build, stores: usize, time: Duration) -> [f64; 2] {
    let server = Server::start().await;
    let mut all = Vec::new();
    for _ in 0..stores {
        all.push(build(&server.url()).connect().await.unwrap());
    }
    let idle = share_of_a_core(time).await;
    server.kill();
    // Without the attempts that are made at once.
    tokio::time::sleep(Duration::from_secs(3)).await;
    [idle, share_of_a_core(time).await]
}

async fn share_of_a_core(time: Duration) -> f64 {
    let before = cpu_time();
    tokio::time::sleep(time).await;
    100.0 * (cpu_time() - before) as f64 / time.as_nanos() as f64
}

/// The time that all threads of this process have run, in nanoseconds. `/proc/self/stat` counts in
/// hundredths of a second only.
fn cpu_time() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    threads
        .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("schedstat")).ok())
        .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}
