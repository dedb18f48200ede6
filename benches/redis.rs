//! The time of decisions on Redis, and of decisions after the server is lost.
//!
//! ```text
//! cargo bench --bench redis --features redis
//! ```
//!
//! Starts a `redis-server` on a free port of the loopback interface, and ends it. The ceiling is
//! the rate of `redis-benchmark` with the same script on the same server. The rounds of both are
//! interleaved, and the figures are medians. `REDIS_SERVER` and `REDIS_BENCHMARK` are the paths of
//! other binaries.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on has failed")]
#![expect(clippy::cast_precision_loss, clippy::float_arithmetic, reason = "printed figures")]

use std::convert::Infallible;
use std::env;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bolna_rate_limit::store::{Answer, Charge, Entry, RedisStore, Store};
use bolna_rate_limit::values::{Limit, LimitName, Scope};
use bolna_rate_limit::{
    Account, BolnaRateLimit, BolnaRateLimitLayer, Endpoint, Limiter, Policy, Principal, Quota,
};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};

const SCRIPT: &str = include_str!("../src/store/remote/redis/bucket.lua");
const BUCKETS: usize = 100_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

fn main() {
    let redis = Redis::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        throughput(&redis).await;
        attack(&redis, 1).await;
        attack(&redis, 3).await;
        latency(&redis).await;
        lost(redis).await;
    });
}

/// Decisions per second on many buckets, compared to the rate of a client that only sends the
/// script: with one limit of an account, and with one of an account and one of a user within it.
async fn throughput(redis: &Redis) {
    const TASKS: [usize; 3] = [1, 16, 256];
    println!("\n{BUCKETS} accounts, {ROUNDS} rounds in turn");
    let store = Arc::new(redis.store().await);
    let loads = [1, 2].map(|limits| Arc::new(Load::of(limits)));
    let mut ceilings = [const { [const { Vec::new() }; 2] }; 2];
    let mut ours = [const { [const { Vec::new() }; 3] }; 2];
    for _ in 0..ROUNDS {
        for ((load, ceilings), ours) in loads.iter().zip(&mut ceilings).zip(&mut ours) {
            for (ceiling, pipeline) in ceilings.iter_mut().zip([1, 16]) {
                ceiling.push(redis.benchmark(load, pipeline));
            }
            for (our, tasks) in ours.iter_mut().zip(TASKS) {
                our.push(decisions(&store, load, tasks).await);
            }
        }
    }
    for ((limits, ceilings), ours) in (1..).zip(ceilings).zip(ours) {
        println!("\nlimits of a request: {limits}                      k/s     of the ceiling");
        let ceilings = ceilings.map(median);
        println!("redis-benchmark, 50 clients, pipeline 1  {:>6.1}", ceilings[0] / 1e3);
        println!("redis-benchmark, 50 clients, pipeline 16 {:>6.1}", ceilings[1] / 1e3);
        for (our, tasks) in ours.map(median).into_iter().zip(TASKS) {
            println!(
                "one store, {tasks:>3} tasks                     {:>6.1}     {:.2}",
                our / 1e3,
                our / ceilings[1]
            );
        }
    }
}

/// Requests of many accounts, each with the same limits.
struct Load {
    accounts: Vec<Principal>,
    /// The user within each account.
    user: Principal,
    /// The account's limit, and perhaps the user's.
    entries: Vec<Entry>,
}

impl Load {
    fn of(limits: usize) -> Self {
        let of_user = LimitName::new("call-user").unwrap();
        let of_user = Limit::new(of_user, Quota::per_minute(100).build().unwrap());
        let mut entries =
            vec![Entry::new(Endpoint::CALL, bolna()), Entry::of(of_user.with_scope(Scope::User))];
        entries.truncate(limits);
        let account = |number| Principal::organization(format!("org-{number:012}")).unwrap();
        let accounts = (0..BUCKETS).map(account).collect();
        Self { accounts, user: Principal::user("user-17").unwrap(), entries }
    }

    /// The words behind the hash of the script, with a random account for `redis-benchmark`.
    fn words(&self) -> &'static [&'static str] {
        const CALL: &str = "bolna:2:{organization:org-__rand_int__}:call";
        match self.entries.len() {
            1 => &["1", CALL, "0", "0", "1", "1", "120000", "60000000"],
            // The account of each key is another one, which makes no difference to the server.
            _ => &[
                "2",
                CALL,
                "bolna:2:{organization:org-__rand_int__}:call-user:user:user-17",
                "0",
                "0",
                "c",
                "1",
                "2",
                "1",
                "120000",
                "60000000",
                "2",
                "600000",
                "60000000",
            ],
        }
    }
}

