//! The nodes of a cluster, and which of them serves which slots.
//!
//! redis-rs' own cluster connection delays the requests for all nodes while it recovers from the
//! loss of one. Here each primary has its own worker, as a single server has.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use crc16::{State, XMODEM};
use redis::{FromRedisValue, Value};
use tokio::sync::Notify;

use super::address::{Address, Place};
use super::connect::Node;
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::key;
use super::majority::majority;
use super::sentinel::Route;
use super::servers::{First, NO_RUNTIME, Parts};
use super::session::Session;
use crate::store::StoreReport;
use crate::store::remote::backoff::Backoff;
use crate::store::remote::failure::{Failure, Reason};
use crate::store::remote::handle::{Handle, Sender};
use crate::store::remote::pending::{Pending, Ticket};
use crate::store::remote::settings::{Settings, WHOLE};
use crate::store::remote::worker::Surroundings;
use crate::values::Principal;

const SLOTS: u16 = 16_384;

/// A node is forgotten after this many refreshes without a slot, not at once: a new node is sent
/// requests for its first slot while that is still being migrated to it.
const MOST_IDLE: u32 = 6;

/// The time between two refreshes of the topology, and the shortest time from a successful refresh
/// to the next one if a worker reports trouble.
const REFRESH: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(100));

pub(super) struct Cluster {
    parts: Parts,
    /// The nodes that the operator named, all with the same user. Not empty.
    seeds: Vec<Address>,
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
    ranges: Arc<RwLock<Vec<Range>>>,
    handle: Handle,
    /// In how many refreshes in a row it has served no slot.
    idle: u32,
}

/// The first slot and the last, both included.
type Range = (u16, u16);

/// Which primaries serve which slots, in the order of the slots.
type Served = Vec<(Range, (String, u16))>;

/// The cluster, as its workers reach it.
struct Around(Weak<Cluster>);

impl Surroundings for Around {
    fn trouble(&self) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.trouble.notify_one();
        }
    }

    fn forward(&self, to: &str, pending: Vec<Pending<Sender>>) {
        let handle = self.0.upgrade().and_then(|cluster| cluster.handle_of(to));
        for pending in pending {
            match &handle {
                Some(handle) => handle.send(pending),
                None => pending.ticket.say(Err(Failure::Moved)),
            }
        }
    }
}

impl Cluster {
    pub(super) async fn start(
        seeds: Vec<Address>,
        parts: Parts,
        degraded: bool,
    ) -> Result<Arc<Self>, RedisStoreError> {
        let name = seeds
            .first()
            .map_or_else(String::new, |seed| format!("the cluster of {}", seed.name()));
        let cluster = Arc::new(Self {
            parts,
            seeds,
            topology: RwLock::default(),
            told: AtomicBool::new(false),
            last: AtomicU64::new(WHOLE),
            trouble: Arc::new(Notify::new()),
        });
        let asking = Arc::clone(&cluster);
        let served = cluster.parts.home.run(async move { asking.query().await }).await;
        let mut firsts = HashMap::new();
        match served {
            Some(Ok(served)) => {
                for (place, ranges) in group(&served) {
                    let Some(address) = cluster.seeds[0].at(&place.0, place.1) else { continue };
                    let node = cluster.node(&address, &Arc::new(RwLock::new(ranges)));
                    firsts.insert(place, cluster.parts.connect(&node, degraded).await?);
                }
                cluster.apply(&served, firsts);
            }
            Some(Err(error)) if degraded && error.kind() != Kind::Setting => {
                cluster.told.store(true, Ordering::Release);
                let reason = Reason::from(&error);
                cluster.settings().emit(WHOLE, reason.lost(&name.into()));
            }
            Some(Err(error)) => return Err(error),
            None => return Err(RedisStoreError::setting("the runtime", NO_RUNTIME)),
        }
        let trouble = Arc::clone(&cluster.trouble);
        cluster.parts.home.spawn(keep(Arc::downgrade(&cluster), trouble));
        Ok(cluster)
    }

    pub(super) const fn parts(&self) -> &Parts {
        &self.parts
    }

    fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    pub(super) fn report(&self) -> StoreReport {
        let mut report = StoreReport::default();
        for primary in &self.topology().primaries {
            report += primary.handle.report();
        }
        report
    }

