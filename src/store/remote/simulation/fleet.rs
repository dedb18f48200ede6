//! The simulated world: replicas and servers, and the messages between them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::num::NonZeroU32;
use std::ops::AddAssign;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::core::{Action, CallError, Core, Limits};
use super::super::corrections::Corrections;
use super::super::failure::{Failure, Reason};
use super::super::pending::{Op, Ticket};
use super::super::request::{Entries, Reply as Answer, Request, Run};
use super::super::server_time::Sighting;
use super::referee::{Key, Referee};
use super::scenario::{Fault, MILLI, Random, SECOND, Scenario};
use super::server::Server;
use crate::store::fallback::{Ledger, Local};
use crate::store::{Entry, MemoryStore, Reply, StoreEvent};
use crate::values::clock::ManualClock;
use crate::values::{Endpoint, Limit, LimitName, OwnedBucket, Principal, Quota, Scope};

pub(super) const DEADLINE: u64 = 25 * MILLI;
pub(super) const PATIENCE: u64 = 500 * MILLI;

/// A run: replicas and servers, what happens next, and what was seen.
pub(super) struct Fleet {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) sequence: u64,
    pub(super) servers: Vec<Server>,
    pub(super) replicas: Vec<Replica>,
    /// Those that send requests. Behind them everyone, if there is one server.
    pub(super) principals: Vec<Principal>,
    /// The users within each of them.
    pub(super) users: [Principal; 2],
    /// Which server has the buckets of each principal, and to which one they are being migrated.
    pub(super) owners: Vec<(usize, Option<usize>)>,
    pub(super) connections: Vec<Connection>,
    /// Until when messages take longer, and by how much.
    pub(super) delay: (u64, u64),
    pub(super) call: Entry,
    pub(super) agent: Entry,
    pub(super) plans: [Entry; 2],
    pub(super) of_user: Entry,
    pub(super) of_everyone: Entry,
    pub(super) pending: HashMap<u64, Issued>,
    pub(super) tickets: u64,
    pub(super) names_time: bool,
    /// Whether units are given back, too: by requests.
    pub(super) refunds: bool,
    /// Whether units that were admitted are given back after a while, without a request.
    pub(super) corrects: bool,
    /// The units of each bucket that were submitted to be given back, and that servers gave back.
    pub(super) given: HashMap<Key, [u64; 2]>,
    /// The most units that were submitted and not given back.
    pub(super) not_given: HashMap<Key, u64>,
    pub(super) faults_end: u64,
    /// The time that the servers have charged to each bucket for requests, and that requests got.
    pub(super) charged: HashMap<Key, [u64; 2]>,
    pub(super) referee: Referee,
    pub(super) seen: Seen,
}

pub(super) struct Replica {
    pub(super) cores: Vec<Core<SimTicket>>,
    /// The connection to each server.
    pub(super) connected: Vec<Option<usize>>,
    pub(super) local: Local<ManualClock>,
    pub(super) clock: ManualClock,
    pub(super) ledger: Arc<Ledger>,
    pub(super) corrections: Arc<Corrections>,
    pub(super) outbox: Outbox,
    /// The server of each principal, as the replica knows it.
    pub(super) known: Arc<Mutex<HashMap<Principal, usize>>>,
    pub(super) partitioned_until: u64,
    /// When each core is called next.
    pub(super) wakes: Vec<u64>,
    /// Whether each server was reported as lost last.
    pub(super) lost: Vec<bool>,
    /// How many requests of each principal arrive in a second.
    pub(super) traffic: Vec<u64>,
}

pub(super) type Outbox = Rc<RefCell<Vec<(u64, Result<Reply, Failure>)>>>;

pub(super) struct Connection {
    pub(super) replica: usize,
    pub(super) server: usize,
    pub(super) is_alive: bool,
    /// When the last message arrives at the server, and at the replica.
    pub(super) last: [u64; 2],
    /// The calls that charge back and that the server has not carried out.
    pub(super) paying: Vec<(u64, Principal)>,
}

#[derive(Debug)]
pub(super) struct SimTicket {
    pub(super) number: u64,
    pub(super) is_waiting: Rc<Cell<bool>>,
    pub(super) outbox: Outbox,
}

