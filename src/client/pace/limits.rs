//! The limits of one endpoint.

use std::iter::zip;

use super::pair::{DueTimes, Pair};
use super::pairs::Pairs;
use super::pool::Pool;
use crate::client::log::Events;

/// The limits of one endpoint: which of the pairs and pools of its group they are. A request has to
/// have its units and permits of all of them.
#[derive(Debug)]
pub(super) struct Limits {
    shares: Box<[Share]>,
    /// The indices of the pools.
    pub(super) pools: Vec<usize>,
    /// Until when the pools paused the endpoint at the last check of the deadlines.
    judged_pause: u64,
}

#[derive(Debug)]
struct Share {
    /// The index of the pair.
    pair: usize,
    /// The times at the last check of the deadlines. If one of them is later now, waiting requests
    /// may miss their deadlines.
    judged: DueTimes,
}

impl Limits {
    /// The pairs and the pools with these indices. The first pair is the endpoint's own.
    pub(super) fn new(pairs: impl IntoIterator<Item = usize>, pools: Vec<usize>) -> Self {
        let share = |pair| Share { pair, judged: [0; 4] };
        Self { shares: pairs.into_iter().map(share).collect(), pools, judged_pause: 0 }
    }

    pub(super) fn of<'a>(&'a self, pairs: &'a Pairs) -> impl Iterator<Item = &'a Pair> {
        self.shares.iter().map(|share| &pairs.rates[share.pair])
    }

    /// Whether these have a limit in common.
    pub(super) fn has_any_of(&self, other: &Self) -> bool {
        let has = |pair| self.shares.iter().any(|share| share.pair == pair);
        other.shares.iter().any(|share| has(share.pair))
            || other.pools.iter().any(|pool| self.pools.contains(pool))
    }

    /// The endpoint's own limit.
    pub(super) fn own<'a>(&self, pairs: &'a mut Pairs) -> &'a mut Pair {
        &mut pairs.rates[self.shares[0].pair]
    }

    #[inline]
    pub(super) fn each(&self, pairs: &mut Pairs, mut change: impl FnMut(&mut Pair)) {
        self.shares.iter().for_each(|share| change(&mut pairs.rates[share.pair]));
    }

    /// The same, with the place for events.
    #[inline]
    pub(super) fn each_with_events(
        &self,
        pairs: &mut Pairs,
        mut change: impl FnMut(&mut Pair, &mut Events),
    ) {
        let Pairs { rates, events, .. } = pairs;
        self.shares.iter().for_each(|share| change(&mut rates[share.pair], events));
    }

    /// All limits but the endpoint's own.
    pub(super) fn further(
        &self,
        pairs: &mut Pairs,
        mut change: impl FnMut(&mut Pair, &mut Events),
    ) {
        let Pairs { rates, events, .. } = pairs;
        self.shares[1..].iter().for_each(|share| change(&mut rates[share.pair], events));
    }

    /// When the next request may be dispatched, after `ahead` others.
    pub(super) fn due(&self, pairs: &Pairs, ahead: u64) -> u64 {
        self.of(pairs).fold(self.pools_paused_until(pairs), |due, pair| due.max(pair.due(ahead)))
    }

    /// When the next request is to be dispatched, by all that is known.
    #[inline]
    pub(super) fn dispatch_at(&self, pairs: &Pairs) -> u64 {
        self.of(pairs).fold(self.pools_paused_until(pairs), |at, pair| at.max(pair.dispatch_at()))
    }

    /// The same for a request after `ahead` others, as far as it can be foreseen.
    pub(super) fn expected(&self, pairs: &Pairs, ahead: u64) -> u64 {
        let paused = self.pools_paused_until(pairs);
        self.of(pairs).fold(paused, |at, pair| at.max(pair.expected(ahead)))
    }

    /// When the next dispatched request may be sent, after `ahead` others.
    pub(super) fn opens(&self, pairs: &Pairs, ahead: u64) -> u64 {
        self.of(pairs).fold(0, |opens, pair| opens.max(pair.opens(ahead)))
    }

    pub(super) fn paused_until(&self, pairs: &Pairs) -> u64 {
        let paused = self.of(pairs).map(|pair| pair.paused_until);
        paused.fold(self.pools_paused_until(pairs), u64::max)
    }

    /// The time between two requests, now and as measured, by the limit with the slowest rate of
    /// those that were learned.
    pub(super) fn learned_intervals(&self, pairs: &Pairs, now: u64) -> Option<(u64, u64)> {
        self.of(pairs).filter_map(|pair| pair.learned_intervals(now)).max()
    }

    fn pools_paused_until(&self, pairs: &Pairs) -> u64 {
        self.pools(pairs).map(Pool::paused_until).fold(0, u64::max)
    }

    /// How many requests can be dispatched at once.
    pub(super) fn remaining(&self, pairs: &Pairs, now: u64) -> u32 {
        let remaining = self.of(pairs).map(|pair| pair.remaining(now)).min().unwrap_or(0);
        let permits = self.pools(pairs).map(|pool| pool.remaining(now)).min();
        permits.and_then(|permits| u32::try_from(permits).ok()).unwrap_or(u32::MAX).min(remaining)
    }

    /// Whether one more request, after `ahead` others, is due later than at the last check.
    pub(super) fn is_later(&self, pairs: &Pairs, ahead: u64) -> bool {
        let is_later = |share: &Share| {
            let now = pairs.rates[share.pair].due_times(ahead);
            zip(now, share.judged).any(|(now, judged)| now > judged)
        };
        self.shares.iter().any(is_later) || self.pools_paused_until(pairs) > self.judged_pause
    }

    /// Notes that all waiting requests meet their deadlines now.
    pub(super) fn mark_judged(&mut self, pairs: &Pairs, ahead: u64) {
        for share in &mut *self.shares {
            share.judged = pairs.rates[share.pair].due_times(ahead);
        }
        self.judged_pause = self.pools_paused_until(pairs);
    }

    /// Notes that all deadlines are to be checked.
    pub(super) fn mark_unjudged(&mut self) {
        for share in &mut *self.shares {
            share.judged = [0; 4];
        }
        self.judged_pause = 0;
    }

    /// Remembers the times that are earlier now, because they may become later again.
    pub(super) fn mark_sooner(&mut self, pairs: &Pairs, ahead: u64) {
        for share in &mut *self.shares {
            let now = pairs.rates[share.pair].due_times(ahead);
            zip(&mut share.judged, now).for_each(|(judged, now)| *judged = now.min(*judged));
        }
        self.judged_pause = self.pools_paused_until(pairs).min(self.judged_pause);
    }
}
