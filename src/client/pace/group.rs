//! The lanes that share limits, as plain data. Most lanes share none, and are a group of one.

use std::task::Waker;

use smallvec::SmallVec;

use super::pairs::Pairs;
use super::permits::Claims;
use super::queue::Turn;
use super::state::{Arrival, State, Times};
use crate::client::hints::Standings;

#[derive(Debug)]
pub(super) struct Group {
    lanes: Box<[State]>,
    pairs: Pairs,
    /// How many requests have arrived.
    arrivals: u64,
    /// Whether there is a worker.
    pub(super) is_driven: bool,
}

impl Group {
    pub(super) fn new(lanes: Box<[State]>, pairs: Pairs) -> Self {
        Self { lanes, pairs, arrivals: 0, is_driven: false }
    }

    /// A lane, and the pairs of the group.
    #[inline]
    pub(super) fn lane(&mut self, lane: usize) -> (&mut State, &mut Pairs) {
        (&mut self.lanes[lane], &mut self.pairs)
    }

    /// A request arrives in a lane. `again` is the time by which a request that was refused before
    /// has to be sent again. Returns, too, whether the worker is to look at the group again.
    #[inline]
    pub(super) fn arrive(&mut self, at: usize, now: u64, again: Option<u64>) -> (Arrival, bool) {
        let shares = self.lanes.len() > 1;
        // The worker is about to dispatch the first of other lanes, which would miss their units
        // and permits again and again.
        let is_behind = shares && self.is_driven && self.is_behind(at, now);
        self.arrivals += 1;
        let lane = &mut self.lanes[at];
        let arrival = lane.arrive(&mut self.pairs, self.arrivals, now, again, is_behind);
        let is_news = match arrival {
            // It may be due before the first requests of the other lanes.
            Arrival::Wait(turn) => again.is_some() || shares && lane.first() == Some(turn),
            _ => false,
        };
        (arrival, is_news)
    }

    /// Whether the requests that wait in other lanes leave nothing for one that arrives in this
    /// lane.
    fn is_behind(&mut self, at: usize, now: u64) -> bool {
        let mut claims = Claims::new();
        self.next_lane(now, &mut claims).is_some()
            || !self.lanes[at].claim(&self.pairs, now, &mut claims)
    }

    /// A response that is not a refusal and reports usage. Returns whether waiting requests may be
    /// due at another time now.
    #[inline]
    pub(super) fn hear(
        &mut self,
        lane: usize,
        sent_at: u64,
        now: u64,
        standings: &Standings,
    ) -> bool {
        let waits = self.lanes.iter().any(State::has_unsent);
        let before = waits.then(|| self.times());
        let is_news = self.lanes[lane].hear(&mut self.pairs, sent_at, now, standings);
        before.is_some_and(|before| is_news || self.times() != before)
    }

    /// Permits were given back. Returns whether a request may wait for them.
    pub(super) fn has_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.first().is_some())
    }

    /// Dispatches all requests that are due, and makes those expire that are due after their
    /// deadlines. Returns when to call this again, if requests wait.
    pub(super) fn turn(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        self.each(|lane, pairs| lane.clear(pairs, now, woken));
        self.each(|lane, pairs| lane.judge(pairs, now, woken));
        loop {
            while let Some(lane) = self.next_lane(now, &mut Claims::new()) {
                self.lanes[lane].dispatch(&mut self.pairs, now, woken);
            }
            // A request that expires claims no permits any more.
            let mut has_expired = false;
            self.each(|lane, pairs| has_expired |= lane.expire(pairs, now, woken));
            if !has_expired {
                break;
            }
        }
        self.each(|lane, pairs| lane.judge(pairs, now, woken));
        if self.lanes.iter().all(State::is_idle) {
            return None;
        }
        let next = self.lanes.iter().filter_map(|lane| lane.next(&self.pairs, now)).min();
        Some(next.unwrap_or(u64::MAX).max(now + 1))
    }

    /// Whether requests are ready, and may be sent earlier or later because of another one.
    pub(super) fn has_ready(&self) -> bool {
        self.lanes.iter().any(State::has_ready)
    }

    /// Whether the request waits and there is no worker to dispatch it.
    pub(super) fn is_left_alone(&self, lane: usize, turn: Turn) -> bool {
        !self.is_driven && self.lanes[lane].waits(turn)
    }

    /// The wakers of all requests that wait or are held.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.lanes.iter_mut().flat_map(State::wakers).collect()
    }

    /// The times at which unsent requests are due, by each of their limits.
    fn times(&self) -> SmallVec<[Times; 1]> {
        let lanes = self.lanes.iter().filter(|lane| lane.has_unsent());
        lanes.flat_map(|lane| lane.times(&self.pairs)).collect()
    }

    fn each(&mut self, mut change: impl FnMut(&mut State, &mut Pairs)) {
        self.lanes.iter_mut().for_each(|lane| change(lane, &mut self.pairs));
    }

    /// The lane whose first waiting request is due, and is the first of all that are due and have
    /// their permits. Adds what those before it claim.
    fn next_lane(&mut self, now: u64, claims: &mut Claims) -> Option<usize> {
        let Self { lanes, pairs, .. } = self;
        if pairs.pools.is_empty() {
            let due = lanes.iter_mut().enumerate().filter_map(|(at, lane)| {
                let turn = lane.first()?;
                lane.may_dispatch(pairs, now, claims).then_some((turn, at))
            });
            return due.min().map(|(_, at)| at);
        }
        let firsts = lanes.iter().enumerate();
        let firsts = firsts.filter_map(|(at, lane)| lane.first().map(|turn| (turn, at)));
        let mut firsts: SmallVec<[_; 4]> = firsts.collect();
        firsts.sort_unstable();
        let mut each = firsts.into_iter().map(|(_, at)| at);
        each.find(|at| lanes[*at].may_dispatch(pairs, now, claims))
    }
}
