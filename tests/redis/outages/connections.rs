//! Connections that end, and how soon new ones replace them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bolna_rate_limit::store::{RedisStore, Store, StoreEvent, StoreListener};
use bolna_rate_limit::{Account, Limiter, Policy};
use tokio::time::sleep;

use super::Build;
use crate::servers::{Mode, Proxy, Server, until, when};

/// When a store has lost its server and regained it, in turn.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<Vec<Instant>>>);

impl Turns {
    fn of(store: &RedisStore) -> Self {
        let turns = Self::default();
        let told = turns.clone();
        store.subscribe(StoreListener::new(move |event| {
            if !matches!(event, StoreEvent::StillLost { .. }) {
                told.0.lock().unwrap().push(Instant::now());
            }
        }));
        turns
    }

    async fn until(&self, count: usize) {
        until("the server is regained", async || {
            let turns = self.0.lock().unwrap().len();
            when(turns >= count, turns)
        })
        .await;
    }
}

/// An outage, and then several cuts of the connection while the server is well. Returns how long
/// the server was lost each time, beginning with the outage.
pub(crate) async fn cuts(
    build: Build,
    outage: Duration,
    every: Duration,
    times: usize,
) -> Vec<Duration> {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    lost(build, &proxy, outage, every, times, async || proxy.cut()).await
}

/// An outage, and then stalls of 200 ms. Returns how long the server was lost each time, beginning
/// with the outage.
pub(crate) async fn stalls(
    build: Build,
    outage: Duration,
    every: Duration,
    times: usize,
) -> Vec<Duration> {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let stall = async || {
        server.suspend();
        sleep(Duration::from_millis(200)).await;
        server.resume();
    };
    lost(build, &proxy, outage, every, times, stall).await
}

async fn lost(
    build: Build,
    proxy: &Proxy,
    outage: Duration,
    every: Duration,
    times: usize,
    fault: impl AsyncFn(),
) -> Vec<Duration> {
    let store = build(&proxy.url()).connect().await.unwrap();
    let turns = Turns::of(&store);
    let limiter = Limiter::with_store(Policy::bolna().build().unwrap(), store)
        .expect("the store can do what the policy asks for");
    let traffic = tokio::spawn(async move {
        for number in 0.. {
            let account = Account::user(number % 10);
            let _ = limiter.check(&account, "/call").unwrap().wait().await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    });
    proxy.set(Mode::Refuse);
    sleep(outage).await;
    proxy.set(Mode::Pass);
    turns.until(2).await;
    for number in 1..=times {
        sleep(every).await;
        fault().await;
        turns.until(2 * (number + 1)).await;
    }
    traffic.abort();
    let turns = turns.0.lock().unwrap();
    turns.chunks_exact(2).map(|turn| turn[1] - turn[0]).collect()
}

/// How a herd comes back.
#[derive(Debug)]
pub(crate) struct Herd {
    /// From the start of the server to the moment at which the last store has regained it.
    pub(crate) back: Duration,
    /// The attempts to connect in each second without the server.
    pub(crate) attempts: Vec<usize>,
    /// The connections that the new server got.
    pub(crate) connections: usize,
}

/// This many stores lose one server, which is killed, and started again after this many seconds.
pub(crate) async fn herd(build: Build, stores: usize, seconds: usize) -> Herd {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let mut herd = Vec::new();
    for _ in 0..stores {
        let store = build(&proxy.url()).connect().await.unwrap();
        herd.push((Turns::of(&store), store));
    }
    server.kill();
    let mut attempts = Vec::new();
    for _ in 0..seconds {
        let before = proxy.accepted();
        sleep(Duration::from_secs(1)).await;
        attempts.push(proxy.accepted() - before);
    }
    let (started, before) = (Instant::now(), proxy.accepted());
    server.restart().await;
    let mut last = started;
    for (turns, _) in &herd {
        turns.until(2).await;
        last = last.max(turns.0.lock().unwrap()[1]);
    }
    Herd { back: last - started, attempts, connections: proxy.accepted() - before }
}
