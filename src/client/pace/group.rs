//! The lanes that share limits, as plain data. Most lanes share none, and are a group of one.

use std::task::Waker;

use smallvec::SmallVec;

use super::pair::Pair;
use super::queue::Turn;
use super::state::{Arrival, State, Times};
use crate::client::hints::Standings;

#[derive(Debug)]
pub(super) struct Group {
    lanes: Box<[State]>,
    /// The limits of the lanes, each once.
    pairs: Box<[Pair]>,
    /// How many requests have arrived.
    arrivals: u64,
    /// Whether there is a worker.
    pub(super) is_driven: bool,
}

impl Group {
    pub(super) fn new(lanes: Box<[State]>, pairs: Box<[Pair]>) -> Self {
        Self { lanes, pairs, arrivals: 0, is_driven: false }
    }

    /// A lane, and the pairs of the group.
    #[inline]
    pub(super) fn lane(&mut self, lane: usize) -> (&mut State, &mut [Pair]) {
        (&mut self.lanes[lane], &mut self.pairs)
    }

    /// A request arrives in a lane. `again` is the time by which a request that was refused before
    /// has to be sent again. Returns, too, whether the worker is to look at the group again.
    #[inline]
    pub(super) fn arrive(&mut self, at: usize, now: u64, again: Option<u64>) -> (Arrival, bool) {
        let shares = self.lanes.len() > 1;
        // The worker is about to dispatch the first of other lanes, which would miss their units
        // again and again.
        let is_behind = shares && self.is_driven && self.next_lane(now).is_some();
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
        self.lanes[lane].hear(&mut self.pairs, sent_at, now, standings);
        before.is_some_and(|before| self.times() != before)
    }

    /// Dispatches all requests that are due, and makes those expire that are due after their
    /// deadlines. Returns when to call this again, if requests wait.
    pub(super) fn turn(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        self.each(|lane, pairs| lane.clear(pairs, now, woken));
        self.each(|lane, pairs| lane.judge(pairs, now, woken));
        while let Some(lane) = self.next_lane(now) {
            self.lanes[lane].dispatch(&mut self.pairs, now, woken);
        }
        self.each(|lane, pairs| lane.judge(pairs, now, woken));
        if self.lanes.iter().all(State::is_idle) {
            return None;
        }
        let next = self.lanes.iter().filter_map(|lane| lane.next(&self.pairs)).min();
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

    fn each(&mut self, mut change: impl FnMut(&mut State, &mut [Pair])) {
        self.lanes.iter_mut().for_each(|lane| change(lane, &mut self.pairs));
    }

    /// The lane whose first waiting request is due, and is the first of all that are due.
    fn next_lane(&self, now: u64) -> Option<usize> {
        let is_due = |lane: &State| lane.due(&self.pairs, 0) <= now;
        let firsts =
            self.lanes.iter().enumerate().filter_map(|(at, lane)| {
                lane.first().filter(|_| is_due(lane)).map(|turn| (turn, at))
            });
        firsts.min().map(|(_, at)| at)
    }
}
