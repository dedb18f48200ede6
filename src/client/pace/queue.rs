//! Those who wait for a unit of one endpoint.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::task::Waker;

/// A place in the queue: those with a lower number go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// Who waits, in the order in which they go: first those who have been refused before, then the
/// others, each by arrival.
///
/// It wakes nobody and drops no waker: that may run anything, the end of another who waits too, and
/// is done without the lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Turn, Waiter>,
    /// Those who were let go and do not know it yet, and when that was, the longest ago first.
    let_go: VecDeque<(u64, Turn)>,
    /// Those who know it, and get ready.
    readying: BTreeSet<Turn>,
    /// Those who are ready, and wait for the moment since others were sent just before.
    ready: BTreeMap<Turn, Option<Waker>>,
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
        self.waiting.len()
            + self.lapsed
            + self.let_go.len()
            + self.readying.len()
            + self.ready.len()
    }

    /// Whether nobody waits to be let go, nor has been without knowing it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.let_go.is_empty()
    }

    /// Whether nobody waits for a time.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty()
    }

    /// The latest time at which the first wants to be sent of those who wait to be let go.
    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, waiter)| waiter.deadline)
    }

    pub(super) fn push(&mut self, again: bool, deadline: u64) -> Turn {
        let turn = Turn(self.arrivals | if again { 0 } else { FIRST_TIME });
        self.arrivals += 1;
        self.waiting.insert(turn, Waiter { waker: None, deadline });
        turn
    }

    /// What has become of a waiter. One that still waits is woken by `waker` when that changes; the
    /// waker that it had is left there instead.
    pub(super) fn look(&mut self, turn: Turn, waker: &mut Option<Waker>) -> Fate {
        if let Some(waiter) = self.waiting.get_mut(&turn) {
            mem::swap(&mut waiter.waker, waker);
            return Fate::Waits;
        }
        if let Some(at) = self.position_of_let_go(turn) {
            self.let_go.remove(at);
            self.readying.insert(turn);
        }
        if self.readying.contains(&turn) || self.ready.contains_key(&turn) {
            return Fate::MayGo;
        }
        self.sent_away.remove(&turn).map_or(Fate::Lapsed, |wait| Fate::SentAway { wait })
    }

    fn position_of_let_go(&self, turn: Turn) -> Option<usize> {
        self.let_go.iter().position(|(_, let_go)| *let_go == turn)
    }

    pub(super) fn waits(&self, turn: Turn) -> bool {
        self.waiting.contains_key(&turn) || self.ready.contains_key(&turn)
    }

    /// Whether it has been let go and still may go.
    pub(super) fn may_go(&self, turn: Turn) -> bool {
        self.position_of_let_go(turn).is_some()
            || self.readying.contains(&turn)
            || self.ready.contains_key(&turn)
    }

    /// How many are ready before it.
    pub(super) fn ready_before(&self, turn: Turn) -> u64 {
        self.ready.range(..turn).count() as u64
    }

    /// How many are ready.
    pub(super) fn ready(&self) -> u64 {
        self.ready.len() as u64
    }

    /// One is ready, and waits for the moment; the waker that it had is left in `waker` instead.
    pub(super) fn hold(&mut self, turn: Turn, waker: &mut Option<Waker>) {
        self.readying.remove(&turn);
        self.let_go.retain(|(_, let_go)| *let_go != turn);
        mem::swap(self.ready.entry(turn).or_default(), waker);
    }

    /// Lets the first go who is ready, and who is to be woken.
    pub(super) fn let_ready_go(&mut self, now: u64) -> Option<Waker> {
        let (turn, waker) = self.ready.pop_first()?;
        self.let_go.push_back((now, turn));
        waker
    }

    /// How many have been let go and do not know it yet.
    pub(super) fn unaware(&self) -> u64 {
        self.let_go.len() as u64
    }

    /// The last who is ready may not go any more, and is to be woken.
    pub(super) fn lapse_last_ready(&mut self) -> Option<Waker> {
        let (_, waker) = self.ready.pop_last()?;
        self.lapsed += 1;
        waker
    }

    /// One that lapsed comes back, and takes its place again.
    pub(super) fn come_back(&mut self, turn: Turn, waker: Option<Waker>, deadline: u64) {
        self.lapsed -= 1;
        self.waiting.insert(turn, Waiter { waker, deadline });
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
        if let Some(waker) = self.ready.remove(&turn) {
            return (Fate::MayGo, waker);
        }
        let fate =
            self.sent_away.remove(&turn).map_or(Fate::Lapsed, |wait| Fate::SentAway { wait });
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
        (self.let_go.len() + self.readying.len() + self.ready.len()) as u64
    }

    /// When the first was let go of those who do not know it yet.
    pub(super) fn first_let_go(&self) -> Option<u64> {
        self.let_go.front().map(|(at, _)| *at)
    }

    /// That one may not go any more.
    pub(super) fn lapse_first(&mut self) {
        self.lapsed += usize::from(self.let_go.pop_front().is_some());
    }

    /// One that got ready may not go any more. Hands its waker back.
    pub(super) fn lapse(&mut self, turn: Turn) -> Option<Waker> {
        let (fate, waker) = self.remove(turn);
        self.lapsed += usize::from(fate == Fate::MayGo);
        waker
    }

    /// Sends the first away, who would have had to wait for that long.
    pub(super) fn send_first_away(&mut self, wait: u64) -> Option<Waker> {
        let (turn, waiter) = self.waiting.pop_first()?;
        self.sent_away.insert(turn, wait);
        waiter.waker
    }

    /// Sends those away whose turn comes too late for them, and says how many. `due` says when it
    /// comes after so many others.
    pub(super) fn send_late_ones_away(
        &mut self,
        now: u64,
        due: impl Fn(u64) -> u64,
        woken: &mut Vec<Waker>,
    ) -> u64 {
        let Self { waiting, sent_away, lapsed, .. } = self;
        let (mut ahead, before) = (*lapsed as u64, waiting.len());
        waiting.retain(|turn, waiter| {
            let due = due(ahead);
            let is_in_time = due <= waiter.deadline;
            if is_in_time {
                ahead += 1;
            } else {
                sent_away.insert(*turn, due.saturating_sub(now));
                woken.extend(waiter.waker.take());
            }
            is_in_time
        });
        (before - waiting.len()) as u64
    }

    /// Everybody, to be woken.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        let waiting = self.waiting.values_mut().filter_map(|waiter| waiter.waker.take());
        waiting.chain(self.ready.values_mut().filter_map(Option::take))
    }
}
