//! The endpoints that share limits, as plain data. Most endpoints share none, and are a group of
//! one.

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use super::heirs::Estate;
use super::pairs::Pairs;
use super::permits::Claims;
use super::queue::{Each, Order, Ticket};
use super::state::{Arrival, Newcomer, State, Times};
use super::table::Replacement;
use crate::client::hints::Standings;
use crate::client::log::Pending;
use crate::client::priority::Priority;
use crate::client::usage::Usage;
use crate::values::Endpoint;

#[derive(Debug)]
pub(super) struct Group {
    endpoints: Box<[State]>,
    pairs: Pairs,
    /// In which order the requests of all endpoints are dispatched.
    order: Order,
    /// Whether there is a worker.
    pub(super) has_worker: bool,
    /// When the worker wanted to be woken, since its last step.
    wakes_at: Option<u64>,
    /// Where the endpoints are since the policy was replaced. The group is empty then.
    moved: Option<Arc<Replacement>>,
}

/// If the worker is woken so much later than it wanted to be, the process did not run in the
/// meantime.
const LATE: u64 = 1_000_000_000;

/// How much longer than the process did not run requests may wait after that: answers that have
/// arrived in the meantime, and may end the wait, are still to be read.
const READING: u64 = LATE / 4;

impl Group {
    pub(super) fn new(endpoints: Box<[State]>, pairs: Pairs, order: Order) -> Self {
        Self { endpoints, pairs, order, has_worker: false, wakes_at: None, moved: None }
    }

    /// Where the endpoints are, if the policy was replaced.
    #[inline]
    pub(super) fn moved(&self) -> Option<&Arc<Replacement>> {
        self.moved.as_ref()
    }

    /// The policy is replaced: gives up all that is in the group.
    pub(super) fn give_up(
        &mut self,
        replacement: Arc<Replacement>,
    ) -> (Box<[State]>, Pairs, Order) {
        self.moved = Some(replacement);
        let events = mem::take(&mut self.pairs.events);
        let pairs = Pairs { rates: Box::default(), pools: Vec::new(), events };
        (mem::take(&mut self.endpoints), mem::replace(&mut self.pairs, pairs), self.order)
    }

    /// Takes over what is known of its endpoints and limits. The requests have been added before.
    pub(super) fn inherit(&mut self, estate: &mut Estate, now: u64) {
        estate.known.inherit_limits(&mut self.pairs, now);
        for state in &mut self.endpoints {
            if let Some((old, order)) = estate.state(state.endpoint()) {
                state.inherit(&old);
                self.order.inherit(order);
            } else if let Some(counts) = estate.counts(state.endpoint()) {
                state.counts = counts;
                state.refused_in_a_row = estate.known.refused_in_a_row(state.endpoint());
            }
            if let Some(pool) = estate.known.reported(state.endpoint()) {
                state.limits.pools.push(self.pairs.pools.len());
                self.pairs.pools.push(pool.anew());
            }
        }
        for state in &self.endpoints {
            state.count_in(&mut self.pairs, now);
        }
    }

    /// The events that are to be logged after the lock is released.
    #[inline]
    pub(super) fn drain_events(&mut self) -> Pending {
        self.pairs.events.drain()
    }

    /// An endpoint, and the pairs of the group.
    #[inline]
    pub(super) fn endpoint(&mut self, endpoint: usize) -> (&mut State, &mut Pairs) {
        (&mut self.endpoints[endpoint], &mut self.pairs)
    }

    /// A request arrives in an endpoint. Returns whether it can be sent at once; then it counts as
    /// sent.
    #[inline]
    pub(super) fn pass(&mut self, at: usize, now: u64, is_retry: bool) -> bool {
        // The worker is about to dispatch the first of other endpoints, which would miss their
        // units and permits again and again.
        let is_behind = self.shares() && self.has_worker && self.is_behind(at, now);
        !is_behind && self.endpoints[at].pass(&mut self.pairs, now, is_retry)
    }

    /// A request that can't be sent at once waits, if it is not too late for it. Returns, too,
    /// whether the worker is to look at the group again.
    pub(super) fn wait(&mut self, at: usize, now: u64, newcomer: Newcomer) -> (Arrival, bool) {
        let priority = newcomer.options.priority;
        self.notice_time(now);
        let shares = self.shares();
        let endpoint = &mut self.endpoints[at];
        let arrival = endpoint.wait(&mut self.pairs, self.order, now, newcomer);
        let is_news = match arrival {
            // It may be due before the first requests of the other endpoints.
            Arrival::Waits { ticket, is_news } => {
                is_news || shares && endpoint.first(priority) == Some(ticket)
            }
            _ => false,
        };
        (arrival, is_news)
    }

    /// The endpoints that have a limit in common with this one, and this one.
    pub(super) fn sharing(&self, at: usize) -> Vec<Endpoint> {
        let limits = &self.endpoints[at].limits;
        let sharing = self.endpoints.iter().filter(|it| it.limits.has_any_of(limits));
        sharing.map(State::endpoint).collect()
    }

    pub(super) fn usage(&mut self, at: usize, now: u64) -> Usage {
        self.endpoints[at].usage(&mut self.pairs, self.order, now)
    }

    fn shares(&self) -> bool {
        self.endpoints.len() > 1
    }