    /// The primary that serves the buckets of the principal.
    pub(super) fn handle(&self, principal: &Principal) -> Result<Handle, Failure> {
        let topology = self.topology();
        let primary = topology.primary_of(slot(&key::tag(principal)));
        primary.map(|primary| primary.handle.clone()).ok_or(Failure::Unserved)
    }

    /// The node of that address. A node that served no slot until now is made known.
    fn handle_of(self: &Arc<Self>, to: &str) -> Option<Handle> {
        let is_it = |primary: &&Primary| **primary.address.name() == *to;
        if let Some(primary) = self.topology().primaries.iter().find(is_it) {
            return Some(primary.handle.clone());
        }
        let address = self.seeds[0].at_told(to)?;
        let mut topology = self.topology_mut();
        let known = topology.primaries.iter().find(is_it).map(|known| known.handle.clone());
        Some(known.unwrap_or_else(|| {
            let primary = self.primary(address, Vec::new(), None);
            let handle = primary.handle.clone();
            topology.primaries.push(primary);
            handle
        }))
    }

    /// Which primaries serve which slots, according to most nodes.
    async fn query(&self) -> Result<Served, RedisStoreError> {
        let known: Vec<_> =
            self.topology().primaries.iter().map(|primary| primary.address.clone()).collect();
        let mut nodes: Vec<_> = self.seeds.iter().cloned().chain(known).collect();
        nodes.sort_by(|one, other| one.place.cmp(&other.place));
        nodes.dedup_by(|one, other| one.place == other.place);
        majority(nodes.into_iter().map(|node| self.slots(node))).await
    }

    /// Which primaries serve which slots, according to one node.
    async fn slots(&self, node: Address) -> Result<Served, RedisStoreError> {
        let settings = &self.parts.connecting;
        let mut session = Session::log_in(node, settings).await?;
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let answer = session.query::<Vec<Vec<Value>>>(&cmd, settings.timeout).await;
        let answer = answer.map_err(|error| error.of(&session.server, "CLUSTER"))?;
        let mut served: Served =
            answer.iter().filter_map(|entry| range(entry, &session.server)).collect();
        served.sort_unstable();
        if served.is_empty() {
            let detail = "it knows no node that serves a slot";
            return Err(RedisStoreError::new(Kind::NoPrimary, &session.server, detail));
        }
        Ok(served)
    }

    /// Replaces the topology. `firsts` are the first attempts to connect to new primaries.
    fn apply(self: &Arc<Self>, served: &Served, mut firsts: HashMap<(String, u16), First>) {
        let mut known = self.topology_mut();
        let mut topology = Topology::default();
        for (place, ranges) in group(served) {
            let Some(address) = self.seeds[0].at(&place.0, place.1) else { continue };
            let is_it = |primary: &Primary| primary.address.place == address.place;
            let primary = match known.primaries.iter().position(is_it) {
                Some(index) => {
                    let primary = known.primaries.swap_remove(index);
                    primary.set_ranges(ranges.clone());
                    Primary { idle: 0, ..primary }
                }
                None => self.primary(address, ranges.clone(), firsts.remove(&place)),
            };
            let index = topology.primaries.len();
            topology.ranges.extend(ranges.into_iter().map(|range| (range, index)));
            topology.primaries.push(primary);
        }
        topology.ranges.sort_unstable();
        // Those that serve no slot any more.
        for left in known.primaries.drain(..) {
            let (first, losses) =
                (left.ranges().first().map_or(0, |range| range.0), left.handle.losses());
            if losses == 0 && left.idle < MOST_IDLE {
                left.set_ranges(Vec::new());
                topology.primaries.push(Primary { idle: left.idle + 1, ..left });
            } else if let Some(heir) = topology.primary_of(first) {
                self.hand_over(left.handle.number(), losses, &heir.handle);
            }
        }
        if let Some(heir) = topology.primaries.first() {
            let losses = u32::from(self.told.swap(false, Ordering::AcqRel));
            self.hand_over(WHOLE, losses, &heir.handle);
        }
        *known = topology;
    }

    /// Hands the losses that were reported under a number over to a primary that serves the slots
    /// now, and that reports their ends.
    fn hand_over(&self, number: u64, losses: u32, heir: &Handle) {
        if losses > 0 {
            self.settings().listeners.note(|standing| {
                if let Some(event) = standing.remove(&number) {
                    standing.insert(heir.number(), event);
                }
                None
            });
            heir.inherit(losses);
        }
    }

