//! The requests of a simulated fleet, and what becomes of them.

use std::cell::Cell;
use std::rc::Rc;

use super::super::corrections::Kind;
use super::super::failure::Failure;
use super::super::pending::{Op, Pending};
use super::super::request::Entries;
use super::fleet::{DEADLINE, Event, Fleet, Issued, SimTicket};
use super::scenario::{MILLI, SECOND, Scenario};
use crate::store::{Charge, Entry, Reply, StoreError};
use crate::values::{Endpoint, OwnedBucket, Principal, Scope};

impl Fleet {
    pub(super) fn arrives(&mut self, replica: usize, principal: usize) {
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
            let op = self.any_op(principal);
            self.issue(replica, principal, op);
        }
        let server = self.server_of(replica, principal);
        self.act(replica, server);
    }

    pub(super) fn any_op(&mut self, principal: usize) -> Op {
        let two = self.agent.with_cost(2).expect("the burst is at least 2");
        let (call, plan) = (self.call, self.plans[self.random.index(2)]);
        let (of_user, of_everyone) = (self.of_user, self.of_everyone);
        let (kind, user) = (self.random.below(60), self.random.index(2));
        let entries = |entries: &[Entry]| {
            let (principal, user) = (&self.principals[principal], &self.users[user]);
            Entries::of(&Charge::with_user(principal, user, entries).expect("it is valid"))
        };
        let check = |list: &[Entry]| Op::Check(entries(list));
        match kind {
            0..30 => check(&[call]),
            30..33 => check(&[call, two]),
            33 => check(&[two, call.shadow()]),
            34 => Op::Peek(entries(&[call])),
            35 if self.refunds => Op::Refund(entries(&[call])),
            36..44 => check(&[call, of_user]),
            44 => check(&[call.shadow(), of_user]),
            45 if self.refunds => Op::Refund(entries(&[of_user])),
            46..56 if self.scenario.counts_everyone() => match kind {
                46..51 => check(&[call, of_everyone]),
                51..54 => check(&[of_everyone, of_user, call]),
                54 if self.refunds => Op::Refund(entries(&[of_everyone])),
                _ => check(&[call, of_everyone.shadow()]),
            },
            _ => check(&[plan]),
        }
    }

    pub(super) fn issue(&mut self, replica: usize, principal: usize, op: Op) {
        self.seen.requests += 1;
        self.tickets += 1;
        let (number, is_waiting) = (self.tickets, Rc::new(Cell::new(true)));
        let server = self.server_of(replica, principal);
        if self.random.below(50) == 0 {
            let wait = self.random.below(DEADLINE);
            self.later(wait, Event::Leaves { number });
        }
        let of = &mut self.replicas[replica];
        let pending = Issued {
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
        of.cores[server].accept(Pending::new(principal, op, deadline, ticket));
    }

    pub(super) fn server_of(&self, replica: usize, principal: usize) -> usize {
        self.replicas[replica].known.lock().expect("one thread")[&self.principals[principal]]
    }

    /// Hands out the answers of a replica, in order.
    pub(super) fn hand_out(&mut self, replica: usize) {
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
            let of = &self.principals[pending.principal];
            if self.scenario == Scenario::Moves && pending.op.buckets(of).count() == 1 {
                assert_ne!(answer, Err(Failure::Moved), "a server has the bucket");
            }
            let (principal, op) = (pending.principal, pending.op.clone());
            // A refund may bring a unit for a later request. So may two plans, which correct one
            // bucket in turn.
            let gives_back = self.refunds || self.corrects;
            let in_order = answer.is_ok() && !gives_back && !pending.was_sent_on;
            let in_order =
                in_order && op.buckets(of).all(|bucket| bucket.name != Endpoint::DEFAULT);
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
    pub(super) fn conclude(
        &mut self,
        pending: &Issued,
        answer: Result<Reply, Failure>,
    ) -> Option<bool> {
        let Op::Check(entries) = &pending.op else { return None };
        let (principal, by_server) = (pending.principal, answer.is_ok());
        *(if by_server { &mut self.seen.by_server } else { &mut self.seen.locally }) += 1;
        let checked = answer
            .map(|reply| reply.into_decisions().expect("decisions"))
            .map_err(StoreError::from);
        let charge = entries.charge(&self.principals[principal]);
        let local = &self.replicas[pending.replica].local;
        let outcome = local.conclude(&charge, checked, pending.changes);
        let outcome = outcome.expect("there is room").outcome();
        self.seen.admitted += u64::from(outcome.is_admitted());
        let each = entries.buckets(charge.principal()).zip(entries.as_slice());
        for (bucket, entry) in each.filter(|(_, entry)| outcome.charges(entry.is_binding())) {
            let bucket = self.key(principal, bucket);
            self.seen.of_everyone += u64::from(entry.scope() == Scope::Everyone);
            if by_server {
                self.charged.entry(bucket.clone()).or_default()[1] += entry.time();
            }
            // Plans measure one bucket by two quotas, so there is no one bound for it.
            if entry.name() != Endpoint::DEFAULT {
                let interval = entry.rate().in_whole_micros().interval();
                self.referee.admit(bucket, interval, entry.cost(), self.now);
            }
        }
        if self.corrects && self.random.below(4) == 0 {
            // As above, there is no one bound for plans.
            let is_given = |entry: &&Entry| {
                outcome.charges(entry.is_binding()) && entry.name() != Endpoint::DEFAULT
            };
            let admitted: Vec<_> = charge.entries().iter().filter(is_given).copied().collect();
            if !admitted.is_empty() {
                let entries = Entries::of(&charge.with_entries(&admitted));
                let wait = self.random.any(&[0..MILLI, MILLI..300 * MILLI]);
                let replica = pending.replica;
                self.later(wait, Event::GivesBack { replica, principal, entries });
            }
        }
        Some(outcome.is_admitted())
    }

    /// A replica gives back units that it has admitted, because the response says so.
    pub(super) fn gives_back(&mut self, replica: usize, principal: usize, entries: &Entries) {
        let charge = entries.charge(&self.principals[principal]);
        let of = &self.replicas[replica];
        let mut left = Vec::new();
        let submitted = of.local.refund(&charge, |charge| {
            left.extend_from_slice(charge.entries());
            of.corrections.add(&charge, Kind::Refund).expect("there is room");
            Ok(())
        });
        submitted.expect("it is kept");
        let each = charge.entries().iter().map(|entry| {
            let bucket = OwnedBucket::of(charge.bucket(entry));
            let rest = left.iter().find(|left| left.name() == entry.name()).map(Entry::cost);
            (self.key(principal, bucket), entry.cost(), rest.unwrap_or(0))
        });
        for (bucket, units, left) in each.collect::<Vec<_>>() {
            // The others are no longer owed.
            self.referee.give_back(&bucket, units - left);
            self.seen.given_back += u64::from(units);
            let [submitted, given] = self.given.entry(bucket.clone()).or_default();
            *submitted += u64::from(left);
            let missing = *submitted - *given;
            let most = self.not_given.entry(bucket).or_default();
            *most = missing.max(*most);
        }
        let server = self.server_of(replica, principal);
        let core = &mut self.replicas[replica].cores[server];
        core.correct(self.principals[principal].clone());
        core.correct(Principal::everyone().clone());
        self.act(replica, server);
    }
}