    /// Whether the requests that wait in other endpoints leave nothing for one that arrives in this
    /// endpoint.
    fn is_behind(&mut self, at: usize, now: u64) -> bool {
        let mut claims = Claims::new();
        self.next(now, &mut claims).is_some()
            || !self.endpoints[at].claim(&self.pairs, now, &mut claims)
    }

    /// A response that is not a refusal and reports usage. Returns whether waiting requests may be
    /// due at another time now.
    #[inline]
    pub(super) fn hear(
        &mut self,
        endpoint: usize,
        sent_at: u64,
        now: u64,
        standings: &Standings,
    ) -> bool {
        let waits = self.endpoints.iter().any(State::has_unsent);
        let before = waits.then(|| self.times());
        let is_news = self.endpoints[endpoint].hear(&mut self.pairs, sent_at, now, standings);
        before.is_some_and(|before| is_news || self.times() != before)
    }

    /// Permits were given back. Returns whether a request may wait for them.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting() != [false, false]
    }

    /// Dispatches all requests that are due, and makes those expire that are due after their
    /// deadlines. Returns when to call this again, if requests wait.
    pub(super) fn dispatch_due(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        if self.moved.is_some() {
            return None;
        }
        self.notice_time(now);
        self.wakes_at = self.look(now, woken);
        self.wakes_at
    }

    fn look(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        self.each(|endpoint, pairs| endpoint.clear(pairs, now, woken));
        let order = self.order;
        self.each(|endpoint, pairs| endpoint.judge(pairs, order, now, woken));
        loop {
            while let Some((at, priority)) = self.next(now, &mut Claims::new()) {
                self.order.dispatch(priority, self.waiting());
                self.endpoints[at].dispatch(priority, &mut self.pairs, now, woken);
            }
            // A request that expires claims no permits any more.
            let mut has_expired = false;
            self.each(|endpoint, pairs| has_expired |= endpoint.expire(pairs, now, woken));
            if !has_expired {
                break;
            }
        }
        let order = self.order;
        self.each(|endpoint, pairs| endpoint.judge(pairs, order, now, woken));
        if self.endpoints.iter().all(State::is_idle) {
            return None;
        }
        let next =
            self.endpoints.iter().filter_map(|endpoint| endpoint.next(&self.pairs, now)).min();
        Some(next.unwrap_or(u64::MAX).max(now + 1))
    }

    /// Whether requests are held, and may be sent earlier or later because of another one.
    pub(super) fn has_held(&self) -> bool {
        self.endpoints.iter().any(State::has_held)
    }

    /// Whether the request waits and there is no worker to dispatch it.
    pub(super) fn is_left_alone(&self, endpoint: usize, ticket: Ticket) -> bool {
        self.moved.is_none() && !self.has_worker && self.endpoints[endpoint].waits(ticket)
    }

    /// There is no worker any more. That the next one is later is no suspension.
    pub(super) fn lose_worker(&mut self) {
        (self.has_worker, self.wakes_at) = (false, None);
    }

    /// The wakers of all requests that wait or are held.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.endpoints.iter_mut().flat_map(State::wakers).collect()
    }

    /// If the process has not run for a while, for example because it was stopped or the machine
    /// was suspended, that time does not count as a wait.
    fn notice_time(&mut self, now: u64) {
        let late = self.wakes_at.map_or(0, |at| now.saturating_sub(at));
        if late >= LATE {
            self.wakes_at = Some(now);
            self.each(|endpoint, _| endpoint.move_deadlines(late + READING));
        }
    }

    /// The times at which unsent requests are due, by each of their limits.
    fn times(&self) -> SmallVec<[Times; 1]> {
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.has_unsent());
        endpoints.flat_map(|endpoint| endpoint.times(&self.pairs)).collect()
    }

    fn each(&mut self, mut change: impl FnMut(&mut State, &mut Pairs)) {
        self.endpoints.iter_mut().for_each(|endpoint| change(endpoint, &mut self.pairs));
    }

    /// The endpoint and the priority of the request that is dispatched next: the first in order of
    /// those that are due and have their permits. Adds what those before it claim.
    ///
    /// The requests of an endpoint need the same units and permits, so only its first one counts.
    fn next(&mut self, now: u64, claims: &mut Claims) -> Option<(usize, Priority)> {
        let preferred = self.order.next(self.waiting())?;
        let Self { endpoints, pairs, .. } = self;
        let first = |endpoint: &State| match preferred {
            Priority::Interactive => endpoint.first(preferred).or(endpoint.first(Priority::Bulk)),
            Priority::Bulk => endpoint.first(preferred).or(endpoint.first(Priority::Interactive)),
        };
        let firsts = endpoints.iter().enumerate().filter_map(|(at, endpoint)| {
            let ticket = first(endpoint)?;
            Some((ticket.priority() != preferred, ticket, at))
        });
        let mut firsts: SmallVec<[_; 4]> = firsts.collect();
        firsts.sort_unstable();
        let (_, ticket, at) = firsts
            .into_iter()
            .find(|(_, ticket, at)| endpoints[*at].may_dispatch(*ticket, pairs, now, claims))?;
        Some((at, ticket.priority()))
    }

    /// Which requests wait to be dispatched.
    fn waiting(&self) -> Each<bool> {
        let each = self.endpoints.iter().map(State::waiting);
        each.fold([false; 2], |[a, b], [interactive, bulk]| [a || interactive, b || bulk])
    }
}