    /// Starts the worker of a primary.
    fn primary(
        self: &Arc<Self>,
        address: Address,
        ranges: Vec<Range>,
        first: Option<First>,
    ) -> Primary {
        let ranges = Arc::new(RwLock::new(ranges));
        let node = self.node(&address, &ranges);
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let its = Arc::clone(&ranges);
        let holds = move |principal: &Principal| {
            let slot = slot(&key::tag(principal));
            let ranges = its.read().unwrap_or_else(PoisonError::into_inner);
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let around = Arc::new(Around(Arc::downgrade(self)));
        let handle = self.parts.spawn(node, number, first, holds, around);
        Primary { address, ranges, handle, idle: 0 }
    }

    fn node(&self, address: &Address, ranges: &Arc<RwLock<Vec<Range>>>) -> Node {
        let (prefix, ranges) = (self.parts.connecting.prefix.clone(), Arc::clone(ranges));
        self.parts.node(Route::Node(address.clone()), move |random| {
            let ranges = ranges.read().unwrap_or_else(PoisonError::into_inner);
            probe_in(&prefix, &ranges, random)
        })
    }

    fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn topology_mut(&self) -> RwLockWriteGuard<'_, Topology> {
        self.topology.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the task that refreshes the topology, which then ends.
impl Drop for Cluster {
    fn drop(&mut self) {
        self.trouble.notify_one();
    }
}

impl Topology {
    fn primary_of(&self, slot: u16) -> Option<&Primary> {
        let place = self.ranges.partition_point(|((_, last), _)| *last < slot);
        let ((first, _), primary) = self.ranges.get(place)?;
        (*first <= slot).then(|| &self.primaries[*primary])
    }
}

impl Primary {
    fn ranges(&self) -> RwLockReadGuard<'_, Vec<Range>> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_ranges(&self, ranges: Vec<Range>) {
        *self.ranges.write().unwrap_or_else(PoisonError::into_inner) = ranges;
    }
}

/// Refreshes the topology regularly, and when there is trouble, until the store is dropped.
async fn keep(cluster: Weak<Cluster>, trouble: Arc<Notify>) {
    let mut backoff = Backoff::default();
    loop {
        let served = {
            let Some(cluster) = cluster.upgrade() else { return };
            // If no node answers, the workers of the primaries report the loss.
            cluster.query().await.map(|served| cluster.apply(&served, HashMap::new()))
        };
        let wait = match served {
            Ok(()) => {
                backoff.forget();
                tokio::time::sleep(REFRESH.1).await;
                REFRESH.0
            }
            Err(_) => Duration::from_nanos(backoff.next(super::random())).max(REFRESH.1),
        };
        let _ = tokio::time::timeout(wait, trouble.notified()).await;
    }
}

fn group(served: &Served) -> BTreeMap<(String, u16), Vec<Range>> {
    let mut primaries: BTreeMap<_, Vec<Range>> = BTreeMap::new();
    for (range, place) in served {
        primaries.entry(place.clone()).or_default().push(*range);
    }
    primaries
}

fn slot(tag: &str) -> u16 {
    State::<XMODEM>::calculate(tag.as_bytes()) % SLOTS
}

/// The key of a probe bucket in one of these slots; in any slot if there are none.
fn probe_in(prefix: &str, ranges: &[Range], random: u32) -> String {
    let served = |number: &u32| {
        let slot = slot(&key::probe_tag(*number));
        ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    };
    // Among 2^20 keys there is one for each of the 16,384 slots.
    let number = (random..=u32::MAX).chain(0..).take(1 << 20).find(served);
    key::probe(prefix, if ranges.is_empty() { random } else { number.unwrap_or(random) })
}

/// Reads an entry `[first slot, last slot, [host, port, ...], replicas ...]`. A node that does not
/// know its own host leaves it empty; it is the host that was asked.
fn range(entry: &[Value], asked: &Address) -> Option<(Range, (String, u16))> {
    let [first, last, Value::Array(primary), ..] = entry else { return None };
    let [host, port, ..] = primary.as_slice() else { return None };
    let number = |value| u16::from_redis_value_ref(value).ok();
    let host =
        String::from_redis_value_ref(host).ok().filter(|host| !host.is_empty() && host != "?");
    let host = host.or_else(|| match &asked.place {
        Place::Tcp { host, .. } => Some(host.clone()),
        Place::Socket(_) => None,
    })?;
    Some(((number(first)?, number(last)?), (host, number(port)?)))
}
