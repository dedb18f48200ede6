//! The requests that wait for one endpoint. [The module of the pace](super) explains the stages.
//!
//! The queue knows nothing of limits: its owner, the [state](super::state) of the endpoint, decides
//! when an event takes place, and reserves units and permits. Each method that changes something is
//! one event, and takes at most the time of a look-up for each request that it changes. The
//! exception is [`expire_late`](Queue::expire_late), which looks at each waiting request.
//!
//! The queue wakes no waker and drops none, because either may run any code, even the drop of
//! another request. It returns them, and its users do both after they have released the lock.

mod index;
#[cfg(test)]
mod model_tests;
mod order;
mod stage;
mod ticket;

use std::collections::BTreeMap;
use std::iter::{Peekable, repeat_n};
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use index::Index;
pub(super) use order::{Each, Order};
pub(super) use stage::Stage;
pub(super) use ticket::Ticket;

use super::error::Lack;
use crate::client::priority::Priority;

/// All requests that have arrived and have not been sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: Requests,
    index: Index,
    /// How many requests have been dispatched.
    dispatches: u64,
    /// By how much all deadlines have been moved. Those of the requests are stored without it.
    moved: u64,
}

type Requests = BTreeMap<Ticket, Request>;

#[derive(Debug)]
pub(super) struct Request {
    stage: Stage,
    /// Woken when the stage changes. Only a waiting or held request has one.
    waker: Option<Waker>,
    /// Until when it may wait, without the time by which all deadlines are moved.
    deadline: u64,
    /// The number of its last dispatch.
    dispatch: u64,
    /// Another policy finds its endpoint by it.
    path: Arc<str>,
}

/// What a request learns when its future is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// It waits, and its waker is stored.
    Waits,
    /// The same, but it had lapsed before.
    WaitsAgain,
    Dispatched,
    /// It is not in this queue, since the policy was replaced.
    Moved,
    Expired {
        wait: u64,
        lack: Lack,
    },
}

/// Where a dispatched request is or would be among those that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Between,
    /// After so many others.
    Last(u64),
}

/// The events, in the order of the diagram.
impl Queue {
    /// A request arrives, and waits. The later it arrives, the higher is its `number`.
    pub(super) fn arrive(
        &mut self,
        number: u64,
        priority: Priority,
        is_retry: bool,
        deadline: u64,
        path: Arc<str>,
    ) -> Ticket {
        let ticket = Ticket::new(number, priority, is_retry);
        let deadline = deadline.saturating_sub(self.moved);
        let request = Request { stage: Stage::Waiting, waker: None, deadline, dispatch: 0, path };
        self.index.add(ticket, &request);
        self.requests.insert(ticket, request);
        self.check();
        ticket
    }

    /// The first waiting request of that priority is dispatched. Returns its waker.
    pub(super) fn dispatch(&mut self, priority: Priority, now: u64) -> Option<Waker> {
        let ticket = self.first(priority)?;
        self.dispatches += 1;
        let dispatch = self.dispatches;
        let request = self.change(ticket, Stage::Dispatched { at: now })?;
        request.dispatch = dispatch;
        request.waker.take()
    }

