//! Which requests are in which stage.

use std::collections::{BTreeMap, BTreeSet};

use super::Request;
#[cfg(test)]
use super::Requests;
use super::order::Each;
use super::stage::Stage;
use super::ticket::Ticket;

/// The requests of each stage, so that no event has to look at all requests. It follows from the
/// map of the requests: [`Queue::change`](super::Queue) is the only one that writes to either.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The waiting requests of each priority, in the order of dispatch, with their deadlines.
    pub(super) waiting: Each<BTreeMap<Ticket, u64>>,
    /// The same, the earliest deadline first.
    pub(super) deadlines: BTreeSet<(u64, Ticket)>,
    /// Those whose futures have not been polled since the dispatch, the earliest dispatch first.
    pub(super) dispatched: BTreeSet<(u64, Ticket)>,
    pub(super) readying: usize,
    /// In the order in which they were first dispatched.
    pub(super) held: BTreeSet<(u64, Ticket)>,
    pub(super) lapsed: Each<usize>,
    pub(super) expired: usize,
    /// How many requests of each priority have been neither sent nor refused.
    pub(super) unsent: Each<usize>,
}

impl Index {
    /// The index of these requests, made anew.
    #[cfg(test)]
    pub(super) fn of(requests: &Requests) -> Self {
        let mut index = Self::default();
        requests.iter().for_each(|(ticket, request)| index.add(*ticket, request));
        index
    }

    /// How many requests are in all stages.
    pub(super) fn len(&self) -> usize {
        self.unsent.iter().sum::<usize>() + self.expired
    }

    pub(super) fn add(&mut self, ticket: Ticket, request: &Request) {
        let priority = ticket.priority() as usize;
        self.unsent[priority] += usize::from(!request.stage.is_expired());
        match request.stage {
            Stage::Waiting => {
                self.waiting[priority].insert(ticket, request.deadline);
                self.deadlines.insert((request.deadline, ticket));
            }
            Stage::Dispatched { at } => {
                self.dispatched.insert((at, ticket));
            }
            Stage::Readying => self.readying += 1,
            Stage::Held => {
                self.held.insert((request.dispatch, ticket));
            }
            Stage::Lapsed => self.lapsed[priority] += 1,
            Stage::Expired { .. } => self.expired += 1,
        }
    }

    pub(super) fn remove(&mut self, ticket: Ticket, request: &Request) {
        let priority = ticket.priority() as usize;
        self.unsent[priority] -= usize::from(!request.stage.is_expired());
        match request.stage {
            Stage::Waiting => {
                self.waiting[priority].remove(&ticket);
                self.deadlines.remove(&(request.deadline, ticket));
            }
            Stage::Dispatched { at } => {
                self.dispatched.remove(&(at, ticket));
            }
            Stage::Readying => self.readying -= 1,
            Stage::Held => {
                self.held.remove(&(request.dispatch, ticket));
            }
            Stage::Lapsed => self.lapsed[priority] -= 1,
            Stage::Expired { .. } => self.expired -= 1,
        }
    }
}
