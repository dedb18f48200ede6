//! One server as a replica sees it: everything but input and output.
//!
//! A [`Core`] is fed requests, answers and times, and says what to do next: connect, send a call,
//! deliver an event. A worker does so with sockets and timers, the simulation with neither.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batches;
use super::call::Call;
use super::corrections::Corrections;
use super::failure::{Failure, Reason};
use super::pending::{Pending, Ticket};
use super::request::{Reply, Request};
use super::ring::Ring;
use super::server_time::{ServerTime, Sighting};
use super::supervisor::{Ending, Supervisor, Told};
use crate::store::StoreEvent;
use crate::store::fallback::Ledger;
use crate::values::Principal;

/// One 25th of the deadline is reserved for the answer's way back.
const RESERVED: u64 = 25;

/// How long a call about several buckets waits before it is sent again, because its keys are being
/// migrated. In nanoseconds.
const PAUSE: u64 = 5_000_000;

/// The most principals without requests that are called for at a time, to charge back or to
/// correct. Calls in flight lower the number to no less than [`LEAST_PAYING`].
const MOST_PAYING: usize = 32;
const LEAST_PAYING: usize = 4;

/// How many times a request may be sent on before it fails.
const MOST_HOPS: u8 = 4;

/// The limits of a core. All times are in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// The longest time that a request takes.
    pub(super) deadline: u64,
    /// The longest time that a [beat](Action::Beat) takes.
    pub(super) patience: u64,
    /// The most principals that may have requests waiting.
    pub(super) most: usize,
}

/// The state of one server.
pub(super) struct Core<T> {
    limits: Limits,
    /// The server before it is connected to, as it is named in texts.
    name: Arc<str>,
    supervisor: Supervisor,
    batches: Batches<T>,
    in_flight: Ring<Call>,
    time: ServerTime,
    /// Calls whose keys are being migrated, and when each is sent again.
    parked: VecDeque<(u64, Call)>,
    /// Calls without requests, which only charge back, and when they are overdue.
    paying: VecDeque<(u64, u64)>,
    /// Whether calls name their time, because the server does not tell scripts its own.
    names_time: bool,
    /// What is owed to the servers.
    ledger: Option<Arc<Ledger>>,
    /// The corrections that wait for the servers.
    corrections: Arc<Corrections>,
    /// Whether the last `catch_up` was cut short, so more principals may be waiting.
    is_behind: bool,
    /// Whether this server holds the buckets of the principal.
    holds: Box<dyn Fn(&Principal) -> bool + Send>,
    /// The last error of a call, until a call succeeds.
    last_error: Option<Reason>,
    actions: VecDeque<Action<T>>,
    /// The units that the server has charged for requests that were decided without it.
    late_charges: u64,
    /// Differs between replicas.
    random: u32,
}

/// What a [`Core`] wants done.
#[derive(Debug)]
pub(super) enum Action<T> {
    /// Connect, and answer with [`Core::connected`] or [`Core::refused`].
    Connect,
    /// Send this call, and answer with [`Core::answered`] and its number.
    Call(u64, Request),
    /// Send a beat, the probe of every second, and answer with [`Core::beaten`].
    Beat,
    /// Close the connection.
    Close,
    Tell(StoreEvent),
    /// The nodes of the cluster may have changed.
    Trouble,
    /// Send these requests to the server of that address.
    Forward(Arc<str>, Vec<Pending<T>>),
}

/// What is known of a server when there is a connection to it.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub(super) server: Arc<str>,
    pub(super) seen: Option<Sighting>,
    pub(super) names_time: bool,
}

/// Why a call was not carried out.
#[derive(Clone, Debug)]
pub(super) enum CallError {
    /// The key of the bucket with this index in the request holds something that is no bucket, and
    /// nothing was done. `class` is the beginning of the key.
    Foreign { index: usize, class: Arc<str> },
    /// Another node has the buckets: for good if `moved`, else for this call. `None` if it has some
    /// of them only.
    Elsewhere { to: Option<Arc<str>>, moved: bool },
    /// The server answered with an error.
    Failed(Reason),
    /// The connection has to be replaced: it is broken, or its server can't be used any more.
    Lost(Reason),
}

