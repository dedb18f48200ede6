//! After any number of losses, the server has charged exactly what was admitted. Only what was in
//! flight when a connection broke may be charged twice.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bolna_rate_limit::store::{Charge, Command, Entry, RedisStoreBuilder, Store};
use bolna_rate_limit::{Endpoint, Principal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::servers::{Mode, Proxy, Server, until, when};
use crate::support::{charged, once_an_hour, store};

const REPLICAS: u32 = 3;
const CALLERS: usize = 5;

/// More units than the test spends, so that each request is admitted.
const BURST: u32 = 100_000;

const DEADLINE: Duration = Duration::from_millis(100);

/// A request of two buckets, at a cost of one unit and of three.
fn entries() -> [Entry; 2] {
    let cost = |endpoint, cost| Entry::new(endpoint, once_an_hour(BURST)).with_cost(cost).unwrap();
    [cost(Endpoint::CALL, 1), cost(Endpoint::DEFAULT, 3)]
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What became of the requests of one caller.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// Admitted and not given back.
    units: u64,
    /// Refunds that ended with an error: the server may have given these units back or not.
    unknown: u64,
    /// The units that the server has charged for requests.
    charged: u64,
}

/// Sends requests from three replicas while there are faults.
async fn spend(
    builder: impl Fn() -> RedisStoreBuilder,
    servers: &[Server],
    faults: impl AsyncFnOnce(),
) -> [Spent; CALLERS] {
    let mut fleet = Vec::new();
    for _ in 0..REPLICAS {
        let builder = builder().deadline(DEADLINE).expected_replicas(REPLICAS);
        fleet.push(Arc::new(builder.connect().await.unwrap()));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for (number, store) in fleet.iter().flat_map(|store| [store; 4]).enumerate() {
        tasks.spawn(send(Arc::clone(store), number, Arc::clone(&is_over)));
    }
    faults().await;
    sleep(millis(300)).await;
    is_over.store(true, Ordering::Relaxed);
    let mut spent = [Spent::default(); CALLERS];
    for of_one in tasks.join_all().await {
        for (sum, of_one) in spent.iter_mut().zip(of_one) {
            sum.units += of_one.units;
            sum.unknown += of_one.unknown;
        }
    }
    until("all is charged", async || {
        for store in &fleet {
            let report = store.report();
            when((report.owed, report.open_breakers) == (0, 0), report)?;
        }
        Ok(())
    })
    .await;
    // The last charges may be in flight.
    sleep(2 * DEADLINE).await;
    for (number, spent) in spent.iter_mut().enumerate() {
        let of = async |endpoint| charged_on(servers, &key(number, endpoint)).await;
        spent.charged = of(Endpoint::CALL).await;
        assert_eq!(of(Endpoint::DEFAULT).await, 3 * spent.charged, "both buckets are charged");
    }
    spent
}

fn key(caller: usize, endpoint: Endpoint) -> String {
    format!("bolna:2:{{organization:{caller}}}:{endpoint}")
}

/// What is charged on the server that has the key.
async fn charged_on(servers: &[Server], key: &str) -> u64 {
    for server in servers {
        if server.command::<bool>(&["EXISTS", key]).await == Ok(true) {
            return charged(server, key).await;
        }
    }
    0
}

/// One of the tasks of a replica. It gives every eighth unit back.
async fn send<St: Store>(
    store: Arc<St>,
    number: usize,
    is_over: Arc<AtomicBool>,
) -> [Spent; CALLERS] {
    let mut spent = [Spent::default(); CALLERS];
    for turn in number.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let caller = Principal::organization((turn % CALLERS).to_string()).unwrap();
        let (entries, spent) = (entries(), &mut spent[turn % CALLERS]);
        let charge = Charge::new(&caller, &entries).unwrap();
        let began = Instant::now();
        let decisions = store.check(charge).wait().await.unwrap();
        assert!(began.elapsed() < DEADLINE + super::MARGIN, "{:?}", began.elapsed());
        assert!(decisions.outcome().is_admitted(), "{decisions:?}");
        spent.units += 1;
        if turn % 8 == 0 {
            match store.command(Command::Refund(charge)).await {
                Ok(_) => spent.units -= 1,
                Err(_) => spent.unknown += 1,
            }
        }
        sleep(millis(1)).await;
    }
    spent
}

/// Asserts that the server has charged all that was admitted, and charged at most one in `in_doubt`
/// units twice.
#[track_caller]
fn assert_charged(spent: [Spent; CALLERS], in_doubt: u64) {
    for spent in spent {
        let Spent { units, unknown, charged } = spent;
        assert!(units > 100, "{spent:?}");
        assert!((units - unknown..=units + units / in_doubt).contains(&charged), "{spent:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_server_that_stops_again_and_again() {
    let server = Server::start().await;
    let faults = async || {
        for stopped in [20, 50, 200, 1000, 50, 90, 600, 30, 110] {
            sleep(millis(150)).await;
            server.suspend();
            sleep(millis(stopped)).await;
            server.resume();
        }
    };
    assert_charged(spend(|| store(server.url()), slice::from_ref(&server), faults).await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_server_that_pauses_its_clients() {
    let server = Server::start().await;
    let faults = async || {
        for paused in [50, 200, 90, 700, 100, 150, 300, 80] {
            let words = ["CLIENT", "PAUSE", &paused.to_string()];
            server.command::<()>(&words).await.unwrap();
            sleep(millis(paused + 150)).await;
        }
    };
    assert_charged(spend(|| store(server.url()), slice::from_ref(&server), faults).await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_server_that_closes_connections() {
    let server = Server::start().await;
    let faults = async || {
        for _ in 0..20 {
            sleep(millis(70)).await;
            server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
        }
    };
    assert_charged(spend(|| store(server.url()), slice::from_ref(&server), faults).await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_server_that_forgets_the_script() {
    let server = Server::start().await;
    let faults = async || {
        for _ in 0..200 {
            sleep(millis(3)).await;
            server.command::<()>(&["SCRIPT", "FLUSH"]).await.unwrap();
        }
    };
    for spent in spend(|| store(server.url()), slice::from_ref(&server), faults).await {
        assert_eq!((spent.charged, spent.unknown), (spent.units, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_network_that_delays_swallows_and_cuts() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let faults = async || {
        for mode in [
            Mode::Delay(millis(40)),
            Mode::Blackhole,
            Mode::Delay(millis(70)),
            Mode::Cut,
            Mode::Delay(millis(30)),
            Mode::Refuse,
            Mode::Delay(millis(45)),
            Mode::Blackhole,
        ] {
            proxy.set(Mode::Pass);
            sleep(millis(150)).await;
            proxy.set(mode);
            sleep(millis(300)).await;
        }
        proxy.set(Mode::Pass);
    };
    assert_charged(spend(|| store(proxy.url()), slice::from_ref(&server), faults).await, 20);
}

/// Migrates the slot of each caller twice, key by key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_cluster_whose_slots_move_to_and_fro() {
    use bolna_rate_limit::store::RedisStore;

    use crate::servers::Cluster;
    use crate::support::patient;

    let cluster = Cluster::start().await;
    let nodes = cluster.nodes();
    let id = async |node: &Server| node.command::<String>(&["CLUSTER", "MYID"]).await.unwrap();
    let slot = async |node: &Server, slot: &str, words: &[&str]| {
        node.command::<()>(&[&["CLUSTER", "SETSLOT", slot], words].concat()).await.unwrap();
    };
    let faults = async || {
        sleep(millis(100)).await;
        for number in (0..CALLERS).chain(0..CALLERS) {
            let keys = [Endpoint::CALL, Endpoint::DEFAULT].map(|endpoint| key(number, endpoint));
            let moving: u16 = nodes[0].command(&["CLUSTER", "KEYSLOT", &keys[0]]).await.unwrap();
            let moving = moving.to_string();
            let mut at = 0;
            for (index, node) in nodes.iter().enumerate() {
                if node.command::<bool>(&["EXISTS", &keys[0]]).await == Ok(true) {
                    at = index;
                }
            }
            let (from, to, other) = (&nodes[at], &nodes[(at + 1) % 3], &nodes[(at + 2) % 3]);
            slot(to, &moving, &["IMPORTING", &id(from).await]).await;
            slot(from, &moving, &["MIGRATING", &id(to).await]).await;
            let port = to.port().to_string();
            for key in &keys {
                let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS", key];
                from.command::<()>(&words).await.unwrap();
                // With one key here and one there, no node can charge both.
                sleep(millis(20)).await;
            }
            for node in [to, from, other] {
                slot(node, &moving, &["NODE", &id(to).await]).await;
            }
        }
    };
    let spent = spend(|| patient(RedisStore::cluster(cluster.urls())), nodes, faults).await;
    for spent in spent {
        assert_eq!((spent.charged, spent.unknown), (spent.units, 0));
    }
}
