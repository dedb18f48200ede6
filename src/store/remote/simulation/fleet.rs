//! The simulated world: replicas and servers, and the messages between them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::num::NonZeroU32;
use std::ops::AddAssign;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::ask::{Ask, Op, Ticket};
use super::super::core::{Action, CallError, Core, Greeting, Limits};
use super::super::failure::{Failure, Reason};
use super::super::request::{Reply as Answer, Request, Run};
use super::super::server_time::Sighting;
use super::referee::Referee;
use super::scenario::{Fault, MILLI, Random, SECOND, Scenario};
use super::server::Server;
use crate::store::fallback::{Ledger, Local};
use crate::store::{Charge, Entry, MemoryStore, Reply, StoreError, StoreEvent};
use crate::values::clock::ManualClock;
use crate::values::{Endpoint, Principal, Quota};

const DEADLINE: u64 = 25 * MILLI;
const PATIENCE: u64 = 500 * MILLI;

/// A run: replicas and servers, what happens next, and what was seen.
pub(super) struct Fleet {
    scenario: Scenario,
    random: Random,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    servers: Vec<Server>,
    replicas: Vec<Replica>,
    principals: Vec<Principal>,
    /// Which server has the buckets of each principal, and to which one they are being migrated.
    owners: Vec<(usize, Option<usize>)>,
    connections: Vec<Connection>,
    /// Until when messages take longer, and by how much.
    delay: (u64, u64),
    call: Entry,
    agent: Entry,
    plans: [Entry; 2],
    pending: HashMap<u64, Pending>,
    tickets: u64,
    names_time: bool,
    /// Whether units are given back, too.
    refunds: bool,
    faults_end: u64,
    /// The time that the servers have charged to each bucket for requests, and that requests got.
    charged: HashMap<(usize, Endpoint), [u64; 2]>,
    referee: Referee,
    seen: Seen,
}

struct Replica {
    cores: Vec<Core<SimTicket>>,
    /// The connection to each server.
    connected: Vec<Option<usize>>,
    local: Local<ManualClock>,
    clock: ManualClock,
    ledger: Arc<Ledger>,
    outbox: Outbox,
    /// The server of each principal, as the replica knows it.
    known: Arc<Mutex<HashMap<Principal, usize>>>,
    partitioned_until: u64,
    /// When each core is called next.
    wakes: Vec<u64>,
    /// Whether each server was reported as lost last.
    lost: Vec<bool>,
    /// How many requests of each principal arrive in a second.
    traffic: Vec<u64>,
}

type Outbox = Rc<RefCell<Vec<(u64, Result<Reply, Failure>)>>>;

struct Connection {
    replica: usize,
    server: usize,
    is_alive: bool,
    /// When the last message arrives at the server, and at the replica.
    last: [u64; 2],
    /// The calls that charge back and that the server has not carried out.
    paying: Vec<(u64, Principal)>,
}

#[derive(Debug)]
struct SimTicket {
    number: u64,
    is_waiting: Rc<Cell<bool>>,
    outbox: Outbox,
}

impl Ticket for SimTicket {
    fn is_waiting(&self) -> bool {
        self.is_waiting.get()
    }

    fn say(self, answer: Result<Reply, Failure>) {
        self.outbox.borrow_mut().push((self.number, answer));
    }
}

struct Pending {
    replica: usize,
    principal: usize,
    op: Op,
    changes: u64,
    arrived: u64,
    was_sent_on: bool,
    is_waiting: Rc<Cell<bool>>,
}

#[derive(Debug)]
enum Event {
    Arrives { replica: usize, principal: usize },
    Leaves { number: u64 },
    Wakes { replica: usize, server: usize },
    Connects { replica: usize, server: usize, gives_up: bool, sent: u64 },
    AtServer { connection: usize, message: Message, sent: u64 },
    AtReplica { connection: usize, message: Message },
    Learns { replica: usize },
    Fails(Fault),
    HasMigrated { principal: usize, half: bool },
}