/// What calls in flight were to charge back is still owed. Their corrections are lost.
impl<T> Drop for Core<T> {
    fn drop(&mut self) {
        let parked = self.parked.drain(..).map(|(_, call)| call);
        let in_flight = std::iter::from_fn(|| self.in_flight.pop());
        for call in in_flight.chain(parked) {
            if let Some(ledger) = &self.ledger {
                ledger.put_back(&call.principal, call.owed, call.sent);
            }
            self.corrections.lose(&call.corrections);
        }
    }
}

impl<T: Ticket> Core<T> {
    pub(super) fn new(
        name: Arc<str>,
        limits: Limits,
        ledger: Option<Arc<Ledger>>,
        corrections: Arc<Corrections>,
        holds: impl Fn(&Principal) -> bool + Send + 'static,
        random: u32,
    ) -> Self {
        Self {
            limits,
            name,
            supervisor: Supervisor::new(),
            batches: Batches::default(),
            in_flight: Ring::default(),
            time: ServerTime::default(),
            parked: VecDeque::new(),
            paying: VecDeque::new(),
            names_time: false,
            ledger,
            corrections,
            is_behind: false,
            holds: Box::new(holds),
            last_error: None,
            actions: VecDeque::new(),
            late_charges: 0,
            random,
        }
    }

    /// Whether requests are sent to the server. Without it they fail at once.
    pub(super) const fn is_up(&self) -> bool {
        self.supervisor.is_up()
    }

    /// What was reported about the server.
    pub(super) const fn told(&self) -> &Told {
        self.supervisor.told()
    }

    /// The units that the server has charged for requests that did not wait for its answer.
    pub(super) const fn late_charges(&self) -> u64 {
        self.late_charges
    }

    /// Takes over the losses that were reported about other servers, whose buckets it has now.
    pub(super) fn inherit(&mut self, losses: u32) {
        self.supervisor.inherit(losses);
    }

    /// A request has arrived.
    pub(super) fn accept(&mut self, pending: Pending<T>) {
        if self.is_up() {
            self.batches.join(pending, self.limits.most);
        } else {
            pending.ticket.say(Err(Failure::Lost));
        }
    }

    /// Corrections of the principal were submitted. Without a connection they wait.
    pub(super) fn correct(&mut self, principal: Principal) {
        if self.is_up() {
            self.batches.call_for(principal);
        }
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, now: u64, greeting: Greeting) {
        self.time = ServerTime::default();
        if let Some(seen) = greeting.seen {
            self.time.learn(seen);
        }
        self.names_time = greeting.names_time;
        self.last_error = None;
        self.supervisor.connected(now, greeting.server);
        self.pay();
        self.catch_up(LEAST_PAYING);
    }

    /// Connecting has failed.
    pub(super) fn refused(&mut self, now: u64, reason: &Reason) {
        let random = self.random();
        self.supervisor.refused(now, random, &self.name, reason);
        self.actions.push_back(Action::Trouble);
    }

    /// The beat was answered.
    pub(super) fn beaten(&mut self, now: u64, answer: Result<Option<Sighting>, Reason>) {
        match answer {
            Ok(seen) => {
                if let Some(seen) = seen {
                    self.time.learn(seen);
                }
                self.supervisor.beaten(now);
                self.pay();
                self.catch_up(LEAST_PAYING);
            }
            Err(reason) => self.closed(now, &reason),
        }
    }

