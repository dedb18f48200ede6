//! Corrections: refunds and settlements that were submitted, and for which no request waits.
//!
//! They wait here until the server can be called. A call for a principal takes what waits for it,
//! and carries it out before the requests of the call. What was certainly not carried out is put
//! back. What may have been is lost: a refund must not be given twice.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::request::Run;
use crate::store::by_principal::ByPrincipal;
use crate::store::{Bucket, Charge};
use crate::values::{OwnedBucket, Principal, Quota, Rate};

/// The most corrections of a principal that one call carries out.
const MOST_AT_ONCE: usize = 64;

/// A correction is merged with one of the last of its principal, so that adding one stays cheap.
const LAST: usize = 32;

/// The corrections that wait for the servers of a store.
#[derive(Debug)]
pub(super) struct Corrections {
    waiting: ByPrincipal<Claimed>,
    /// How many there are, those in flight included.
    len: AtomicUsize,
    /// The most that there may be.
    most: usize,
    /// How many are lost of those that were submitted.
    lost: AtomicU64,
}

/// Corrections of one principal, in the order in which they were submitted.
pub(super) type Claimed = SmallVec<[Correction; 1]>;

/// A refund or a settlement of one bucket: one or several that were submitted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Correction {
    bucket: OwnedBucket,
    rate: Rate,
    kind: Kind,
    /// In nanoseconds, and whole microseconds.
    time: u64,
    /// How many were submitted.
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Refund,
    Settlement,
}

/// There is no room for a correction. It is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// The most corrections that there may be.
    pub(super) most: usize,
}

impl Corrections {
    pub(super) fn new(most: usize) -> Self {
        Self { waiting: ByPrincipal::new(), len: 0.into(), most, lost: 0.into() }
    }

    /// How many wait, or are in flight.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// How many are lost of those that were submitted.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Adds the correction of each bucket of a charge.
    ///
    /// # Errors
    /// If there is no room for some of them, which are lost.
    pub(super) fn add(&self, charge: &Charge<'_>, kind: Kind) -> Result<(), Full> {
        let mut added = Ok(());
        for entry in charge.entries() {
            let bucket = charge.bucket(entry);
            let entry = entry.counted_in(entry.rate().in_whole_micros());
            let (rate, time) = (entry.rate(), entry.time());
            let one = Correction { bucket: OwnedBucket::of(bucket), rate, kind, time, count: 1 };
            if !self.add_one(bucket.principal(), one) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                added = Err(Full { most: self.most });
            }
        }
        added
    }

    /// Whether any wait for a call for the principal.
    pub(super) fn wait_for(&self, principal: &Principal) -> bool {
        self.len() > 0 && self.waiting.shard(principal).contains_key(principal)
    }

    /// Takes those of a principal that the next call carries out; of one bucket only if there is
    /// a `bucket`.
    pub(super) fn claim(&self, principal: &Principal, bucket: Option<&OwnedBucket>) -> Claimed {
        if self.len() == 0 {
            return Claimed::new();
        }
        let mut shard = self.waiting.shard(principal);
        let Some(waiting) = shard.get_mut(principal) else { return Claimed::new() };
        let mut taken = Claimed::new();
        match bucket {
            None if waiting.len() <= MOST_AT_ONCE => taken = std::mem::take(waiting),
            None => taken.extend(waiting.drain(..MOST_AT_ONCE)),
            Some(bucket) => waiting.retain(|one| {
                let takes = one.bucket == *bucket && taken.len() < MOST_AT_ONCE;
                if takes {
                    taken.push(one.clone());
                }
                !takes
            }),
        }
        if waiting.is_empty() {
            shard.remove(principal);
        }
        taken
    }

    /// The bucket of the first that waits for a call for the principal.
    pub(super) fn first_bucket(&self, principal: &Principal) -> Option<OwnedBucket> {
        let shard = self.waiting.shard(principal);
        shard.get(principal)?.first().map(|one| one.bucket.clone())
    }

    /// Drops those of a bucket, which is reset: there is nothing left to correct.
    pub(super) fn forget(&self, bucket: Bucket<'_>) {
        if self.len() == 0 {
            return;
        }
        let (principal, bucket) = (bucket.principal(), OwnedBucket::of(bucket));
        let mut shard = self.waiting.shard(principal);
        let Some(waiting) = shard.get_mut(principal) else { return };
        let before = waiting.len();
        waiting.retain(|one| one.bucket != bucket);
        self.len.fetch_sub(before - waiting.len(), Ordering::Relaxed);
        if waiting.is_empty() {
            shard.remove(principal);
        }
    }

    /// Puts back what was taken and certainly not carried out.
    pub(super) fn put_back(&self, principal: &Principal, taken: Claimed) {
        if !taken.is_empty() {
            self.waiting
                .shard(principal)
                .entry(principal.clone())
                .or_default()
                .insert_many(0, taken);
        }
    }

    /// What was taken is carried out.
    pub(super) fn done(&self, taken: &[Correction]) {
        self.len.fetch_sub(taken.len(), Ordering::Relaxed);
    }

    /// What was taken is lost: it may have been carried out, or never can be.
    pub(super) fn lose(&self, taken: &[Correction]) {
        self.done(taken);
        let submitted = taken.iter().map(|one| one.count).sum();
        self.lost.fetch_add(submitted, Ordering::Relaxed);
    }

    /// At most `most` of the principals for which corrections wait and that are `wanted`.
    pub(super) fn some(&self, most: usize, wanted: impl Fn(&Principal) -> bool) -> Vec<Principal> {
        if self.len() == 0 { Vec::new() } else { self.waiting.some(most, wanted) }
    }

    /// Returns whether there was room.
    fn add_one(&self, principal: &Principal, new: Correction) -> bool {
        let mut shard = self.waiting.shard(principal);
        if let Some(waiting) = shard.get_mut(principal) {
            let of_bucket = |one: &&mut Correction| one.bucket == new.bucket;
            let last = waiting.iter_mut().rev().take(LAST).find(of_bucket);
            if last.is_some_and(|last| last.merge(&new)) {
                return true;
            }
        }
        let room = |len: usize| (len < self.most).then_some(len + 1);
        if self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return false;
        }
        shard.entry(principal.clone()).or_default().push(new);
        true
    }
}

impl Correction {
    /// The bucket that it corrects.
    pub(super) const fn bucket(&self) -> &OwnedBucket {
        &self.bucket
    }

    /// What is sent.
    pub(super) fn run(&self) -> Run {
        let (bucket, rate, time) = (self.bucket.clone(), self.rate, self.time);
        match self.kind {
            Kind::Refund => Run::Refund { bucket, rate, time },
            Kind::Settlement => Run::Settle { bucket, rate, time },
        }
    }

    /// Adds another one of the same bucket to this, if both are refunds, or both settlements, by
    /// the same quota: their sum has the same effect. Returns whether it did.
    fn merge(&mut self, other: &Self) -> bool {
        let same = self.kind == other.kind && self.rate == other.rate;
        if same {
            // A bucket owes a century at most. All times are sent in whole microseconds.
            const MOST: u64 = Quota::MAX_REFILL_TIME.as_secs() * 1_000_000_000;
            self.time = self.time.saturating_add(other.time).min(MOST);
            self.count += other.count;
        }
        same
    }
}
