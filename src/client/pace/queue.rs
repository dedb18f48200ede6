//! Those who wait for a unit of one endpoint.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::task::Waker;

/// A place in the queue: those with a lower number go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// Who waits, in the order in which they go: first those who have been refused before, then the others, each by arrival.
///
/// It wakes nobody and drops no waker: that may run anything, the end of another who waits too, and is done without the lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Turn, Waiter>,
    /// Those who were let go and have not been sent yet, and when that was, the longest ago first.
    let_go: VecDeque<(u64, Turn)>,
    /// Those who were sent away, until they ask, and the wait that they would have had.
    sent_away: BTreeMap<Turn, u64>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiter {
    waker: Option<Waker>,
    /// The latest time at which it wants to be sent.
    deadline: u64,
}

/// What has become of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Waits,
    MayGo,
    /// It did not go in time, when it might have.
    Lapsed,
    SentAway {
        wait: u64,
    },
}

/// Marks the turns of those who come for the first time, so that they are after the others.
const FIRST_TIME: u64 = 1 << 63;

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, again: bool, deadline: u64) -> Turn {
        let turn = Turn(self.arrivals | if again { 0 } else { FIRST_TIME });
        self.arrivals += 1;
        self.waiting.insert(turn, Waiter { waker: None, deadline });
        turn
    }

    /// What has become of a waiter. One that still waits is woken by `waker` when that changes; the waker that it had is
    /// left there instead.
    pub(super) fn look(&mut self, turn: Turn, waker: &mut Option<Waker>) -> Fate {
        if let Some(waiter) = self.waiting.get_mut(&turn) {
            mem::swap(&mut waiter.waker, waker);
            return Fate::Waits;
        }
        if self.let_go.iter().any(|(_, let_go)| *let_go == turn) {
            return Fate::MayGo;
        }
        self.sent_away.remove(&turn).map_or(Fate::Lapsed, |wait| Fate::SentAway { wait })
    }

    /// One that lapsed takes its place again.
    pub(super) fn push_back_in(&mut self, turn: Turn, waker: Option<Waker>, deadline: u64) {
        self.waiting.insert(turn, Waiter { waker, deadline });
    }

    /// A waiter goes away, or is sent. Says what had become of it, and hands its waker back.
    pub(super) fn remove(&mut self, turn: Turn) -> (Fate, Option<Waker>) {
        match self.waiting.remove(&turn) {
            Some(waiter) => (Fate::Waits, waiter.waker),
            None => (self.remove_from_the_others(turn), None),
        }
    }

    fn remove_from_the_others(&mut self, turn: Turn) -> Fate {
        if let Some(at) = self.let_go.iter().position(|(_, let_go)| *let_go == turn) {
            self.let_go.remove(at);
            return Fate::MayGo;
        }
        self.sent_away.remove(&turn).map_or(Fate::Lapsed, |wait| Fate::SentAway { wait })
    }

    /// Lets the first go, who is to be woken.
    pub(super) fn let_go(&mut self, now: u64) -> Option<Waker> {
        let (turn, waiter) = self.waiting.pop_first()?;
        self.let_go.push_back((now, turn));
        waiter.waker
    }

    /// How many have been let go and not been sent yet.
    pub(super) fn pending(&self) -> u64 {
        self.let_go.len() as u64
    }

    /// When the first of those was.
    pub(super) fn first_let_go(&self) -> Option<u64> {
        self.let_go.front().map(|(at, _)| *at)
    }

    /// The first of those is late: it may not go any more.
    pub(super) fn lapse(&mut self) {
        self.let_go.pop_front();
    }

    /// Sends those away whose turn comes too late for them. `due` says when it comes after so many others.
    pub(super) fn send_late_ones_away(&mut self, now: u64, due: impl Fn(u64) -> u64, woken: &mut Vec<Waker>) -> u64 {
        let mut late = Vec::new();
        let mut ahead = 0;
        for (turn, waiter) in self.waiting.range(..Turn(FIRST_TIME)) {
            let due = due(ahead);
            if due > waiter.deadline {
                late.push((*turn, due.saturating_sub(now)));
            } else {
                ahead += 1;
            }
        }
        // Of the others, who comes later wants to be sent later.
        let mut left = (self.waiting.len() - late.len()) as u64;
        for (turn, waiter) in self.waiting.range(Turn(FIRST_TIME)..).rev() {
            left -= 1;
            let due = due(left);
            if due <= waiter.deadline {
                break;
            }
            late.push((*turn, due.saturating_sub(now)));
        }
        for (turn, wait) in &late {
            woken.extend(self.waiting.remove(turn).and_then(|waiter| waiter.waker));
            self.sent_away.insert(*turn, *wait);
        }
        late.len() as u64
    }

    /// Everybody, to be woken.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.waiting.values_mut().filter_map(|waiter| waiter.waker.take())
    }
}
