//! The nodes of a cluster, and which of them serves which slots.
//!
//! redis-rs' own cluster connection delays the requests for all nodes while it recovers from the
//! loss of one. Here each primary has its own connection, breaker and clock, as a single server
//! has.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use crc16::{State, XMODEM};
use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue, Value};
use tokio::sync::Notify;

use super::backoff::Backoff;
use super::connect::{Connection, connect, open, silent};
use super::error::{Failure, RedisStoreError, RedisStoreErrorKind as Kind};
use super::key::{key, probe};
use super::link::Link;
use super::majority::majority;
use super::sentinel::at;
use super::servers::Route;
use super::settings::{Settings, WHOLE};
use super::shards::{Shard, or_degraded, start};
use crate::store::{Store, StoreError, StoreReport};
use crate::values::{Endpoint, Principal};

const SLOTS: u16 = 16_384;

/// The time between two refreshes of the topology without trouble, and the shortest time after a
/// successful refresh with trouble.
const REFRESH: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(100));

pub(super) struct Cluster {
    settings: Arc<Settings>,
    /// The nodes that the operator named, all with the same user. Not empty.
    seeds: Vec<ConnectionInfo>,
    topology: RwLock<Topology>,
    /// Whether it was reported that the whole cluster is lost, and no primary is known yet whose
    /// return could be reported.
    told: AtomicBool,
    /// The number of the newest primary.
    last: AtomicU64,
    trouble: Arc<Notify>,
}

#[derive(Default)]
struct Topology {
    /// The ranges in the order of their slots, each with the index of its primary.
    ranges: Vec<(Range, usize)>,
    primaries: Vec<Primary>,
}

#[derive(Clone)]
struct Primary {
    address: Address,
    /// The key of a probe bucket in a slot that this primary serves.
    probe: String,
    shard: Shard,
}

/// The first attempt to connect to a primary, when the store starts.
struct First {
    number: u64,
    /// The key of the probe bucket.
    probe: String,
    connection: Option<Connection>,
}

type Address = (String, u16);

/// The first slot and the last, both included.
type Range = (u16, u16);

impl Cluster {
    pub(super) async fn start(
        seeds: Vec<ConnectionInfo>,
        settings: Arc<Settings>,
        degraded: bool,
    ) -> Result<Arc<Self>, RedisStoreError> {
        let name = seeds
            .first()
            .map_or_else(String::new, |seed| format!("the cluster of {}", seed.addr()));
        let within = settings.connect_timeout;
        let (told, trouble) = (AtomicBool::new(false), Arc::new(Notify::new()));
        let last = AtomicU64::new(WHOLE);
        let cluster = Self { settings, seeds, topology: RwLock::default(), told, last, trouble };
        let served =
            or_degraded(cluster.ask(within).await, WHOLE, &name, &cluster.settings, degraded)?;
        cluster.told.store(served.is_none(), Ordering::Release);
        let served = served.unwrap_or_default();
        let mut firsts = HashMap::new();
        for (address, ranges) in group(&served) {
            let (info, probe) = (cluster.at(&address), cluster.probe_in(&ranges));
            let (number, server) = (cluster.next_number(), info.addr().to_string());
            let first = connect(&info, &probe, &cluster.settings).await;
            let connection = or_degraded(first, number, &server, &cluster.settings, degraded)?;
            firsts.insert(address, First { number, probe, connection });
        }
        cluster.apply(&served, firsts);
        let cluster = Arc::new(cluster);
        tokio::spawn(keep(Arc::downgrade(&cluster), Arc::clone(&cluster.trouble)));
        Ok(cluster)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn report(&self) -> StoreReport {
        let mut report = StoreReport::default();
        for primary in &self.topology.read().unwrap_or_else(PoisonError::into_inner).primaries {
            report += primary.shard.report();
        }
        report
    }

    fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The primary that serves the bucket.
    pub(super) fn shard(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
    ) -> Result<Shard, StoreError> {
        let slot = slot(&key(&self.settings.prefix, endpoint, principal));
        let topology = self.topology.read().unwrap_or_else(PoisonError::into_inner);
        let place = topology.ranges.partition_point(|((_, last), _)| *last < slot);
        match topology.ranges.get(place) {
            Some(((first, _), number)) if *first <= slot => {
                Ok(Arc::clone(&topology.primaries[*number].shard))
            }
            _ => Err(Failure::Unserved.into()),
        }
    }

    /// Which primaries serve which slots, according to most nodes.
    async fn ask(&self, within: Duration) -> Result<Vec<(Range, Address)>, RedisStoreError> {
        let known = self.topology.read().unwrap_or_else(PoisonError::into_inner).primaries.clone();
        let known = known.iter().map(|primary| self.at(&primary.address));
        let mut nodes: Vec<ConnectionInfo> = self.seeds.iter().cloned().chain(known).collect();
        nodes.sort_by_key(|node| node.addr().to_string());
        nodes.dedup_by_key(|node| node.addr().to_string());
        majority(nodes.iter().map(|node| slots(node, within))).await
    }

    /// Replaces the topology. A known primary keeps its connection if it still serves the slot of
    /// its probe bucket. `firsts` are the first attempts to connect to new primaries.
    fn apply(&self, served: &[(Range, Address)], mut firsts: HashMap<Address, First>) {
        let known = self.topology.read().unwrap_or_else(PoisonError::into_inner).primaries.clone();
        let mut topology = Topology::default();
        for (address, ranges) in group(served) {
            let serves = |probe: &str| {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot(probe)))
            };
            let same = |primary: &&Primary| primary.address == address && serves(&primary.probe);
            let primary = known.iter().find(same).cloned().unwrap_or_else(|| {
                let First { number, probe, connection } =
                    firsts.remove(&address).unwrap_or_else(|| First {
                        number: self.next_number(),
                        probe: self.probe_in(&ranges),
                        connection: None,
                    });
                let told = self.take_over(number, known.iter().filter(|left| serves(&left.probe)));
                let (route, settings) =
                    (Route::Fixed(Box::new(self.at(&address))), Arc::clone(&self.settings));
                let trouble = Arc::clone(&self.trouble);
                let shard =
                    start(route, probe.clone(), settings, number, connection, told, move || {
                        trouble.notify_one();
                    });
                Primary { address, probe, shard }
            });
            topology
                .ranges
                .extend(ranges.into_iter().map(|range| (range, topology.primaries.len())));
            topology.primaries.push(primary);
        }
        topology.ranges.sort_unstable();
        *self.topology.write().unwrap_or_else(PoisonError::into_inner) = topology;
    }

    /// Hands the reported losses of the primaries in `left` over to the new primary `number`, which
    /// serves their slots now and will report the return. Returns whether any loss was reported.
    fn take_over<'a>(&self, number: u64, left: impl Iterator<Item = &'a Primary>) -> bool {
        let lost = left
            .map(|left| left.shard.store())
            .filter(|left| left.is_told_lost())
            .map(Link::number);
        let whole = self.told.swap(false, Ordering::AcqRel).then_some(WHOLE);
        let before: Vec<_> = lost.chain(whole).collect();
        let mut stands = false;
        self.settings.listeners.note(|standing| {
            for before in &before {
                if let Some(event) = standing.remove(before) {
                    standing.insert(number, event);
                }
            }
            // Or its own loss was reported, because connecting to it failed at the start.
            stands = standing.contains_key(&number);
            None
        });
        stands || !before.is_empty()
    }

    fn at(&self, (host, port): &Address) -> ConnectionInfo {
        at(&self.seeds[0], host.clone(), *port)
    }

    /// The key of a probe bucket in one of these slots.
    fn probe_in(&self, ranges: &[Range]) -> String {
        let served =
            |key: &String| ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot(key)));
        let numbers = super::random()..=u32::MAX;
        let mut keys = numbers.chain(0..).map(|number| probe(&self.settings.prefix, number));
        // Among 2^20 keys there is one for each of the 16,384 slots.
        keys.by_ref().take(1 << 20).find(served).unwrap_or_else(|| probe(&self.settings.prefix, 0))
    }
}