    /// The connection is broken.
    pub(super) fn closed(&mut self, now: u64, reason: &Reason) {
        self.end(now, Ending::Broken, reason);
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, now: u64, number: u64, answer: Result<Reply, CallError>) {
        // Calls of former connections are not in flight any more.
        let Some(mut call) = self.in_flight.remove(number) else { return };
        let sighting = |shown| Sighting { sent: call.sent, arrived: now, shown };
        match answer {
            Ok(Reply::Done { now: shown, states }) => {
                // If calls name their time, the answer repeats it and says nothing about the
                // server's clock.
                if !self.names_time {
                    self.time.learn(sighting(shown));
                }
                self.last_error = None;
                self.supervisor.served(now);
                let was_paying = call.is_paying();
                let is_behind = self.is_behind && !call.corrections.is_empty();
                self.corrections.done(&call.corrections);
                let late = self.batches.conclude(number, call, states, self.ledger.as_deref());
                self.late_charges += late;
                if was_paying {
                    self.pay();
                }
                if is_behind {
                    // Call for the next principal instead.
                    self.catch_up(1);
                }
            }
            Ok(Reply::Late { now: shown }) => {
                // The call was late for its first request, or the server's clock was set.
                self.time.learn(sighting(shown));
                self.put_back(&mut call, now);
                self.batches.again(number, &call);
                self.expire(now);
            }
            Err(CallError::Foreign { index, class }) => {
                // What is owed for the bucket can't be charged, and would make each call that tries
                // fail.
                call.forgive(index);
                self.corrections.lose(&call.corrections_of(index));
                self.put_back(&mut call, now);
                self.batches.fail_those_of(number, &call, index, &Failure::Foreign(class));
            }
            Err(CallError::Elsewhere { to, moved }) => {
                self.put_back(&mut call, now);
                self.elsewhere(now, number, call, to, moved);
            }
            Err(CallError::Failed(reason)) => {
                self.put_back_after(&mut call, now, &reason);
                self.last_error = Some(reason.clone());
                self.batches.fail(number, &call, &Failure::Server(reason));
                self.strike(now);
            }
            Err(CallError::Lost(reason)) => {
                self.put_back_after(&mut call, now, &reason);
                // `end` fails the requests, after the server counts as lost.
                self.batches.put_back(&call);
                self.end(now, Ending::Broken, &reason);
            }
        }
    }