async fn decisions(store: &Arc<RedisStore>, load: &Arc<Load>, tasks: usize) -> f64 {
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (store, load) = (Arc::clone(store), Arc::clone(load));
            tokio::spawn(async move {
                let mut decided = 0_u64;
                for account in load.accounts.iter().cycle().skip(task * BUCKETS / tasks) {
                    if start.elapsed() >= ROUND {
                        break;
                    }
                    let charge = Charge::with_user(account, &load.user, &load.entries).unwrap();
                    store.check(charge).wait().await.unwrap();
                    decided += 1;
                }
                decided
            })
        })
        .collect();
    let mut decided = 0;
    for task in running {
        decided += task.await.unwrap();
    }
    decided as f64 / start.elapsed().as_secs_f64()
}

/// An attack of two threads on one bucket, through this many replicas.
async fn attack(redis: &Redis, replicas: usize) {
    let mut stores = Vec::new();
    for _ in 0..replicas {
        stores.push(Arc::new(redis.store().await));
    }
    let principal = Arc::new(Principal::organization(format!("attacked-by-{replicas}")).unwrap());
    let (stop, decided, admitted) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (stop, decided, admitted) = (Arc::new(stop), Arc::new(decided), Arc::new(admitted));
    let entry = Entry::new(Endpoint::CALL, bolna());
    let charge = Charge::of_one(&principal, &entry);
    while stores[0].check(charge).wait().await.unwrap().outcome().is_admitted() {}
    let calls = redis.calls();
    let start = Instant::now();
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let (stores, principal) = (stores.clone(), Arc::clone(&principal));
            let (stop, decided, admitted) =
                (Arc::clone(&stop), Arc::clone(&decided), Arc::clone(&admitted));
            let runtime = tokio::runtime::Handle::current();
            std::thread::spawn(move || {
                let (mut here, mut granted, mut turn) = (0_u64, 0_u64, thread);
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let store = &stores[turn % stores.len()];
                    for _ in 0..64 {
                        let decisions = match store.check(Charge::of_one(&principal, &entry)) {
                            Answer::Now(answer) => answer.unwrap(),
                            Answer::Later(check) => runtime.block_on(check).unwrap(),
                        };
                        granted += u64::from(decisions.outcome().is_admitted());
                        here += 1;
                    }
                }
                decided.fetch_add(here, Ordering::Relaxed);
                admitted.fetch_add(granted, Ordering::Relaxed);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let seconds = start.elapsed().as_secs_f64();
    // This includes one call a second from each replica, with which it checks the server.
    let calls = (redis.calls() - calls) as f64 / seconds;
    println!(
        "\none attacked bucket, {replicas} replicas, 2 threads: {:.1} M decisions/s, \
         {calls:.0} calls/s to Redis, {} admitted in {seconds:.2} s (a drained bucket gets {:.0})",
        decided.load(Ordering::Relaxed) as f64 / seconds / 1e6,
        admitted.load(Ordering::Relaxed),
        (seconds / 0.12).floor(),
    );
}

/// The time that an admitted request waits for the server, with one and with sixteen requests at a
/// time, and the time of the Redis client alone.
async fn latency(redis: &Redis) {
    println!("\nan admitted request through the layer, us         p50      p99");
    let row = |what: &str, of: &[f64]| {
        println!("{what:<45} {:>7.1} {:>8.1}", percentile(of, 50), percentile(of, 99));
    };
    for tasks in [1, 16] {
        row(
            &format!("in this process, {tasks} at a time"),
            &latencies(&layer(Limiter::new(generous())), tasks).await,
        );
        let on_redis = layer(
            Limiter::with_store(generous(), redis.store().await)
                .expect("the store can do what the policy asks for"),
        );
        row(&format!("on Redis, {tasks} at a time"), &latencies(&on_redis, tasks).await);
    }
    row("the script by redis-rs alone, 1 at a time", &redis.bare_latencies().await);
}

/// The time of a request while the server is lost.
async fn lost(mut redis: Redis) {
    let on_redis = layer(
        Limiter::with_store(generous(), redis.store().await)
            .expect("the store can do what the policy asks for"),
    );
    let here = layer(Limiter::new(generous()));
    let before = latencies(&on_redis, 16).await;
    redis.end();
    let during = latencies_of(&on_redis, 16, Duration::from_millis(200)).await;
    println!("\nthe server is killed, us                       p50      p99      all");
    let row = |what: &str, of: &[f64]| {
        let (middle, high, most) =
            (percentile(of, 50), percentile(of, 99), of.last().copied().unwrap_or_default());
        println!("{what:<42} {middle:>8.1} {high:>8.1} {most:>8.1}");
    };
    row("before, 16 at a time", &before);
    row("in the first 200 ms after, 16 at a time", &during);
    let (mut lost, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        memory.extend(latencies_of(&here, 1, Duration::from_millis(400)).await);
        lost.extend(latencies_of(&on_redis, 1, Duration::from_millis(400)).await);
    }
    lost.sort_by(f64::total_cmp);
    memory.sort_by(f64::total_cmp);
    row("then, one at a time", &lost);
    row("with a store in this process", &memory);
}

type Inner = tower::util::BoxCloneSyncService<Request<String>, Response<()>, Infallible>;

fn layer<St: Store>(limiter: Limiter<St>) -> BolnaRateLimit<Inner, St> {
    let inner = Inner::new(service_fn(async |_: Request<String>| Ok(Response::new(()))));
    BolnaRateLimitLayer::with_limiter(limiter).layer(inner)
}

async fn latencies<St: Store>(service: &BolnaRateLimit<Inner, St>, tasks: usize) -> Vec<f64> {
    latencies_of(service, tasks, ROUND).await
}

/// The times of requests in microseconds, sorted.
async fn latencies_of<St: Store>(
    service: &BolnaRateLimit<Inner, St>,
    tasks: usize,
    time: Duration,
) -> Vec<f64> {
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let mut service = service.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while start.elapsed() < time {
                    let mut request = Request::get("/call").body(String::new()).unwrap();
                    request
                        .extensions_mut()
                        .insert(Account::user(format!("user-{task}-{}", took.len() % 1000)));
                    let sent = Instant::now();
                    let response = service.ready().await.unwrap().call(request).await.unwrap();
                    took.push(sent.elapsed().as_secs_f64() * 1e6);
                    assert!(response.status().is_success(), "{}", response.status());
                }
                took
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in running {
        all.extend(task.await.unwrap());
    }
    all.sort_by(f64::total_cmp);
    all
}

fn bolna() -> Quota {
    Quota::per_minute(500).build().unwrap()
}

/// A policy under which no request of the benchmark is refused.
fn generous() -> Policy {
    Policy::bolna().quota("call", Quota::per_second(100_000)).build().unwrap()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    percentile(&of, 50)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

struct Redis {
    server: Child,
    port: u16,
}

impl Redis {
    fn start() -> Self {
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let binary = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let server = Command::new(&binary)
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{binary} can't be started ({error}): scripts/set-up installs it")
            });
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "{binary} does not answer on port {port}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { server, port }
    }

    async fn store(&self) -> RedisStore {
        RedisStore::builder(format!("redis://127.0.0.1:{}", self.port))
            // The server, the client and the benchmark share the machine's two cores.
            .deadline(Duration::from_millis(250))
            .connect()
            .await
            .unwrap()
    }

    async fn bare_latencies(&self) -> Vec<f64> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let script = redis::Script::new(SCRIPT);
        let start = Instant::now();
        let running = tokio::spawn(async move {
            let mut took = Vec::new();
            while start.elapsed() < ROUND {
                let key = format!("bolna:2:{{user:bare-{}}}:call", took.len() % 1000);
                let mut call = script.key(key);
                let sent = Instant::now();
                // The time and the deadline; one request for the first bucket.
                let _: (i64, i64, i64, i64) = call
                    .arg(&[0, 0, 1, 1, 10, 1_000_000])
                    .invoke_async(&mut connection)
                    .await
                    .unwrap();
                took.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            took
        });
        let mut took = running.await.unwrap();
        took.sort_by(f64::total_cmp);
        took
    }

    /// The requests per second of `redis-benchmark` with the same script and number of buckets.
    fn benchmark(&self, load: &Load, pipeline: u32) -> f64 {
        let hash = self.cli(&["SCRIPT", "LOAD", SCRIPT]);
        let binary = env::var("REDIS_BENCHMARK").unwrap_or_else(|_| "redis-benchmark".to_owned());
        let output = Command::new(binary)
            .args([
                "-p",
                &self.port.to_string(),
                "-c",
                "50",
                "-P",
                &pipeline.to_string(),
                "-n",
                "200000",
            ])
            .args(["-r", &BUCKETS.to_string(), "--csv", "EVALSHA", hash.trim()])
            .args(load.words())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // "EVALSHA ...","requests per second",...
        text.lines()
            .last()
            .and_then(|row| row.split("\",\"").nth(1))
            .and_then(|rate| rate.parse().ok())
            .unwrap()
    }

    /// The number of times that the script has run so far.
    fn calls(&self) -> u64 {
        let info = self.cli(&["INFO", "commandstats"]);
        let calls = info.lines().filter(|line| line.starts_with("cmdstat_eval"));
        calls
            .map(|line| {
                line.split("calls=")
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .next()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    }

    fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn end(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The server may have been ended before.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