impl Ticket for SimTicket {
    fn is_waiting(&self) -> bool {
        self.is_waiting.get()
    }

    fn say(self, answer: Result<Reply, Failure>) {
        self.outbox.borrow_mut().push((self.number, answer));
    }
}

pub(super) struct Issued {
    pub(super) replica: usize,
    pub(super) principal: usize,
    pub(super) op: Op,
    pub(super) changes: u64,
    pub(super) arrived: u64,
    pub(super) was_sent_on: bool,
    pub(super) is_waiting: Rc<Cell<bool>>,
}

#[derive(Debug)]
pub(super) enum Event {
    Arrives { replica: usize, principal: usize },
    Leaves { number: u64 },
    GivesBack { replica: usize, principal: usize, entries: Entries },
    Wakes { replica: usize, server: usize },
    Connects { replica: usize, server: usize, gives_up: bool, sent: u64 },
    AtServer { connection: usize, message: Message, sent: u64 },
    AtReplica { connection: usize, message: Message },
    Learns { replica: usize },
    Fails(Fault),
    HasMigrated { principal: usize, half: bool },
}

#[derive(Debug)]
pub(super) enum Message {
    Call(u64, Request),
    Beat,
    Answer(u64, Result<Answer, CallError>),
    Beaten(Sighting),
    Closed,
}

/// What happened in runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) runs: u64,
    pub(super) requests: u64,
    pub(super) by_server: u64,
    pub(super) locally: u64,
    pub(super) admitted: u64,
    pub(super) losses: u64,
    pub(super) charged_back: u64,
    pub(super) faults: u64,
    pub(super) forwarded: u64,
    pub(super) late: u64,
    pub(super) of_everyone: u64,
    pub(super) given_back: u64,
    pub(super) corrections_lost: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.requests += other.requests;
        self.by_server += other.by_server;
        self.locally += other.locally;
        self.admitted += other.admitted;
        self.losses += other.losses;
        self.charged_back += other.charged_back;
        self.faults += other.faults;
        self.forwarded += other.forwarded;
        self.late += other.late;
        self.of_everyone += other.of_everyone;
        self.given_back += other.given_back;
        self.corrections_lost += other.corrections_lost;
    }
}

impl Seen {
    pub(super) fn is_worth_it(&self, scenario: Scenario) {
        assert!(self.by_server > 100 * self.runs && self.admitted > 10 * self.runs, "{self:?}");
        let lossless = matches!(scenario, Scenario::Calm | Scenario::NamedTime | Scenario::Moves);
        assert!(lossless || scenario == Scenario::Clocks || self.losses > self.runs, "{self:?}");
        assert_eq!(self.forwarded > self.runs, scenario.servers() > 1, "{self:?}");
        assert_eq!(self.of_everyone > self.runs, scenario.counts_everyone(), "{self:?}");
        assert!(self.given_back > self.runs, "{self:?}");
        assert!(self.losses > 0 || self.corrections_lost == 0, "{self:?}");
        // A clock that was set is noticed at the next answer, so few requests are decided locally.
        assert!(scenario != Scenario::Clocks || self.locally * 1000 < self.requests, "{self:?}");
    }
}

