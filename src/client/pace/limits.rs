//! The limits of one lane.

use std::iter::zip;

use super::pair::{Pair, Turns};

/// The limits of one lane: which of the pairs of its group they are. A request has to have its
/// units of all of them.
#[derive(Debug)]
pub(super) struct Limits {
    shares: Box<[Share]>,
}

#[derive(Debug)]
struct Share {
    /// The index of the pair.
    pair: usize,
    /// The times at the last check of the deadlines. If one of them is later now, waiting requests
    /// may miss their deadlines.
    judged: Turns,
}

impl Limits {
    /// The pairs with these indices. The first is the endpoint's own.
    pub(super) fn new(pairs: impl IntoIterator<Item = usize>) -> Self {
        let share = |pair| Share { pair, judged: [0; 4] };
        Self { shares: pairs.into_iter().map(share).collect() }
    }

    pub(super) fn of<'a>(&'a self, pairs: &'a [Pair]) -> impl Iterator<Item = &'a Pair> {
        self.shares.iter().map(|share| &pairs[share.pair])
    }

    /// The endpoint's own limit.
    pub(super) fn own<'a>(&self, pairs: &'a mut [Pair]) -> &'a mut Pair {
        &mut pairs[self.shares[0].pair]
    }

    #[inline]
    pub(super) fn each(&self, pairs: &mut [Pair], mut change: impl FnMut(&mut Pair)) {
        self.shares.iter().for_each(|share| change(&mut pairs[share.pair]));
    }

    /// All limits but the endpoint's own.
    pub(super) fn further(&self, pairs: &mut [Pair], mut change: impl FnMut(&mut Pair)) {
        self.shares[1..].iter().for_each(|share| change(&mut pairs[share.pair]));
    }

    /// When the next request may be dispatched, after `ahead` others.
    pub(super) fn due(&self, pairs: &[Pair], ahead: u64) -> u64 {
        self.of(pairs).fold(0, |due, pair| due.max(pair.due(ahead)))
    }

    /// When the next dispatched request may be sent, after `ahead` others.
    pub(super) fn opens(&self, pairs: &[Pair], ahead: u64) -> u64 {
        self.of(pairs).fold(0, |opens, pair| opens.max(pair.opens(ahead)))
    }

    pub(super) fn paused_until(&self, pairs: &[Pair]) -> u64 {
        self.of(pairs).fold(0, |until, pair| until.max(pair.paused_until))
    }

    /// How many requests can be dispatched at once.
    pub(super) fn remaining(&self, pairs: &[Pair], now: u64) -> u32 {
        self.of(pairs).map(|pair| pair.remaining(now)).min().unwrap_or(0)
    }

    /// Whether one more request, after `ahead` others, is due later than at the last check.
    pub(super) fn is_later(&self, pairs: &[Pair], ahead: u64) -> bool {
        let is_later = |share: &Share| {
            let now = pairs[share.pair].turns(ahead);
            zip(now, share.judged).any(|(now, judged)| now > judged)
        };
        self.shares.iter().any(is_later)
    }

    /// Notes that all waiting requests meet their deadlines now.
    pub(super) fn mark_judged(&mut self, pairs: &[Pair], ahead: u64) {
        for share in &mut *self.shares {
            share.judged = pairs[share.pair].turns(ahead);
        }
    }

    /// Notes that all deadlines are to be checked.
    pub(super) fn mark_unjudged(&mut self) {
        for share in &mut *self.shares {
            share.judged = [0; 4];
        }
    }

    /// Remembers the times that are earlier now, because they may become later again.
    pub(super) fn mark_sooner(&mut self, pairs: &[Pair], ahead: u64) {
        for share in &mut *self.shares {
            let now = pairs[share.pair].turns(ahead);
            zip(&mut share.judged, now).for_each(|(judged, now)| *judged = now.min(*judged));
        }
    }
}