/// Wakes the task that refreshes the topology, which then ends.
impl Drop for Cluster {
    fn drop(&mut self) {
        self.trouble.notify_one();
    }
}

/// Refreshes the topology regularly, and when there is trouble, until the store is dropped.
async fn keep(cluster: Weak<Cluster>, trouble: Arc<Notify>) {
    let mut backoff = Backoff::default();
    loop {
        let served = {
            let Some(cluster) = cluster.upgrade() else { return };
            let served = cluster.ask(cluster.settings.connect_timeout).await;
            // If no node answers, the supervisors of the primaries report the loss.
            served.map(|served| cluster.apply(&served, HashMap::new()))
        };
        let wait = match served {
            Ok(()) => {
                backoff = Backoff::default();
                tokio::time::sleep(REFRESH.1).await;
                REFRESH.0
            }
            Err(_) => backoff.next().max(REFRESH.1),
        };
        let _ = tokio::time::timeout(wait, trouble.notified()).await;
    }
}

fn group(served: &[(Range, Address)]) -> BTreeMap<Address, Vec<Range>> {
    let mut primaries: BTreeMap<Address, Vec<Range>> = BTreeMap::new();
    for (range, address) in served {
        primaries.entry(address.clone()).or_default().push(*range);
    }
    primaries
}

fn slot(key: &str) -> u16 {
    State::<XMODEM>::calculate(key.as_bytes()) % SLOTS
}

/// Which primaries serve which slots, according to one node, in the order of the slots.
async fn slots(
    node: &ConnectionInfo,
    within: Duration,
) -> Result<Vec<(Range, Address)>, RedisStoreError> {
    let server = node.addr().to_string();
    let mut commands = open(node, within).await?;
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    let answer =
        tokio::time::timeout(within, cmd.query_async::<Vec<Vec<Value>>>(&mut commands)).await;
    let answer = answer
        .map_err(|_| silent(&server, within))?
        .map_err(|error| RedisStoreError::of(&server, error))?;
    let mut served: Vec<_> = answer.iter().filter_map(|entry| range(entry, node)).collect();
    served.sort_unstable();
    if served.is_empty() {
        return Err(RedisStoreError::new(
            Kind::NoPrimary,
            &server,
            "it knows no node that serves a slot",
        ));
    }
    Ok(served)
}

/// Reads an entry `[first slot, last slot, [host, port, ...], replicas ...]`. A node that does not
/// know its own host leaves it empty; it is the host that was asked.
fn range(entry: &[Value], asked: &ConnectionInfo) -> Option<(Range, Address)> {
    let [first, last, Value::Array(primary), ..] = entry else { return None };
    let [host, port, ..] = primary.as_slice() else { return None };
    let number = |value| u16::from_redis_value_ref(value).ok();
    let host =
        String::from_redis_value_ref(host).ok().filter(|host| !host.is_empty() && host != "?");
    let host = host.or_else(|| match asked.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host.clone()),
        _ => None,
    })?;
    Some(((number(first)?, number(last)?), (host, number(port)?)))
}