#[derive(Debug)]
enum Message {
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
    requests: u64,
    by_server: u64,
    locally: u64,
    admitted: u64,
    losses: u64,
    charged_back: u64,
    faults: u64,
    forwarded: u64,
    late: u64,
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
    }
}

impl Seen {
    pub(super) fn is_worth_it(&self, scenario: Scenario) {
        assert!(self.by_server > 100 * self.runs && self.admitted > 10 * self.runs, "{self:?}");
        let lossless = matches!(scenario, Scenario::Calm | Scenario::NamedTime | Scenario::Moves);
        assert!(lossless || scenario == Scenario::Clocks || self.losses > self.runs, "{self:?}");
        assert_eq!(self.forwarded > self.runs, scenario.servers() > 1, "{self:?}");
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
        let servers = scenario.servers();
        let principals: Vec<_> = (0..1 + random.index(3))
            .map(|number| Principal::user(number).expect("it is not empty"))
            .collect();
        let names_time = scenario.names_time(&mut random);
        let owners: Vec<_> = principals.iter().map(|_| (random.index(servers), None)).collect();
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
            pending: HashMap::new(),
            tickets: 0,
            names_time,
            refunds: random.below(2) == 0,
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

    fn replica(&mut self, replicas: u32) -> Replica {
        let (clock, share) = (ManualClock::new(), NonZeroU32::new(replicas).expect("at least 1"));
        let ledger = Arc::new(Ledger::new(share, 1000));
        let store = MemoryStore::with_clock(clock.clone());
        let local = Local::new(store, share, Some(Arc::clone(&ledger)));
        let known: HashMap<_, _> =
            self.principals.iter().cloned().zip(self.owners.iter().map(|it| it.0)).collect();
        let known = Arc::new(Mutex::new(known));
        let limits = Limits { deadline: DEADLINE, patience: PATIENCE, most: 1000 };
        let cores = (0..self.servers.len())
            .map(|server| {
                let known = Arc::clone(&known);
                let holds = move |principal: &Principal| {
                    known.lock().expect("one thread").get(principal) == Some(&server)
                };
                let (ledger, random) = (Some(Arc::clone(&ledger)), self.random.u32());
                Core::new(name(server), limits.clone(), ledger, holds, random)
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
            for principal in 0..self.principals.len() {
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
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > end {
                break;
            }
            self.pass(at);
            self.happens(event);
        }
        self.ends_well();
        self.seen
    }

    /// Lets time pass until `at`.
    fn pass(&mut self, at: u64) {
        let passed = at - self.now;
        if passed > 0 {
            let all = self.replicas.len() as u64;
            let extra = |principal: usize| {
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

    fn later(&mut self, wait: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), event);
    }

    fn next_fault(&mut self) {
        let sizes = [self.servers.len(), self.replicas.len(), self.principals.len()];
        if let Some((wait, fault)) = self.scenario.next(&mut self.random, sizes) {
            if self.now + wait < self.faults_end {
                self.later(wait, Event::Fails(fault));
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { replica, principal } => self.arrives(replica, principal),
            Event::Leaves { number } => {
                if let Some(pending) = self.pending.remove(&number) {
                    pending.is_waiting.set(false);
                }
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

    fn arrives(&mut self, replica: usize, principal: usize) {
        if self.now > self.faults_end + 3 * SECOND {
            return;
        }
        let traffic = self.replicas[replica].traffic[principal];
        let wait = self.random.below(2 * SECOND / traffic) + 1;
        self.later(wait, Event::Arrives { replica, principal });
        if self.random.below(200) == 0 {
            self.replicas[replica].traffic[principal] = self.random.any(&[1..3, 3..100, 100..500]);
        }
        let many = if self.random.below(20) == 0 { 1 + self.random.below(60) } else { 1 };
        for _ in 0..many {
            let op = self.any_op();
            self.ask(replica, principal, op);
        }
        let server = self.server_of(replica, principal);
        self.act(replica, server);
    }

    fn any_op(&mut self) -> Op {
        let two = self.agent.with_cost(2).expect("the burst is at least 2");
        let (call, plan) = (self.call, self.plans[self.random.index(2)]);
        let check = |entries: &[Entry]| Op::Check(entries.into());
        match self.random.below(40) {
            0..30 => check(&[call]),
            30..33 => check(&[call, two]),
            33 => check(&[two, call.shadow()]),
            34 => Op::Peek([call].into()),
            35 if self.refunds => Op::Refund([call].into()),
            _ => check(&[plan]),
        }
    }

    fn ask(&mut self, replica: usize, principal: usize, op: Op) {
        self.seen.requests += 1;
        self.tickets += 1;
        let (number, is_waiting) = (self.tickets, Rc::new(Cell::new(true)));
        let server = self.server_of(replica, principal);
        if self.random.below(50) == 0 {
            let wait = self.random.below(DEADLINE);
            self.later(wait, Event::Leaves { number });
        }
        let of = &mut self.replicas[replica];
        let pending = Pending {
            replica,
            principal,
            op: op.clone(),
            changes: of.local.changes(),
            arrived: self.now,
            was_sent_on: false,
            is_waiting: Rc::clone(&is_waiting),
        };
        self.pending.insert(number, pending);
        let ticket = SimTicket { number, is_waiting, outbox: Rc::clone(&of.outbox) };
        let (principal, deadline) = (self.principals[principal].clone(), self.now + DEADLINE);
        of.cores[server].ask(Ask::new(principal, op, deadline, ticket));
    }

    fn server_of(&self, replica: usize, principal: usize) -> usize {
        self.replicas[replica].known.lock().expect("one thread")[&self.principals[principal]]
    }

    /// Hands out answers, and does what a core wants done.
    fn act(&mut self, replica: usize, server: usize) {
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

    fn carry_out(&mut self, replica: usize, server: usize, action: Action<SimTicket>) {
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
            Action::Forward(to, asks) => {
                self.seen.forwarded += asks.len() as u64;
                let to = (0..self.servers.len()).find(|server| name(*server) == to);
                let to = to.expect("it is one of the servers");
                for ask in asks {
                    if let Some(pending) = self.pending.get_mut(&ask.ticket.number) {
                        pending.was_sent_on = true;
                    }
                    self.replicas[replica].cores[to].ask(ask);
                }
                self.later(0, Event::Wakes { replica, server: to });
            }
        }
    }

    /// Hands out the answers of a replica, in order.
    fn hand_out(&mut self, replica: usize) {
        let answers = self.replicas[replica].outbox.take();
        let mut decided: Vec<(usize, Op, u64, bool)> = Vec::new();
        for (number, answer) in answers {
            let Some(pending) = self.pending.remove(&number) else { continue };
            let waited = self.now - pending.arrived;
            assert!(waited <= DEADLINE, "request {number} has waited for {waited} ns");
            if answer.is_err() && matches!(self.scenario, Scenario::Calm | Scenario::NamedTime) {
                // Before there is a connection all is decided locally.
                assert!(self.now < SECOND, "{answer:?} though all is well");
            }
            let (principal, op) = (pending.principal, pending.op.clone());
            // A refund may bring a unit for a later request. So may two plans, which correct one
            // bucket in turn.
            let in_order = answer.is_ok() && !self.refunds && !pending.was_sent_on;
            let in_order = in_order && op.buckets().all(|bucket| bucket != Endpoint::DEFAULT);
            let Some(is_admitted) = self.conclude(&pending, answer) else { continue };
            if in_order {
                decided.push((principal, op, number, is_admitted));
            }
        }
        // The answers to equal requests that share a call are there at the same time.
        for (principal, op, number, is_admitted) in &decided {
            let before = |other: &&(usize, Op, u64, bool)| {
                (other.0, &other.1) == (*principal, op) && other.2 < *number
            };
            let refused = decided.iter().filter(before).any(|(.., admitted)| !admitted);
            assert!(!(*is_admitted && refused), "units go to requests in the order of arrival");
        }
    }

    /// What becomes of a request. Returns whether it is admitted, if it is a check.
    fn conclude(&mut self, pending: &Pending, answer: Result<Reply, Failure>) -> Option<bool> {
        let Op::Check(entries) = &pending.op else { return None };
        let (principal, by_server) = (pending.principal, answer.is_ok());
        *(if by_server { &mut self.seen.by_server } else { &mut self.seen.locally }) += 1;
        let checked = answer
            .map(|reply| reply.into_decisions().expect("decisions"))
            .map_err(StoreError::from);
        let charge = Charge::of(&self.principals[principal], entries);
        let local = &self.replicas[pending.replica].local;
        let outcome = local.conclude(&charge, checked, pending.changes);
        let outcome = outcome.expect("there is room").outcome();
        self.seen.admitted += u64::from(outcome.is_admitted());
        for entry in entries.iter().filter(|entry| outcome.charges(entry.is_binding())) {
            let bucket = (principal, entry.endpoint());
            if by_server {
                self.charged.entry(bucket).or_default()[1] += entry.time();
            }
            // Plans measure one bucket by two quotas, so there is no one bound for it.
            if entry.endpoint() != Endpoint::DEFAULT {
                let interval = entry.rate().in_whole_micros().interval();
                self.referee.admit(bucket, interval, entry.cost(), self.now);
            }
        }
        Some(outcome.is_admitted())
    }

    /// What was not charged back is not forgotten.
    fn still_owes(&self, replica: usize, principal: &Principal) {
        let owing = self.replicas[replica].ledger.some(1, |owing| owing == principal);
        assert_eq!(owing.len(), 1, "replica {replica} has forgotten what it owes");
    }

    fn message_takes(&mut self, replica: usize) -> u64 {
        let partitioned = self.replicas[replica].partitioned_until.saturating_sub(self.now);
        let delay = if self.delay.0 > self.now { self.random.below(self.delay.1) } else { 0 };
        partitioned + delay + self.random.in_range(MILLI / 20..2 * MILLI)
    }

    fn connect(&mut self, replica: usize, server: usize) {
        let mut takes: u64 = (0..6).map(|_| self.message_takes(replica)).sum();
        let of = &self.servers[server];
        takes = takes.max(of.frozen_until.saturating_sub(self.now));
        let gives_up = takes > PATIENCE;
        let event = Event::Connects { replica, server, gives_up, sent: self.now };
        self.later(takes.min(PATIENCE), event);
    }

    fn connects(&mut self, replica: usize, server: usize, gives_up: bool, sent: u64) {
        let of = &self.servers[server];
        let is_down = gives_up || of.dead_until > self.now || of.frozen_until > self.now;
        let (now, core) = (self.now, &mut self.replicas[replica].cores[server]);
        if is_down {
            core.refused(now, &reason(server, "it is down"));
        } else {
            let seen = Sighting { sent, arrived: now, shown: of.time(now) };
            let names_time = self.names_time;
            core.connected(now, Greeting { server: name(server), seen: Some(seen), names_time });
            self.replicas[replica].connected[server] = Some(self.connections.len());
            self.connections.push(Connection {
                replica,
                server,
                is_alive: true,
                last: [0; 2],
                paying: Vec::new(),
            });
        }
        self.act(replica, server);
    }

    fn send_to_server(&mut self, connection: usize, message: Message) {
        let takes = self.message_takes(self.connections[connection].replica);
        let last = &mut self.connections[connection].last[0];
        *last = (*last).max(self.now + takes);
        let wait = *last - self.now;
        self.later(wait, Event::AtServer { connection, message, sent: self.now });
    }

    fn send_to_replica(&mut self, connection: usize, message: Message) {
        let takes = self.message_takes(self.connections[connection].replica);
        let last = &mut self.connections[connection].last[1];
        *last = (*last).max(self.now + takes);
        let wait = *last - self.now;
        self.later(wait, Event::AtReplica { connection, message });
    }

    fn at_server(&mut self, connection: usize, message: Message, sent: u64) {
        let Connection { server, is_alive, .. } = &self.connections[connection];
        let (server, is_alive) = (*server, *is_alive);
        let of = &mut self.servers[server];
        if !is_alive || of.dead_until > self.now {
            return;
        }
        if of.frozen_until > self.now {
            let wait = of.frozen_until - self.now;
            return self.later(wait, Event::AtServer { connection, message, sent });
        }
        let answer = match message {
            Message::Call(number, request) => {
                let answer = self.serve(server, &request);
                if matches!(answer, Ok(Answer::Done { .. })) {
                    let is_late = !self.names_time && self.now > sent + DEADLINE;
                    let clocks = matches!(
                        self.scenario,
                        Scenario::Clocks | Scenario::Moves | Scenario::Everything
                    );
                    assert!(clocks || !is_late, "charged for requests that do not wait any more");
                    self.connections[connection].paying.retain(|(paying, _)| *paying != number);
                }
                Message::Answer(number, answer)
            }
            Message::Beat => {
                Message::Beaten(Sighting { sent, arrived: 0, shown: of.time(self.now) })
            }
            other => panic!("{other:?} is no message to a server"),
        };
        self.send_to_replica(connection, answer);
    }

    /// What a server answers, which may send the caller on.
    fn serve(&mut self, server: usize, request: &Request) -> Result<Answer, CallError> {
        let principal = self.principals.iter().position(|it| *it == request.principal);
        let principal = principal.expect("it is one of them");
        let (owner, heir) = self.owners[principal];
        let elsewhere = |to: usize, moved| Err(CallError::Elsewhere { to: Some(name(to)), moved });
        match heir {
            Some(heir) if server == owner => {
                let here = self.servers[server].count(request);
                if here == 0 {
                    return elsewhere(heir, false);
                } else if here < request.buckets.len() {
                    return Err(CallError::Elsewhere { to: None, moved: false });
                }
            }
            Some(heir) if server == heir && request.asking => {}
            _ if server != owner => return elsewhere(owner, true),
            _ => {}
        }
        let (answer, charged) = self.servers[server].carry_out(request, self.now);
        for (bucket, time) in charged {
            self.charged.entry((principal, bucket)).or_default()[0] += time;
        }
        if matches!(answer, Ok(Answer::Done { .. })) {
            for run in &request.runs {
                if let Run::Refund { bucket, rate, time } = run {
                    let units = u32::try_from(time / rate.interval()).expect("few");
                    self.referee.give_back((principal, *bucket), units);
                }
            }
        }
        answer
    }

    fn at_replica(&mut self, connection: usize, message: Message) {
        let Connection { replica, server, is_alive, .. } = &self.connections[connection];
        let (replica, server, is_alive) = (*replica, *server, *is_alive);
        if !is_alive {
            return;
        }
        let (now, core) = (self.now, &mut self.replicas[replica].cores[server]);
        match message {
            Message::Answer(number, answer) => {
                let late = core.late_charges();
                core.answered(now, number, answer);
                self.seen.late += core.late_charges() - late;
                let paying = &mut self.connections[connection].paying;
                if let Some(index) = paying.iter().position(|(paying, _)| *paying == number) {
                    let (_, principal) = paying.remove(index);
                    self.still_owes(replica, &principal);
                }
            }
            Message::Beaten(seen) => core.beaten(now, Ok(Some(Sighting { arrived: now, ..seen }))),
            Message::Closed => core.closed(now, &reason(server, "the connection broke")),
            other => panic!("{other:?} is no message to a replica"),
        }
        self.act(replica, server);
    }

    fn fails(&mut self, fault: Fault) {
        match fault {
            Fault::Freeze { server, time } => self.servers[server].frozen_until = self.now + time,
            Fault::Kill { server, time } => {
                self.servers[server].dead_until = self.now + time;
                self.cut(|connection| connection.server == server);
            }
            Fault::Cut => self.cut(|_| true),
            Fault::Partition { replica, time } => {
                self.replicas[replica].partitioned_until = self.now + time;
            }
            Fault::Delay { most, time } => self.delay = (self.now + time, most),
            // A clock that is set can't be noticed before the next beat.
            Fault::Clock { .. } if self.names_time => {}
            Fault::Clock { server, by } => {
                self.servers[server].ahead += by;
                // A step forward is as if so much time had passed.
                let step = u64::try_from(by).unwrap_or(0) * 1000;
                let owners = &self.owners;
                let of = |principal: usize| if owners[principal].0 == server { step } else { 0 };
                self.referee.pass(self.now, of);
            }
            Fault::Move { principal, to, time } => {
                let (owner, heir) = &mut self.owners[principal];
                if heir.is_none() && *owner != to {
                    *heir = Some(to);
                    self.later(time / 2, Event::HasMigrated { principal, half: true });
                    self.later(time, Event::HasMigrated { principal, half: false });
                }
            }
        }
    }

    /// Breaks connections. What was sent and has not arrived is lost.
    fn cut(&mut self, which: impl Fn(&Connection) -> bool) {
        for connection in 0..self.connections.len() {
            if self.connections[connection].is_alive && which(&self.connections[connection]) {
                let of = &mut self.connections[connection];
                of.is_alive = false;
                let (replica, server, paying) = (of.replica, of.server, mem::take(&mut of.paying));
                // The replica learns of it in a moment, over what is left of the connection.
                self.connections.push(Connection {
                    replica,
                    server,
                    is_alive: true,
                    last: [0; 2],
                    paying,
                });
                let last = self.connections.len() - 1;
                if self.replicas[replica].connected[server] == Some(connection) {
                    self.replicas[replica].connected[server] = Some(last);
                    self.connections[last].server = server;
                    self.send_to_replica(last, Message::Closed);
                }
            }
        }
    }

    /// All buckets of the principal have been migrated, or the new server has become the owner.
    fn has_migrated(&mut self, principal: usize, half: bool) {
        let (owner, Some(heir)) = self.owners[principal] else { return };
        let buckets = self.servers[owner].give_up(&self.principals[principal]);
        self.servers[heir].take_over(buckets);
        if !half {
            self.owners[principal] = (heir, None);
        }
    }

    fn ends_well(&mut self) {
        for (number, replica) in self.replicas.iter().enumerate() {
            for (core, lost) in replica.cores.iter().zip(&replica.lost) {
                assert!(core.is_up() && !lost, "replica {number} has not regained a server");
                assert!(core.is_idle(), "replica {number} has calls in flight");
            }
            assert!(replica.ledger.is_empty(), "replica {number} has not paid");
        }
        assert!(self.pending.is_empty(), "{} requests have no answer", self.pending.len());
        for (bucket, [charged, got]) in &self.charged {
            assert!(charged >= got, "{bucket:?}: {charged} charged, {got} admitted by the server");
        }
        let replicas = self.replicas.len();
        for ((principal, endpoint), highest) in self.referee.highest() {
            let entry = if endpoint == Endpoint::CALL { self.call } else { self.agent };
            let interval = entry.rate().interval();
            // Answers arrive within the deadline, in any order. The clock may give units away.
            let mut jitter = u32::try_from(DEADLINE.div_ceil(interval)).expect("small") + 1;
            // A refund is seen before the answers to earlier requests have arrived.
            jitter += if self.refunds { 4 } else { 0 };
            // Without the server, each replica knows the time by its last answers.
            let unsure = if self.names_time { 100 * MILLI } else { 0 };
            jitter += u32::try_from(unsure.div_ceil(interval)).expect("small");
            let lossless = matches!(self.scenario, Scenario::Calm | Scenario::NamedTime);
            let bursts = if lossless { 1 } else { 2 };
            assert!(
                highest <= bursts * entry.quota().burst() + jitter,
                "{highest} at a burst of {} from bucket {endpoint} of {principal} by {replicas} \
                 replicas",
                entry.quota().burst(),
            );
        }
    }
}

fn name(server: usize) -> Arc<str> {
    format!("server-{server}").into()
}

fn reason(server: usize, detail: &str) -> Reason {
    Reason { server: name(server), kind: "unreachable", detail: detail.into() }
}
