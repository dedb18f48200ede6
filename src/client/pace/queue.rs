//! The requests that wait for a unit of one endpoint.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::task::Waker;

use super::error::Lack;

/// A request's ticket: requests with a lower number are dispatched first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The requests that have not been sent, in the order of dispatch: first the retries, then the
/// others, each in the order of arrival.
///
/// The queue wakes no waker and drops none, because either may run any code, even the drop of
/// another waiting request. Callers do both after they have released the lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Ticket, Waiter>,
    /// Dispatched requests whose futures have not been polled since, and when they were dispatched,
    /// the earliest first.
    dispatched: VecDeque<(u64, Ticket)>,
    /// Dispatched requests whose futures have been polled, and which get their service ready.
    readying: BTreeSet<Ticket>,
    /// Requests that are ready, and are held because others were sent just before.
    ready: BTreeMap<Ticket, Option<Waker>>,
    /// How many requests have lapsed and have not come back to the queue yet.
    lapsed: usize,
    /// Expired requests whose futures have not been polled since, and the wait that they would have
    /// had, with the limit that caused it.
    expired: BTreeMap<Ticket, (u64, Lack)>,
}

#[derive(Debug)]
struct Waiter {
    waker: Option<Waker>,
    /// The latest time at which the request may be dispatched.
    deadline: u64,
}

/// The state of a request in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Waits,
    /// It is dispatched.
    Dispatched,
    /// It was dispatched and not sent. It has to come back to the queue.
    Lapsed,
    Expired {
        wait: u64,
        lack: Lack,
    },
}

/// Marks the tickets of requests that are not retries, so that they come after the retries.
const FIRST_TIME: u64 = 1 << 63;

impl Queue {
    /// How many requests are ahead of a new one, without the dispatched ones.
    pub(super) fn ahead(&self) -> u64 {
        (self.waiting.len() + self.lapsed) as u64
    }

    /// How many requests have not been sent.
    pub(super) fn unsent(&self) -> usize {
        self.waiting.len()
            + self.lapsed
            + self.dispatched.len()
            + self.readying.len()
            + self.ready.len()
    }

