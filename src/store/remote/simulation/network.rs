//! The messages between the replicas and the servers of a simulated fleet.

use super::super::core::{CallError, Greeting};
use super::super::request::{Reply as Answer, Request, Run};
use super::super::server_time::Sighting;
use super::fleet::{Connection, DEADLINE, Event, Fleet, Message, PATIENCE, name, reason};
use super::scenario::{MILLI, Scenario};
use crate::values::Principal;

impl Fleet {
    /// Asserts that the replica still owes something for the principal.
    pub(super) fn still_owes(&self, replica: usize, principal: &Principal) {
        let owing = self.replicas[replica].ledger.some(1, |owing| owing == principal);
        assert_eq!(owing.len(), 1, "replica {replica} has forgotten what it owes");
    }

    pub(super) fn message_takes(&mut self, replica: usize) -> u64 {
        let partitioned = self.replicas[replica].partitioned_until.saturating_sub(self.now);
        let delay = if self.delay.0 > self.now { self.random.below(self.delay.1) } else { 0 };
        partitioned + delay + self.random.in_range(MILLI / 20..2 * MILLI)
    }

    pub(super) fn connect(&mut self, replica: usize, server: usize) {
        let mut takes: u64 = (0..6).map(|_| self.message_takes(replica)).sum();
        let of = &self.servers[server];
        takes = takes.max(of.frozen_until.saturating_sub(self.now));
        let gives_up = takes > PATIENCE;
        let event = Event::Connects { replica, server, gives_up, sent: self.now };
        self.later(takes.min(PATIENCE), event);
    }

    pub(super) fn connects(&mut self, replica: usize, server: usize, gives_up: bool, sent: u64) {
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

    pub(super) fn send_to_server(&mut self, connection: usize, message: Message) {
        let takes = self.message_takes(self.connections[connection].replica);
        let last = &mut self.connections[connection].last[0];
        *last = (*last).max(self.now + takes);
        let wait = *last - self.now;
        self.later(wait, Event::AtServer { connection, message, sent: self.now });
    }

    pub(super) fn send_to_replica(&mut self, connection: usize, message: Message) {
        let takes = self.message_takes(self.connections[connection].replica);
        let last = &mut self.connections[connection].last[1];
        *last = (*last).max(self.now + takes);
        let wait = *last - self.now;
        self.later(wait, Event::AtReplica { connection, message });
    }

    pub(super) fn at_server(&mut self, connection: usize, message: Message, sent: u64) {
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

    /// What a server answers: it may name another server that has the buckets.
    pub(super) fn serve(&mut self, server: usize, request: &Request) -> Result<Answer, CallError> {
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
            let key = self.key(principal, bucket);
            self.charged.entry(key).or_default()[0] += time;
        }
        if matches!(answer, Ok(Answer::Done { .. })) {
            for run in &request.runs {
                if let Run::Refund { bucket, rate, time } = run {
                    let units = u32::try_from(time / rate.interval()).expect("few");
                    let bucket = self.key(principal, bucket.clone());
                    self.referee.give_back(&bucket, units);
                    if self.corrects {
                        self.given.entry(bucket).or_default()[1] += u64::from(units);
                    }
                }
            }
        }
        answer
    }

    pub(super) fn at_replica(&mut self, connection: usize, message: Message) {
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
}