impl Fleet {
    pub(super) fn new(seed: u64, scenario: Scenario) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 77);
        let replicas = 1 + random.index(4);
        let share = u32::try_from(replicas).expect("few");
        // A share is at least one unit of the burst, and all shares together are the burst.
        let burst = share * u32::try_from(1 + random.below(12)).expect("small");
        let interval = random.any(&[5..20, 20..200]);
        let quota = |burst: u32, millis: u64| {
            let quota = Quota::per(1, Duration::from_millis(millis)).burst(burst).build();
            quota.expect("it is valid")
        };
        let entry = |endpoint, burst, millis| Entry::new(endpoint, quota(burst, millis));
        let scoped = |name, scope, burst, millis| {
            let name = LimitName::new(name).expect("a valid name");
            Entry::of(Limit::new(name, quota(burst, millis)).with_scope(scope))
        };
        let servers = scenario.servers();
        let mut principals: Vec<_> = (0..1 + random.index(3))
            .map(|number| Principal::organization(number).expect("it is not empty"))
            .collect();
        if scenario.counts_everyone() {
            principals.push(Principal::everyone().clone());
        }
        let names_time = scenario.names_time(&mut random);
        let owners: Vec<_> = principals.iter().map(|_| (random.index(servers), None)).collect();
        let gives = random.below(3);
        let mut fleet = Self {
            scenario,
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            servers: (0..servers).map(|_| Server::default()).collect(),
            replicas: Vec::new(),
            owners,
            connections: Vec::new(),
            delay: (0, 0),
            call: entry(Endpoint::CALL, burst, interval),
            agent: entry(Endpoint::AGENT, burst * 2, interval * 2),
            plans: [
                entry(Endpoint::DEFAULT, burst, interval),
                entry(Endpoint::DEFAULT, burst * 2, interval * 3),
            ],
            of_user: scoped("simulated-user", Scope::User, burst, interval * 2),
            of_everyone: scoped("simulated-everyone", Scope::Everyone, burst * 3, interval),
            users: ["one", "other"].map(|id| Principal::user(id).expect("it is not empty")),
            pending: HashMap::new(),
            tickets: 0,
            names_time,
            refunds: gives == 0,
            corrects: gives == 1,
            given: HashMap::new(),
            not_given: HashMap::new(),
            faults_end: (2 + random.below(8)) * SECOND,
            charged: HashMap::new(),
            referee: Referee::new(),
            seen: Seen { runs: 1, ..Seen::default() },
            principals,
            random,
        };
        for _ in 0..replicas {
            let replica = fleet.replica(share);
            fleet.replicas.push(replica);
        }
        fleet
    }

    pub(super) fn replica(&mut self, replicas: u32) -> Replica {
        let (clock, share) = (ManualClock::new(), NonZeroU32::new(replicas).expect("at least 1"));
        let ledger = Arc::new(Ledger::new(share, 1000));
        let store = MemoryStore::with_clock(clock.clone());
        let local = Local::new(store, share, Some(Arc::clone(&ledger)));
        let known: HashMap<_, _> =
            self.principals.iter().cloned().zip(self.owners.iter().map(|it| it.0)).collect();
        let known = Arc::new(Mutex::new(known));
        let limits = Limits { deadline: DEADLINE, patience: PATIENCE, most: 1000 };
        let corrections = Arc::new(Corrections::new(1000));
        let cores = (0..self.servers.len())
            .map(|server| {
                let known = Arc::clone(&known);
                let holds = move |principal: &Principal| {
                    known.lock().expect("one thread").get(principal) == Some(&server)
                };
                let (ledger, random) = (Some(Arc::clone(&ledger)), self.random.u32());
                let waiting = Arc::clone(&corrections);
                Core::new(name(server), limits.clone(), ledger, waiting, holds, random)
            })
            .collect();
        let traffic =
            self.principals.iter().map(|_| self.random.any(&[1..3, 3..100, 100..500])).collect();
        Replica {
            cores,
            connected: vec![None; self.servers.len()],
            local,
            clock,
            ledger,
            corrections,
            outbox: Outbox::default(),
            known,
            partitioned_until: 0,
            wakes: vec![0; self.servers.len()],
            lost: vec![false; self.servers.len()],
            traffic,
        }
    }

    pub(super) fn run(mut self) -> Seen {
        for replica in 0..self.replicas.len() {
            for server in 0..self.servers.len() {
                self.act(replica, server);
            }
            for principal in 0..self.senders() {
                // In the beginning there is no connection, as if the server were lost.
                let calm =
                    matches!(self.scenario, Scenario::Calm | Scenario::NamedTime | Scenario::Moves);
                let wait = if calm { SECOND } else { 10 * MILLI };
                self.later(wait, Event::Arrives { replica, principal });
            }
        }
        self.next_fault();
        // Three seconds without faults and three without traffic: all has to be well again.
        let end = self.faults_end + 6 * SECOND;
        let mut standstill = 0;
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > end {
                break;
            }
            standstill = if at == self.now { standstill + 1 } else { 0 };
            assert!(standstill < 100_000, "events without end at {at}");
            self.pass(at);
            self.happens(event);
        }
        self.ends_well();
        self.seen
    }

    /// How many principals send requests.
    pub(super) fn senders(&self) -> usize {
        self.principals.len() - usize::from(self.scenario.counts_everyone())
    }

    /// A bucket of a request of that principal.
    pub(super) fn key(&self, principal: usize, bucket: OwnedBucket) -> Key {
        let is_everyones = bucket.borrow(&self.principals[principal]).principal().is_everyone();
        (if is_everyones { self.principals.len() - 1 } else { principal }, bucket)
    }

    /// Lets time pass until `at`.
    pub(super) fn pass(&mut self, at: u64) {
        let passed = at - self.now;
        if passed > 0 {
            let all = self.replicas.len() as u64;
            let extra = |principal: usize| {
                // All replicas lose the server and regain it at the same times.
                if self.scenario == Scenario::BrownOuts {
                    return 0;
                }
                let server = self.owners[principal].0;
                let of = &self.servers[server];
                if of.frozen_until > at || of.dead_until > at {
                    return 0;
                }
                let cut = |replica: &&Replica| {
                    !replica.cores[server].is_up()
                        || replica.partitioned_until + DEADLINE >= self.now
                        || self.delay.0 + DEADLINE >= self.now
                };
                passed * self.replicas.iter().filter(cut).count() as u64 / all
            };
            self.referee.pass(at, extra);
        }
        self.now = at;
        self.replicas.iter().for_each(|replica| replica.clock.set(Duration::from_nanos(at)));
    }

    pub(super) fn later(&mut self, wait: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), event);
    }

    pub(super) fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { replica, principal } => self.arrives(replica, principal),
            Event::Leaves { number } => {
                if let Some(pending) = self.pending.remove(&number) {
                    pending.is_waiting.set(false);
                }
            }
            Event::GivesBack { replica, principal, entries } => {
                self.gives_back(replica, principal, &entries);
            }
            Event::Wakes { replica, server } => {
                self.replicas[replica].cores[server].wake(self.now);
                self.act(replica, server);
            }
            Event::Connects { replica, server, gives_up, sent } => {
                self.connects(replica, server, gives_up, sent);
            }
            Event::AtServer { connection, message, sent } => {
                self.at_server(connection, message, sent);
            }
            Event::AtReplica { connection, message } => self.at_replica(connection, message),
            Event::Learns { replica } => {
                let known = self.principals.iter().cloned().zip(self.owners.iter().map(|it| it.0));
                *self.replicas[replica].known.lock().expect("one thread") = known.collect();
            }
            Event::Fails(fault) => {
                self.seen.faults += 1;
                self.fails(fault);
                self.next_fault();
            }
            Event::HasMigrated { principal, half } => self.has_migrated(principal, half),
        }
    }

    /// Hands out answers, and does what a core wants done.
    pub(super) fn act(&mut self, replica: usize, server: usize) {
        loop {
            self.hand_out(replica);
            let Some(action) = self.replicas[replica].cores[server].next(self.now) else { break };
            self.carry_out(replica, server, action);
        }
        if let Some(due) = self.replicas[replica].cores[server].due() {
            let wakes = &mut self.replicas[replica].wakes[server];
            if *wakes <= self.now || due < *wakes {
                *wakes = due.max(self.now + 1);
                self.later(due.saturating_sub(self.now), Event::Wakes { replica, server });
            }
        }
    }

    pub(super) fn carry_out(&mut self, replica: usize, server: usize, action: Action<SimTicket>) {
        let connection = self.replicas[replica].connected[server];
        match action {
            Action::Connect => self.connect(replica, server),
            Action::Call(number, request) => {
                let connection = connection.expect("calls are sent over a connection");
                let paying = request.runs.iter().any(|run| matches!(run, Run::Settle { .. }));
                if paying {
                    self.seen.charged_back += 1;
                    let paying = &mut self.connections[connection].paying;
                    paying.push((number, request.principal.clone()));
                }
                self.send_to_server(connection, Message::Call(number, request));
            }
            Action::Beat => {
                self.send_to_server(connection.expect("there is a connection"), Message::Beat);
            }
            Action::Close => {
                if let Some(connection) = self.replicas[replica].connected[server].take() {
                    self.connections[connection].is_alive = false;
                    for (_, principal) in mem::take(&mut self.connections[connection].paying) {
                        self.still_owes(replica, &principal);
                    }
                }
            }
            Action::Tell(event) => {
                let lost = &mut self.replicas[replica].lost[server];
                match event {
                    StoreEvent::Lost { .. } => {
                        assert!(!*lost, "a server is lost that is lost");
                        *lost = true;
                        self.seen.losses += 1;
                    }
                    StoreEvent::StillLost { .. } => assert!(*lost, "it is still lost"),
                    StoreEvent::Regained { .. } => {
                        assert!(*lost, "a server is regained that is not lost");
                        *lost = false;
                    }
                    other => panic!("{other:?} is not of a server"),
                }
            }
            Action::Trouble => {
                let wait = self.random.in_range(MILLI..50 * MILLI);
                self.later(wait, Event::Learns { replica });
            }
            Action::Forward(to, sent_on) => {
                self.seen.forwarded += sent_on.len() as u64;
                let to = (0..self.servers.len()).find(|server| name(*server) == to);
                let to = to.expect("it is one of the servers");
                for one in sent_on {
                    if let Some(pending) = self.pending.get_mut(&one.ticket.number) {
                        pending.was_sent_on = true;
                    }
                    self.replicas[replica].cores[to].accept(one);
                }
                self.later(0, Event::Wakes { replica, server: to });
            }
        }
    }

    pub(super) fn ends_well(&mut self) {
        for (number, replica) in self.replicas.iter().enumerate() {
            for (core, lost) in replica.cores.iter().zip(&replica.lost) {
                assert!(core.is_up() && !lost, "replica {number} has not regained a server");
                assert!(core.is_idle(), "replica {number} has calls in flight");
            }
            assert!(replica.ledger.is_empty(), "replica {number} has not paid");
            assert_eq!(replica.corrections.len(), 0, "replica {number} has not corrected all");
            self.seen.corrections_lost += replica.corrections.lost();
        }
        let lost = self.seen.corrections_lost;
        for (bucket, [submitted, given]) in &self.given {
            assert!(given <= submitted, "{bucket:?}: {given} units of {submitted} were given back");
            assert!(lost > 0 || given == submitted, "{bucket:?}: only {given} of {submitted}");
        }
        assert!(self.pending.is_empty(), "{} requests have no answer", self.pending.len());
        for (bucket, [charged, got]) in &self.charged {
            assert!(charged >= got, "{bucket:?}: {charged} charged, {got} admitted by the server");
        }
        let replicas = self.replicas.len();
        let entries = [self.call, self.agent, self.of_user, self.of_everyone];
        for ((principal, bucket), highest) in self.referee.highest() {
            let entry = entries.iter().find(|entry| entry.name() == bucket.name);
            let entry = entry.expect("one of these buckets");
            let interval = entry.rate().interval();
            // Answers arrive within the deadline, in any order. The clock may give units away.
            let mut jitter = u32::try_from(DEADLINE.div_ceil(interval)).expect("small") + 1;
            // A refund is seen before the answers to earlier requests have arrived.
            jitter += if self.refunds { 4 } else { 0 };
            // Without the server, each replica knows the time by its last answers.
            let unsure = if self.names_time { 100 * MILLI } else { 0 };
            jitter += u32::try_from(unsure.div_ceil(interval)).expect("small");
            // The replica that gives a unit back has its part of it before the server has it.
            let not_given = self.not_given.get(&(*principal, bucket.clone())).copied();
            jitter += u32::try_from(not_given.unwrap_or(0)).expect("small");
            let lossless = matches!(self.scenario, Scenario::Calm | Scenario::NamedTime);
            let bursts = if lossless { 1 } else { 2 };
            assert!(
                highest <= bursts * entry.quota().burst() + jitter,
                "{highest} at a burst of {} from bucket {bucket:?} of {principal} by {replicas} \
                 replicas",
                entry.quota().burst(),
            );
        }
    }
}

pub(super) fn name(server: usize) -> Arc<str> {
    format!("server-{server}").into()
}

pub(super) fn reason(server: usize, detail: &str) -> Reason {
    Reason { server: name(server), kind: "unreachable", detail: detail.into() }
}