    /// Whether there is neither a waiting request nor a dispatched one that has not been polled.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dispatched.is_empty()
    }

    /// Whether no request waits for a point in time.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty()
    }

    /// The first request that waits to be dispatched.
    pub(super) fn first(&self) -> Option<Ticket> {
        self.waiting.first_key_value().map(|(ticket, _)| *ticket)
    }

    /// The deadline of the first request that waits to be dispatched.
    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, waiter)| waiter.deadline)
    }

    /// A request comes to the queue. The later it arrives, the higher is its `number`.
    pub(super) fn push(&mut self, number: u64, again: bool, deadline: u64) -> Ticket {
        let ticket = Ticket(number | if again { 0 } else { FIRST_TIME });
        self.waiting.insert(ticket, Waiter { waker: None, deadline });
        ticket
    }

    /// The state of a request. If it waits, `waker` is stored to be woken when that changes, and
    /// the previous waker is left in its place.
    pub(super) fn look(&mut self, ticket: Ticket, waker: &mut Option<Waker>) -> Fate {
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            mem::swap(&mut waiter.waker, waker);
            return Fate::Waits;
        }
        if let Some(at) = self.position_of_dispatched(ticket) {
            self.dispatched.remove(at);
            self.readying.insert(ticket);
        }
        if self.readying.contains(&ticket) || self.ready.contains_key(&ticket) {
            return Fate::Dispatched;
        }
        self.expired
            .remove(&ticket)
            .map_or(Fate::Lapsed, |(wait, lack)| Fate::Expired { wait, lack })
    }

    fn position_of_dispatched(&self, ticket: Ticket) -> Option<usize> {
        self.dispatched.iter().position(|(_, other)| *other == ticket)
    }

    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket) || self.ready.contains_key(&ticket)
    }

    /// Whether the request is dispatched and has not lapsed.
    pub(super) fn may_go(&self, ticket: Ticket) -> bool {
        self.position_of_dispatched(ticket).is_some()
            || self.readying.contains(&ticket)
            || self.ready.contains_key(&ticket)
    }

    /// How many ready requests come before this one.
    pub(super) fn ready_before(&self, ticket: Ticket) -> u64 {
        self.ready.range(..ticket).count() as u64
    }

    /// How many requests are ready.
    pub(super) fn ready(&self) -> u64 {
        self.ready.len() as u64
    }

    /// Holds a request that is ready. Its previous waker is left in `waker`.
    pub(super) fn hold(&mut self, ticket: Ticket, waker: &mut Option<Waker>) {
        self.readying.remove(&ticket);
        self.dispatched.retain(|(_, other)| *other != ticket);
        mem::swap(self.ready.entry(ticket).or_default(), waker);
    }

    /// Dispatches the first ready request again, and returns its waker.
    pub(super) fn redispatch_ready(&mut self, now: u64) -> Option<Waker> {
        let (ticket, waker) = self.ready.pop_first()?;
        self.dispatched.push_back((now, ticket));
        waker
    }

    /// How many dispatched requests have not been polled since.
    pub(super) fn unaware(&self) -> u64 {
        self.dispatched.len() as u64
    }

    /// Makes the last ready request lapse, and returns its waker.
    pub(super) fn lapse_last_ready(&mut self) -> Option<Waker> {
        let (_, waker) = self.ready.pop_last()?;
        self.lapsed += 1;
        waker
    }

    /// A lapsed request comes back to the queue, with its old ticket.
    pub(super) fn come_back(&mut self, ticket: Ticket, waker: Option<Waker>, deadline: u64) {
        self.lapsed -= 1;
        self.waiting.insert(ticket, Waiter { waker, deadline });
    }

    /// A request leaves the queue, or is sent. Returns its last state and its waker.
    pub(super) fn remove(&mut self, ticket: Ticket) -> (Fate, Option<Waker>) {
        if let Some(waiter) = self.waiting.remove(&ticket) {
            return (Fate::Waits, waiter.waker);
        }
        if let Some(at) = self.position_of_dispatched(ticket) {
            self.dispatched.remove(at);
            return (Fate::Dispatched, None);
        }
        if self.readying.remove(&ticket) {
            return (Fate::Dispatched, None);
        }
        if let Some(waker) = self.ready.remove(&ticket) {
            return (Fate::Dispatched, waker);
        }
        let fate = self
            .expired
            .remove(&ticket)
            .map_or(Fate::Lapsed, |(wait, lack)| Fate::Expired { wait, lack });
        if fate == Fate::Lapsed {
            self.lapsed -= 1;
        }
        (fate, None)
    }

    /// Dispatches the first waiting request, and returns its waker.
    pub(super) fn dispatch(&mut self, now: u64) -> Option<Waker> {
        let (ticket, waiter) = self.waiting.pop_first()?;
        self.dispatched.push_back((now, ticket));
        waiter.waker
    }

    /// When the first of the dispatched requests was dispatched that have not been polled since.
    pub(super) fn first_dispatched(&self) -> Option<u64> {
        self.dispatched.front().map(|(at, _)| *at)
    }

    /// Makes that request lapse.
    pub(super) fn lapse_first(&mut self) {
        self.lapsed += usize::from(self.dispatched.pop_front().is_some());
    }

    /// Makes a dispatched request lapse, and returns its waker.
    pub(super) fn lapse(&mut self, ticket: Ticket) -> Option<Waker> {
        let (fate, waker) = self.remove(ticket);
        self.lapsed += usize::from(fate == Fate::Dispatched);
        waker
    }

    /// Makes the first waiting request expire; `wait` is the wait that it would have had.
    pub(super) fn expire_first(&mut self, wait: u64, lack: Lack) -> Option<Waker> {
        let (ticket, waiter) = self.waiting.pop_first()?;
        self.expired.insert(ticket, (wait, lack));
        waiter.waker
    }

    /// Makes all waiting requests expire whose deadlines have passed, and returns how many.
    pub(super) fn expire_overdue(&mut self, now: u64, lack: Lack, woken: &mut Vec<Waker>) -> u64 {
        let retries = self.waiting.range(..Ticket(FIRST_TIME));
        // These arrived in the order of their deadlines, which are all as far away.
        let others = self.waiting.range(Ticket(FIRST_TIME)..);
        let overdue = |(_, waiter): &(&Ticket, &Waiter)| waiter.deadline <= now;
        let overdue: Vec<Ticket> = retries
            .filter(overdue)
            .chain(others.take_while(overdue))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in &overdue {
            woken.extend(self.waiting.remove(ticket).and_then(|waiter| waiter.waker));
            self.expired.insert(*ticket, (0, lack));
        }
        overdue.len() as u64
    }

    /// The earliest deadline of the waiting requests.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let retries = self.waiting.range(..Ticket(FIRST_TIME));
        let first = self.waiting.range(Ticket(FIRST_TIME)..).next();
        retries.chain(first).map(|(_, waiter)| waiter.deadline).min()
    }

    /// How many requests wait to be dispatched.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many requests are dispatched and not sent.
    pub(super) fn dispatched(&self) -> u64 {
        (self.dispatched.len() + self.readying.len() + self.ready.len()) as u64
    }

    /// Makes all waiting requests expire that can't be dispatched before their deadlines, and
    /// returns how many. `due` returns when a request is due after so many others.
    pub(super) fn expire_late(
        &mut self,
        now: u64,
        due: impl Fn(u64) -> u64,
        lack: Lack,
        woken: &mut Vec<Waker>,
    ) -> u64 {
        let Self { waiting, expired, lapsed, .. } = self;
        let (mut ahead, before) = (*lapsed as u64, waiting.len());
        waiting.retain(|ticket, waiter| {
            let due = due(ahead);
            let is_in_time = due <= waiter.deadline;
            if is_in_time {
                ahead += 1;
            } else {
                expired.insert(*ticket, (due.saturating_sub(now), lack));
                woken.extend(waiter.waker.take());
            }
            is_in_time
        });
        (before - waiting.len()) as u64
    }

    /// The wakers of all requests that wait or are held.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        let waiting = self.waiting.values_mut().filter_map(|waiter| waiter.waker.take());
        waiting.chain(self.ready.values_mut().filter_map(Option::take))
    }
}
