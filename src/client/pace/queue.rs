//! Those who wait for a unit of one endpoint.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// Those who were let go and do not know it yet, and when that was, the longest ago first.
    let_go: VecDeque<(u64, Turn)>,
    /// Those who know it, and get ready.
    readying: BTreeSet<Turn>,
    /// How many were let go, did not go, and have not come back yet.
    lapsed: usize,
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
    /// It was let go.
    MayGo,
    /// It was, and did not go. It has to come back.
    Lapsed,
    SentAway {
        wait: u64,
    },
}

/// Marks the turns of those who come for the first time, so that they are after the others.
const FIRST_TIME: u64 = 1 << 63;

impl Queue {
    /// How many are ahead of one who comes now, without those who were let go.
    pub(super) fn ahead(&self) -> u64 {
        (self.waiting.len() + self.lapsed) as u64
    }

    /// How many have not been sent.
    pub(super) fn unsent(&self) -> usize {
        self.waiting.len() + self.lapsed + self.let_go.len() + self.readying.len()
    }

    /// Whether nobody waits to be let go.
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
        if let Some(at) = self.position_of_let_go(turn) {
            self.let_go.remove(at);
            self.readying.insert(turn);
        }
        if self.readying.contains(&turn) {
            return Fate::MayGo;
        }
        self.sent_away.remove(&turn).map_or(Fate::Lapsed, |wait| Fate::SentAway { wait })
    }

    fn position_of_let_go(&self, turn: Turn) -> Option<usize> {
        self.let_go.iter().position(|(_, let_go)| *let_go == turn)
    }

    pub(super) fn waits(&self, turn: Turn) -> bool {
        self.waiting.contains_key(&turn)
    }

    /// One that lapsed comes back, and takes its place again.
    pub(super) fn come_back(&mut self, turn: Turn, waker: Option<Waker>, deadline: u64) {
        self.lapsed -= 1;
        self.waiting.insert(turn, Waiter { waker, deadline });
    }

    /// One that lapsed comes back too late.
    pub(super) fn come_too_late(&mut self) {
        self.lapsed -= 1;
    }

    /// A waiter goes away, or is sent. Says what had become of it, and hands its waker back.
    pub(super) fn remove(&mut self, turn: Turn) -> (Fate, Option<Waker>) {
        if let Some(waiter) = self.waiting.remove(&turn) {
            return (Fate::Waits, waiter.waker);
        }
        if let Some(at) = self.position_of_let_go(turn) {
            self.let_go.remove(at);
            return (Fate::MayGo, None);
        }
        if self.readying.remove(&turn) {
            return (Fate::MayGo, None);
        }
        let fate = self.sent_away.remove(&turn).map_or(Fate::Lapsed, |wait| Fate::SentAway { wait });
        if fate == Fate::Lapsed {
            self.lapsed -= 1;
        }
        (fate, None)
    }

    /// Lets the first go, who is to be woken.
    pub(super) fn let_go(&mut self, now: u64) -> Option<Waker> {
        let (turn, waiter) = self.waiting.pop_first()?;
        self.let_go.push_back((now, turn));
        waiter.waker
    }

    /// How many have been let go and not been sent yet.
    pub(super) fn pending(&self) -> u64 {
        (self.let_go.len() + self.readying.len()) as u64
    }

    /// When the first was let go of those who do not know it yet.
    pub(super) fn first_let_go(&self) -> Option<u64> {
        self.let_go.front().map(|(at, _)| *at)
    }

    /// That one may not go any more. Says whether there was one.
    pub(super) fn lapse_first(&mut self) -> bool {
        let is_there = self.let_go.pop_front().is_some();
        self.lapsed += usize::from(is_there);
        is_there
    }

    /// One that got ready may not go any more.
    pub(super) fn lapse(&mut self, turn: Turn) {
        self.lapsed += usize::from(self.readying.remove(&turn));
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
