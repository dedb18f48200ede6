//! Repeats the runs of a call by the law, from the buckets as they were before it, to find out what
//! became of each request.

use smallvec::SmallVec;

use super::pending::Op;
use super::request::Run;
use crate::store::{BucketState, Charge, Decisions, Entry, Reply};
use crate::values::{Endpoint, Principal};

/// The buckets of a call.
pub(super) struct Replay<'a> {
    pub(super) principal: &'a Principal,
    pub(super) buckets: &'a [Endpoint],
    pub(super) states: SmallVec<[BucketState; 1]>,
}

impl Replay<'_> {
    /// Carries out what one request asked for, and says what to answer.
    pub(super) fn answer(&mut self, op: &Op) -> Reply {
        match op {
            Op::Check(entries) => {
                return Reply::Decisions(self.of(entries, |charge, states| charge.apply(states)));
            }
            Op::Peek(entries) => {
                // A peek changes nothing: it does not even correct a bucket.
                let before = self.states.clone();
                let seen = self.of(entries, |charge, states| charge.peek(states));
                self.states = before;
                return Reply::Decisions(seen);
            }
            Op::Refund(entries) => self.of(entries, |charge, states| charge.refund(states)),
            Op::Settle(entries) => self.of(entries, |charge, states| charge.settle(states)),
            Op::Reset(_) | Op::Block(..) => op.runs().for_each(|run| self.apply(&run)),
        }
        Reply::Done
    }

    /// Charges for the requests among `count` equal ones that do not wait any more: the units that
    /// the server has charged and that none of the `waiting` ones gets. Returns how many requests
    /// these are.
    #[cold]
    pub(super) fn charge_gone(&mut self, entries: &[Entry], count: usize, waiting: usize) -> usize {
        let before = self.states.clone();
        let admitted = (0..count).filter(|_| self.charge(entries).outcome().is_admitted()).count();
        self.states = before;
        let for_none = admitted.saturating_sub(waiting);
        for _ in 0..for_none {
            self.charge(entries);
        }
        for_none
    }

    /// Carries out a run.
    pub(super) fn apply(&mut self, run: &Run) {
        match run {
            Run::Charge { entries, count } => {
                for _ in 0..*count {
                    self.charge(entries);
                }
            }
            Run::Settle { bucket, rate, time } => self.state(*bucket).settle(*rate, *time),
            Run::Refund { bucket, rate, time } => {
                let state = self.state(*bucket);
                state.correct(*rate);
                state.give_back(*rate, *time);
            }
            Run::Reset { bucket } => {
                let state = self.state(*bucket);
                let is_estimate = state.is_estimate;
                *state = BucketState { is_estimate, ..BucketState::default() };
            }
            Run::Block { bucket, time } => self.state(*bucket).blocked = *time,
        }
    }

    fn charge(&mut self, entries: &[Entry]) -> Decisions {
        self.of(entries, |charge, states| charge.apply(states))
    }

    /// Calls `act` with the charge of these entries and the states of their buckets.
    fn of<R>(
        &mut self,
        entries: &[Entry],
        act: impl FnOnce(Charge<'_>, &mut [BucketState]) -> R,
    ) -> R {
        let charge = Charge::of(self.principal, entries);
        if let ([_], [state]) = (entries, &mut *self.states) {
            return act(charge, std::slice::from_mut(state));
        }
        let mut states: SmallVec<[_; 4]> =
            entries.iter().map(|entry| *self.state(entry.endpoint())).collect();
        let result = act(charge, &mut states);
        for (entry, state) in entries.iter().zip(states) {
            *self.state(entry.endpoint()) = state;
        }
        result
    }

    fn state(&mut self, bucket: Endpoint) -> &mut BucketState {
        let index = self.buckets.iter().position(|known| *known == bucket);
        &mut self.states[index.expect("a call names every bucket of its requests")]
    }
}
