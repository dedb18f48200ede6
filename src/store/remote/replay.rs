//! Repeats the runs of a call by the law, from the buckets as they were before it, to find out what
//! became of each request.

use smallvec::SmallVec;

use super::pending::Op;
use super::request::{Entries, Run};
use crate::store::{BucketState, Charge, Decisions, Reply};
use crate::values::{OwnedBucket, Principal};

/// The buckets of a call.
pub(super) struct Replay<'a> {
    pub(super) principal: &'a Principal,
    pub(super) buckets: &'a [OwnedBucket],
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
            Op::Reset(_) | Op::Block(..) => {
                op.runs(self.principal).for_each(|run| self.apply(&run));
            }
        }
        Reply::Done
    }

    /// Charges for the requests among `count` equal ones that do not wait any more: the units that
    /// the server has charged and that none of the `waiting` ones gets. Returns how many requests
    /// these are.
    #[cold]
    pub(super) fn charge_gone(&mut self, entries: &Entries, count: usize, waiting: usize) -> usize {
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
            Run::Settle { bucket, rate, time } => self.state(bucket).settle(*rate, *time),
            Run::Refund { bucket, rate, time } => {
                let state = self.state(bucket);
                state.correct(*rate);
                state.give_back(*time);
            }
            Run::Reset { bucket } => {
                let state = self.state(bucket);
                let is_estimate = state.is_estimate;
                *state = BucketState { is_estimate, ..BucketState::default() };
            }
            Run::Block { bucket, time } => self.state(bucket).blocked = *time,
        }
    }

    fn charge(&mut self, entries: &Entries) -> Decisions {
        self.of(entries, |charge, states| charge.apply(states))
    }

    /// Calls `act` with the charge of these entries and the states of their buckets.
    fn of<R>(
        &mut self,
        entries: &Entries,
        act: impl FnOnce(Charge<'_>, &mut [BucketState]) -> R,
    ) -> R {
        let charge = entries.charge(self.principal);
        if let ([_], [state]) = (charge.entries(), &mut *self.states) {
            return act(charge, std::slice::from_mut(state));
        }
        let places: SmallVec<[_; 4]> =
            entries.buckets(self.principal).map(|bucket| self.place(&bucket)).collect();
        let mut states: SmallVec<[_; 4]> = places.iter().map(|place| self.states[*place]).collect();
        let result = act(charge, &mut states);
        for (place, state) in places.into_iter().zip(states) {
            self.states[place] = state;
        }
        result
    }

    fn state(&mut self, bucket: &OwnedBucket) -> &mut BucketState {
        let place = self.place(bucket);
        &mut self.states[place]
    }

    fn place(&self, bucket: &OwnedBucket) -> usize {
        let place = self.buckets.iter().position(|known| known == bucket);
        place.expect("a call names every bucket of its requests")
    }
}