    /// The future of a request is polled. If the request waits, `waker` is stored, and the previous
    /// waker is left in its place. A dispatched request gets its service ready from now on, a
    /// lapsed one waits again, and an expired one leaves the queue.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &mut Option<Waker>) -> Polled {
        let stage = self.stage(ticket);
        match stage {
            Some(Stage::Lapsed) => {
                self.change(ticket, Stage::Waiting);
                self.store(ticket, waker);
                Polled::WaitsAgain
            }
            Some(Stage::Dispatched { .. }) => {
                self.change(ticket, Stage::Readying);
                Polled::Dispatched
            }
            Some(Stage::Readying | Stage::Held) => Polled::Dispatched,
            Some(Stage::Expired { wait, lack }) => {
                // It has no waker since it expired.
                self.leave(ticket);
                Polled::Expired { wait, lack }
            }
            Some(Stage::Waiting) => {
                self.store(ticket, waker);
                Polled::Waits
            }
            None => Polled::Moved,
        }
    }

    /// A dispatched request, which is ready, is held. `waker` is stored, and the previous one is
    /// left in its place.
    pub(super) fn hold(&mut self, ticket: Ticket, waker: &mut Option<Waker>) {
        if self.stage(ticket) != Some(Stage::Held) {
            self.change(ticket, Stage::Held);
        }
        self.store(ticket, waker);
    }

    /// The first held request is dispatched again. Returns its waker.
    pub(super) fn redispatch(&mut self, now: u64) -> Option<Waker> {
        let (_, ticket) = *self.index.held.first()?;
        self.change(ticket, Stage::Dispatched { at: now })?.waker.take()
    }

    /// A dispatched request can't be sent in time. Returns its waker.
    pub(super) fn lapse(&mut self, ticket: Ticket) -> Option<Waker> {
        self.change(ticket, Stage::Lapsed)?.waker.take()
    }

    /// The same for the last held request.
    pub(super) fn lapse_last_held(&mut self) -> Option<Waker> {
        let (_, ticket) = *self.index.held.last()?;
        self.lapse(ticket)
    }

    /// The same for the first request that was dispatched by that time and whose future has not
    /// been polled since. Returns whether there was one. The dispatch has woken it.
    pub(super) fn lapse_unpolled(&mut self, by: u64) -> bool {
        let first = self.index.dispatched.first().filter(|(at, _)| *at <= by).copied();
        first.is_some_and(|(_, ticket)| self.change(ticket, Stage::Lapsed).is_some())
    }

    /// The waiting requests expire whose deadlines have passed. Returns how many. They would still
    /// have to wait for so long, as far as is known.
    pub(super) fn expire_overdue(
        &mut self,
        now: u64,
        wait: u64,
        lack: Lack,
        woken: &mut Vec<Waker>,
    ) -> u64 {
        let mut expired = 0;
        while let Some((deadline, ticket)) = self.index.deadlines.first().copied() {
            if deadline.saturating_add(self.moved) > now {
                break;
            }
            self.expire(ticket, wait, lack, woken);
            expired += 1;
        }
        expired
    }

    /// The waiting requests expire that are not due yet and will be after their deadlines. Returns
    /// how many. `due` returns when a request is due after so many others. Looks at each waiting
    /// request.
    pub(super) fn expire_late(
        &mut self,
        mut order: Order,
        now: u64,
        due: impl Fn(u64) -> u64,
        lack: Lack,
        woken: &mut Vec<Waker>,
    ) -> u64 {
        let (mut ahead, mut late) = (0, Vec::new());
        let mut each = self.in_order();
        loop {
            let waits = each.each_mut().map(|requests| requests.peek().is_some());
            let Some(priority) = order.next(waits) else { break };
            let Some(request) = each[priority as usize].next() else { break };
            let due = due(ahead);
            match request {
                Some((ticket, deadline)) if due > now && due > deadline => {
                    late.push((ticket, due - now));
                }
                _ => {
                    order.dispatch(priority, waits);
                    ahead += 1;
                }
            }
        }
        drop(each);
        for (ticket, wait) in &late {
            self.expire(*ticket, *wait, lack, woken);
        }
        late.len() as u64
    }

    /// A request is sent, or its future is dropped. Returns its last stage and its waker.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<(Stage, Option<Waker>)> {
        self.check();
        let request = self.requests.remove(&ticket)?;
        self.index.remove(ticket, &request);
        Some((request.stage, request.waker))
    }

    /// Gives up all requests.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = (Ticket, Request)> + use<> {
        let Self { requests, moved, .. } = mem::take(self);
        requests.into_iter().map(move |(ticket, mut request)| {
            request.deadline = request.deadline.saturating_add(moved);
            (ticket, request)
        })
    }

    /// Takes in a request that another queue has given up. It keeps its stage and its place.
    pub(super) fn welcome(&mut self, ticket: Ticket, mut request: Request) {
        request.deadline = request.deadline.saturating_sub(self.moved);
        self.dispatches = self.dispatches.max(request.dispatch);
        self.index.add(ticket, &request);
        self.requests.insert(ticket, request);
        self.check();
    }

    /// All requests may wait for so much longer.
    pub(super) fn move_deadlines(&mut self, by: u64) {
        self.moved = self.moved.saturating_add(by);
    }

    /// Removes the wakers of all requests.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.requests.values_mut().filter_map(|request| request.waker.take())
    }

    /// The tickets and deadlines of the waiting requests of each priority. `None` stands for a
    /// lapsed request, which will come back before the others.
    fn in_order(&self) -> Each<Peekable<impl Iterator<Item = Option<(Ticket, u64)>> + '_>> {
        [Priority::Interactive, Priority::Bulk].map(|priority| {
            let lapsed = self.index.lapsed[priority as usize];
            let waiting = self.index.waiting[priority as usize].iter();
            let waiting = waiting
                .map(|(ticket, deadline)| Some((*ticket, deadline.saturating_add(self.moved))));
            repeat_n(None, lapsed).chain(waiting).peekable()
        })
    }

    fn expire(&mut self, ticket: Ticket, wait: u64, lack: Lack, woken: &mut Vec<Waker>) {
        let request = self.change(ticket, Stage::Expired { wait, lack });
        woken.extend(request.and_then(|request| request.waker.take()));
    }

    /// The only place where the stage of a request changes.
    fn change(&mut self, ticket: Ticket, stage: Stage) -> Option<&mut Request> {
        self.check();
        let request = self.requests.get_mut(&ticket)?;
        debug_assert!(request.stage.leads_to(stage), "{:?} -> {stage:?}", request.stage);
        self.index.remove(ticket, request);
        request.stage = stage;
        self.index.add(ticket, request);
        Some(request)
    }

    /// Stores `waker`, and leaves the previous one in its place.
    fn store(&mut self, ticket: Ticket, waker: &mut Option<Waker>) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            mem::swap(&mut request.waker, waker);
        }
    }

    fn check(&self) {
        debug_assert_eq!(self.requests.len(), self.index.len());
    }
}

