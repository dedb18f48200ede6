//! Calls: what is sent to the server together, for one principal.

use std::mem;

use smallvec::SmallVec;

use super::corrections::{Claimed, Correction};
use super::pending::{Op, Pending};
use super::request::Run;
use crate::store::fallback::Owed;
use crate::values::{OwnedBucket, Principal, Rate};

/// The most different runs of a call: with more, the server would be busy with one caller.
const MOST_RUNS: usize = 128;

/// A call in flight.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) principal: Principal,
    /// The numbers of its requests, in the order of arrival.
    pub(super) members: SmallVec<[u64; 1]>,
    pub(super) buckets: SmallVec<[OwnedBucket; 1]>,
    /// What the call does, in this order: charges back, carries out corrections, charges requests.
    /// `paid` has the runs of the first two.
    pub(super) owed: Owed,
    pub(super) corrections: Claimed,
    pub(super) paid: SmallVec<[Run; 1]>,
    /// What the requests asked for, and how many in a row asked for it.
    pub(super) steps: SmallVec<[(Op, u32); 1]>,
    pub(super) sent: u64,
    /// Whether it is only about the buckets of its first request.
    pub(super) is_narrow: bool,
    /// Whether it has counted as a failure of the server, because a request got no answer in time.
    pub(super) is_overdue: bool,
}

impl Call {
    /// Whether it charges back.
    pub(super) fn is_paying(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Forgets what is owed for the bucket with that index.
    pub(super) fn forgive(&mut self, index: usize) {
        let bucket = self.buckets.get(index);
        self.owed.retain(|(owed, _)| Some(&*owed) != bucket);
    }

    /// Takes out the corrections of the bucket with that index.
    pub(super) fn corrections_of(&mut self, index: usize) -> Claimed {
        let bucket = self.buckets.get(index);
        let (of_bucket, others) = mem::take(&mut self.corrections)
            .into_iter()
            .partition(|one: &Correction| Some(one.bucket()) == bucket);
        self.corrections = others;
        of_bucket
    }

    /// Takes out what is owed, because the call did not charge it.
    pub(super) fn unpaid(&mut self) -> Owed {
        mem::take(&mut self.owed)
    }
}

/// The runs of a call, as they are put together.
pub(super) struct Batch {
    pub(super) members: SmallVec<[u64; 1]>,
    pub(super) buckets: SmallVec<[OwnedBucket; 1]>,
    pub(super) runs: SmallVec<[Run; 1]>,
    pub(super) steps: SmallVec<[(Op, u32); 1]>,
    /// The earliest deadline of the requests.
    pub(super) deadline: u64,
    pub(super) asking: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            members: SmallVec::new(),
            buckets: SmallVec::new(),
            runs: SmallVec::new(),
            steps: SmallVec::new(),
            deadline: u64::MAX,
            asking: false,
        }
    }
}

impl Batch {
    /// Adds what is charged back.
    pub(super) fn settle(&mut self, bucket: OwnedBucket, rate: Rate, time: u64) {
        self.name(bucket.clone());
        // The server counts whole microseconds.
        let (rate, time) = (rate.in_whole_micros(), time.div_ceil(1000) * 1000);
        self.runs.push(Run::Settle { bucket, rate, time });
    }

    /// Adds a correction.
    pub(super) fn correct(&mut self, correction: &Correction) {
        self.name(correction.bucket().clone());
        self.runs.push(correction.run());
    }

    /// Adds a request. Returns whether there was room. If the batch `is_narrow`, there is none for
    /// a request of other buckets.
    pub(super) fn add<T>(&mut self, pending: &Pending<T>, is_narrow: bool) -> bool {
        if is_narrow && !self.members.is_empty() {
            let mut buckets = pending.op.buckets(&pending.principal);
            if pending.op.buckets(&pending.principal).count() != self.buckets.len()
                || !buckets.all(|bucket| self.buckets.contains(&bucket))
            {
                return false;
            }
        }
        if self.members.is_empty() {
            self.asking = pending.asking;
        } else if self.asking != pending.asking {
            return false;
        }
        match (self.steps.last_mut(), self.runs.last_mut()) {
            (Some((op @ Op::Check(_), times)), Some(Run::Charge { count, .. }))
                if *op == pending.op =>
            {
                *times += 1;
                *count += 1;
            }
            _ => {
                if self.runs.len() >= MOST_RUNS && !self.members.is_empty() {
                    return false;
                }
                let (op, principal) = (&pending.op, &pending.principal);
                op.buckets(principal).for_each(|bucket| self.name(bucket));
                self.runs.extend(op.runs(principal));
                self.steps.push((pending.op.clone(), 1));
            }
        }
        self.deadline = self.deadline.min(pending.deadline);
        true
    }

    fn name(&mut self, bucket: OwnedBucket) {
        if !self.buckets.contains(&bucket) {
            self.buckets.push(bucket);
        }
    }
}
