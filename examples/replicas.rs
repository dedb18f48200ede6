//! Three replicas of one API with one limit, which is counted on a Redis server. Half-way the
//! server is killed, and later started again.
//!
//! ```sh
//! cargo run --example replicas --features redis
//! #
//! # second  admitted                     by replica  refused  failed  slowest
//! #      1       ~40 ...
//! # ...
//! #         -- the server is killed: each replica admits its third
//! # ...
//! #         -- the server is started with an empty memory: ...
//! # ...
//! #     12       ~10 ...
//! # ...
//! ```
//!
//! The example starts a `redis-server` of its own (`REDIS_SERVER` names another binary, for example
//! Valkey's), and ends it. One organization may make 10 calls a second, and 30 at once. It sends
//! requests to all three replicas as fast as they answer. A table shows how many were admitted,
//! second by second. The server that comes back has forgotten all, and is charged for what was
//! admitted without it: hardly more calls are admitted than the limit allows.

use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::routing::post;
use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpListener, TcpStream};

const REPLICAS: u32 = 3;
const SECONDS: u64 = 12;
const KILLED_AFTER: u64 = 4;
const STARTED_AFTER: u64 = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = free_port().await?;
    let mut redis = Redis::start(port)?;
    let started = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        if started.elapsed() > Duration::from_secs(5) {
            return Err("the redis-server that was started does not answer".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(replica(number, port).await?);
    }

    println!(
        "\n{:>6}  {:>8}  {:>29}  {:>7}  {:>6}  {:>7}",
        "second", "admitted", "by replica", "refused", "failed", "slowest"
    );
    let counts: Vec<_> = replicas.iter().map(|_| Arc::new(Counts::default())).collect();
    for (address, counts) in replicas.iter().zip(&counts) {
        tokio::spawn(send(*address, Arc::clone(counts)));
    }
    for second in 1..=SECONDS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let take = |count: fn(&Counts) -> &AtomicU64| {
            counts.iter().map(move |counts| count(counts).swap(0, Ordering::Relaxed))
        };
        let admitted: Vec<u64> = take(|counts| &counts.admitted).collect();
        let slowest = take(|counts| &counts.slowest_micros).max().unwrap_or(0);
        println!(
            "{second:>6}  {:>8}  {:>29}  {:>7}  {:>6}  {:>4}.{} ms",
            admitted.iter().sum::<u64>(),
            format!("{admitted:?}"),
            take(|counts| &counts.refused).sum::<u64>(),
            take(|counts| &counts.failed).sum::<u64>(),
            slowest / 1000,
            slowest % 1000 / 100,
        );
        if second == KILLED_AFTER {
            println!("        -- the server is killed: each replica admits its third");
            redis.kill()?;
        }
        if second == STARTED_AFTER {
            println!(
                "        -- the server is started with an empty memory: \
                 each replica charges what it has admitted"
            );
            redis = Redis::start(port)?;
        }
    }
    redis.kill()
}

/// One replica of the API, on a port of its own.
async fn replica(number: u32, redis: u16) -> Result<SocketAddr, Box<dyn Error>> {
    let store = RedisStore::builder(format!("redis://127.0.0.1:{redis}"))
        .expected_replicas(REPLICAS)
        .connect()
        .await?;
    let policy = Policy::bolna().quota("call", Quota::per_second(10).burst(30)).build()?;
    let limiter = Limiter::with_store(policy, store)?;
    // The server is lost or regained.
    limiter.on_event(move |event| println!("        replica {number}: {event}"));
    let app = Router::new()
        .route("/call", post("calling"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(from_fn(async |mut request: Request, next: Next| {
            request.extensions_mut().insert(Account::user("ana").in_organization("acme"));
            next.run(request).await
        }));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(address)
}

#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    slowest_micros: AtomicU64,
}

/// Sends requests to one replica, one after the other.
async fn send(address: SocketAddr, counts: Arc<Counts>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let uri = format!("http://{address}/call");
    loop {
        let request = Request::post(&uri).body(Body::empty()).expect("the address is one");
        let sent = Instant::now();
        let count = match client.request(request).await.map(|response| response.status()) {
            Ok(StatusCode::OK) => &counts.admitted,
            Ok(StatusCode::TOO_MANY_REQUESTS) => &counts.refused,
            _ => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.slowest_micros.fetch_max(micros, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A server, which is killed when this is dropped.
struct Redis(Child);

impl Redis {
    fn start(port: u16) -> Result<Self, Box<dyn Error>> {
        let binary = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let port = port.to_string();
        let child = Command::new(&binary)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("{binary} can't be started ({error}): apt-get install redis-server")
            })?;
        Ok(Self(child))
    }

    fn kill(&mut self) -> Result<(), Box<dyn Error>> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.kill();
    }
}

async fn free_port() -> Result<u16, Box<dyn Error>> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}