impl Request {
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn has_expired(&self) -> bool {
        self.stage.is_expired()
    }

    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

/// The questions.
impl Queue {
    /// How many requests have arrived and are not dispatched.
    pub(super) fn undispatched(&self) -> u64 {
        self.each_undispatched().iter().sum()
    }

    /// The same, of each priority.
    pub(super) fn each_undispatched(&self) -> Each<u64> {
        let Index { waiting, lapsed, .. } = &self.index;
        [0, 1].map(|priority: usize| (waiting[priority].len() + lapsed[priority]) as u64)
    }

    /// How many requests wait to be dispatched.
    pub(super) fn waiting(&self) -> usize {
        self.index.waiting.iter().map(BTreeMap::len).sum()
    }

    /// Which requests wait to be dispatched.
    pub(super) fn waits(&self) -> Each<bool> {
        self.index.waiting.each_ref().map(|waiting| !waiting.is_empty())
    }

    /// How many requests of each priority have been neither sent nor refused.
    pub(super) fn unsent(&self) -> Each<usize> {
        self.index.unsent
    }

    /// How many requests have their units reserved.
    pub(super) fn dispatched(&self) -> u64 {
        (self.index.dispatched.len() + self.index.readying + self.index.held.len()) as u64
    }

    /// How many dispatched requests have not been polled since.
    pub(super) fn unaware(&self) -> u64 {
        self.index.dispatched.len() as u64
    }

    /// How many requests are held.
    pub(super) fn held(&self) -> u64 {
        self.index.held.len() as u64
    }

    /// Whether there is no request at all.
    #[inline]
    pub(super) fn has_none(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether there is neither a waiting request nor a dispatched one that has not been polled.
    pub(super) fn is_empty(&self) -> bool {
        self.waits() == [false, false] && self.index.dispatched.is_empty()
    }

    /// Whether no request waits for a point in time.
    pub(super) fn is_idle(&self) -> bool {
        self.waits() == [false, false] && self.index.held.is_empty()
    }

    /// The first waiting request of that priority.
    pub(super) fn first(&self, priority: Priority) -> Option<Ticket> {
        let waiting = &self.index.waiting[priority as usize];
        waiting.first_key_value().map(|(ticket, _)| *ticket)
    }

    /// The earliest deadline of the waiting requests.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.index.deadlines.first().map(|(deadline, _)| deadline.saturating_add(self.moved))
    }

    /// When the first of the dispatched requests was dispatched that have not been polled since.
    #[inline]
    pub(super) fn first_dispatched(&self) -> Option<u64> {
        self.index.dispatched.first().map(|(at, _)| *at)
    }

    /// The stage of a request, or `None` if it is not in the queue.
    pub(super) fn stage(&self, ticket: Ticket) -> Option<Stage> {
        self.requests.get(&ticket).map(|request| request.stage)
    }

    /// Where a dispatched request is or would be among those that are held, which are in the order
    /// of their dispatch.
    pub(super) fn place(&self, ticket: Ticket) -> Place {
        let dispatch = self.requests.get(&ticket).map_or(0, |request| request.dispatch);
        let (held, place) = (&self.index.held, (dispatch, ticket));
        if held.first().is_none_or(|first| *first >= place) {
            Place::First
        } else if held.last().is_some_and(|last| *last > place) {
            Place::Between
        } else {
            Place::Last((held.len() - usize::from(held.contains(&place))) as u64)
        }
    }
}