    /// Lets time pass.
    pub(super) fn wake(&mut self, now: u64) {
        self.expire(now);
        if self.supervisor.is_silent(now) {
            let patience = Duration::from_nanos(self.limits.patience);
            let detail = format!("it has not answered within {patience:?}");
            let reason = self.unreachable(detail);
            self.end(now, Ending::Broken, &reason);
        }
        while self.parked.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, call)) = self.parked.pop_front() {
                self.batches.put_back(&call);
            }
        }
    }

    /// The next event to deliver.
    pub(super) fn next_event(&mut self) -> Option<StoreEvent> {
        self.supervisor.events.pop_front()
    }

    /// What to do next.
    pub(super) fn next(&mut self, now: u64) -> Option<Action<T>> {
        if let Some(event) = self.next_event() {
            return Some(Action::Tell(event));
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.supervisor.begins(now) {
            return Some(Action::Connect);
        }
        if !self.is_up() {
            return None;
        }
        if self.supervisor.beats(now, self.limits.patience) {
            return Some(Action::Beat);
        }
        let number = self.in_flight.next_number();
        let (call, mut request, deadline) =
            self.batches.next_call(number, now, self.ledger.as_deref(), &self.corrections)?;
        if call.members.is_empty() {
            self.paying.push_back((now + self.limits.deadline, number));
        }
        self.in_flight.push(call);
        if self.names_time {
            // Replicas know the time differently well: see `Request::now`.
            request.now = -self.time.estimate(now);
        } else {
            let deadline = deadline.min(now + self.limits.deadline);
            request.deadline = self.time.at(deadline - self.limits.deadline / RESERVED);
        }
        Some(Action::Call(number, request))
    }

    /// When [`wake`](Self::wake) and [`next`](Self::next) have to be called at the latest.
    pub(super) fn due(&self) -> Option<u64> {
        let parked = self.parked.front().map(|(at, _)| *at);
        let paying = self.paying.front().map(|(at, _)| *at);
        let first = [self.supervisor.next(), self.batches.next_deadline(), parked, paying];
        first.into_iter().flatten().min()
    }

    /// Whether no request waits, no call is in flight and nothing is to be done at once.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.in_flight.len() == 0 && self.actions.is_empty()
    }

    fn expire(&mut self, now: u64) {
        let failure = Failure::NoAnswer(Duration::from_nanos(self.limits.deadline));
        let mut overdue = self.batches.expire(now, &failure);
        while self.paying.front().is_some_and(|(at, _)| *at <= now) {
            overdue.extend(self.paying.pop_front().map(|(_, number)| number));
        }
        for number in overdue {
            let Some(call) = self.in_flight.get_mut(number).filter(|call| !call.is_overdue) else {
                continue;
            };
            call.is_overdue = true;
            // A call that reaches the server from now on is late: see `Request::deadline`. So the
            // next call for the principal need not wait for the answer to this one.
            self.batches.overtake(number, call);
            self.strike(now);
        }
    }

    fn strike(&mut self, now: u64) {
        if self.supervisor.failed(now) {
            let reason = self.last_error.take().unwrap_or_else(|| {
                self.unreachable("too many checks were not answered in time".to_owned())
            });
            self.end(now, Ending::TooManyFailures, &reason);
        }
    }

    /// Ends the connection. What is in flight is lost: it may have been charged.
    fn end(&mut self, now: u64, ending: Ending, reason: &Reason) {
        if !self.is_up() {
            return;
        }
        let random = self.random();
        self.supervisor.ended(now, random, ending, reason);
        self.actions.push_back(Action::Close);
        self.actions.push_back(Action::Trouble);
        while let Some(mut call) = self.in_flight.pop() {
            self.corrections.lose(&mem::take(&mut call.corrections));
            self.put_back(&mut call, now);
        }
        self.parked.clear();
        self.paying.clear();
        self.batches.fail_all(&Failure::Lost);
    }

    fn elsewhere(&mut self, now: u64, number: u64, call: Call, to: Option<Arc<str>>, moved: bool) {
        if moved {
            self.actions.push_back(Action::Trouble);
        }
        let Some(to) = to else {
            // Some keys are here and some are there, so the call could not be carried out. Requests
            // of one bucket can be: this server has the key, or names the one that does. Those of
            // several buckets are tried again in a while, and hold up nothing else.
            if call.is_narrow {
                self.batches.park(number, &call);
                self.parked.push_back((now + PAUSE, call));
            } else {
                self.batches.again_narrowly(number, &call);
            }
            return;
        };
        let mut pending = self.batches.hand_over(number, &call);
        for pending in &mut pending {
            pending.hops += 1;
            pending.asking = !moved;
        }
        let (on, lost): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|pending| pending.hops <= MOST_HOPS);
        lost.into_iter().for_each(|pending| pending.ticket.say(Err(Failure::Moved)));
        if !on.is_empty() {
            self.actions.push_back(Action::Forward(to, on));
        }
    }

    /// Charges back what this replica owes to principals that have no requests now.
    fn pay(&mut self) {
        let Some(ledger) = self.ledger.clone().filter(|ledger| !ledger.is_empty()) else { return };
        let room = MOST_PAYING.saturating_sub(self.in_flight.len()).max(LEAST_PAYING);
        for principal in ledger.some(room, &*self.holds) {
            self.batches.call_for(principal);
        }
    }

    /// Calls for principals whose corrections have waited: a few at a time, but for no less than
    /// `least`.
    fn catch_up(&mut self, least: usize) {
        let room = MOST_PAYING.saturating_sub(self.in_flight.len()).max(least);
        let waiting = self.corrections.some(room, &*self.holds);
        self.is_behind = waiting.len() == room;
        waiting.into_iter().for_each(|principal| self.batches.call_for(principal));
    }

    /// The call was certainly not carried out.
    fn put_back(&self, call: &mut Call, now: u64) {
        self.corrections.put_back(&call.principal, mem::take(&mut call.corrections));
        if let Some(ledger) = &self.ledger {
            let owed = call.unpaid();
            ledger.put_back(&call.principal, owed, now);
        }
    }

    /// A call has failed for that reason. It may have been carried out all the same, unless the
    /// server has said that it refuses calls.
    fn put_back_after(&self, call: &mut Call, now: u64, reason: &Reason) {
        if !reason.is_refusal() {
            self.corrections.lose(&mem::take(&mut call.corrections));
        }
        self.put_back(call, now);
    }

    fn unreachable(&self, detail: String) -> Reason {
        let server = self.supervisor.server().unwrap_or(&self.name);
        Reason { server: Arc::clone(server), kind: "unreachable", detail: detail.into() }
    }

    /// A pseudo-random number: xorshift.
    fn random(&mut self) -> u32 {
        let mut next = self.random | 1;
        next ^= next << 13;
        next ^= next >> 17;
        next ^= next << 5;
        self.random = next;
        next
    }
}
