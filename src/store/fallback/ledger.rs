//! What one replica owes the store for all buckets.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::dues::Dues;
use crate::store::by_principal::ByPrincipal;
use crate::store::{Bucket, Charge, Entry};
use crate::values::{OwnedBucket, Principal};

/// The units that this replica has admitted without the store, by principal and bucket, until they
/// are charged to the store.
#[derive(Debug)]
pub(crate) struct Ledger {
    owed: ByPrincipal<Owed>,
    replicas: NonZeroU32,
    /// The number of buckets with dues.
    len: AtomicUsize,
    /// The most buckets with dues.
    most: usize,
}

/// The dues of one principal: in the order in which the buckets were first charged.
pub(crate) type Owed = SmallVec<[(OwnedBucket, Dues); 1]>;

impl Ledger {
    pub(crate) fn new(replicas: NonZeroU32, most: usize) -> Self {
        Self { owed: ByPrincipal::new(), replicas, len: AtomicUsize::new(0), most }
    }

    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether anything is owed for buckets of the principal.
    #[cfg(feature = "redis")]
    pub(crate) fn has_dues(&self, principal: &Principal) -> bool {
        !self.is_empty() && self.owed.shard(principal).contains_key(principal)
    }

    /// Whether there is room to note dues for all buckets of the charge.
    pub(crate) fn has_room(&self, charge: &Charge<'_>) -> bool {
        if self.len() + charge.entries().len() <= self.most {
            return true;
        }
        charge.buckets().all(|bucket| {
            let (shard, own) = (self.owed.shard(bucket.principal()), OwnedBucket::of(bucket));
            let owed = shard.get(bucket.principal());
            owed.is_some_and(|owed| owed.iter().any(|(known, _)| *known == own))
        })
    }

    /// Notes the cost of an entry as admitted at `now`. Exceeds the most buckets only by what other
    /// threads have noted since [`has_room`](Self::has_room).
    pub(crate) fn note(&self, bucket: Bucket<'_>, entry: &Entry, now: u64) {
        let (principal, bucket) = (bucket.principal(), OwnedBucket::of(bucket));
        let mut shard = self.owed.shard(principal);
        let owed = shard.entry(principal.clone()).or_default();
        let index = owed.iter().position(|(known, _)| *known == bucket).unwrap_or_else(|| {
            self.len.fetch_add(1, Ordering::Relaxed);
            owed.push((bucket, Dues::new(*entry, now)));
            owed.len() - 1
        });
        owed[index].1.add(entry, now, self.replicas);
    }

    /// Takes units off that were given back. Returns the part of `time` that was not owed.
    pub(crate) fn reduce(&self, bucket: Bucket<'_>, time: u64) -> u64 {
        if self.is_empty() {
            return time;
        }
        let (principal, bucket) = (bucket.principal(), OwnedBucket::of(bucket));
        let mut shard = self.owed.shard(principal);
        let Some(owed) = shard.get_mut(principal) else { return time };
        let Some(index) = owed.iter().position(|(known, _)| *known == bucket) else { return time };
        let left = owed[index].1.reduce(time, self.replicas);
        if owed[index].1.is_nothing() {
            owed.remove(index);
            self.len.fetch_sub(1, Ordering::Relaxed);
            if owed.is_empty() {
                shard.remove(principal);
            }
        }
        left
    }

    /// Forgets what is owed for a bucket, which is reset.
    pub(super) fn forget(&self, bucket: Bucket<'_>) {
        self.reduce(bucket, u64::MAX);
    }

    /// Removes the dues of a principal, to charge them to the store.
    pub(crate) fn remove(&self, principal: &Principal) -> Owed {
        if self.is_empty() {
            return Owed::new();
        }
        let owed = self.owed.shard(principal).remove(principal).unwrap_or_default();
        self.len.fetch_sub(owed.len(), Ordering::Relaxed);
        owed
    }

    /// Puts back what was removed and could not be charged.
    pub(crate) fn put_back(&self, principal: &Principal, owed: Owed, now: u64) {
        if owed.is_empty() {
            return;
        }
        let mut shard = self.owed.shard(principal);
        let known = shard.entry(principal.clone()).or_default();
        for (bucket, dues) in owed {
            match known.iter_mut().find(|(known, _)| *known == bucket) {
                Some((_, known)) => known.merge(&dues, now),
                None => {
                    self.len.fetch_add(1, Ordering::Relaxed);
                    known.push((bucket, dues));
                }
            }
        }
    }

    /// The time to charge for dues.
    pub(crate) fn amount(&self, dues: &Dues, now: u64) -> u64 {
        dues.amount(now, self.replicas)
    }

    /// Takes `time` off dues, for which the store was charged.
    pub(super) fn pay(&self, dues: &mut Dues, time: u64) {
        dues.reduce(time, self.replicas);
    }

    /// At most `most` of the principals that have dues and are `wanted`.
    pub(crate) fn some(&self, most: usize, wanted: impl Fn(&Principal) -> bool) -> Vec<Principal> {
        if self.is_empty() { Vec::new() } else { self.owed.some(most, wanted) }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::Ledger;
    use crate::store::{Bucket, Charge, Entry};
    use crate::values::{Endpoint, Principal, Quota};

    #[test]
    fn what_is_noted_is_owed_until_it_is_taken_or_given_back() {
        let ledger = Ledger::new(NonZeroU32::MIN, 2);
        let quota = Quota::per_minute(500).build().expect("it is valid");
        let rate = quota.rate();
        let [call, agent] =
            [Endpoint::CALL, Endpoint::AGENT].map(|endpoint| Entry::new(endpoint, quota));
        let [one, other] = ["one", "other"].map(|id| Principal::user(id).expect("not empty"));
        ledger.note(
            Bucket::of_account(&one, Endpoint::CALL),
            &call.with_cost(2).expect("it is below the burst"),
            0,
        );
        ledger.note(Bucket::of_account(&one, Endpoint::CALL), &call, 0);
        ledger.note(Bucket::of_account(&one, Endpoint::AGENT), &agent, 0);
        assert_eq!(ledger.len(), 2);
        assert!(ledger.has_room(&Charge::of(&one, None, &[call, agent])));
        assert!(!ledger.has_room(&Charge::of(&one, None, &[Entry::new(Endpoint::DEFAULT, quota)])));
        assert!(!ledger.has_room(&Charge::of(&other, None, &[call])));
        assert_eq!(
            ledger.reduce(Bucket::of_account(&one, Endpoint::AGENT), rate.time_of(3)),
            rate.time_of(2)
        );
        assert_eq!(ledger.reduce(Bucket::of_account(&other, Endpoint::AGENT), 5), 5);
        assert_eq!(ledger.some(10, |_| true), std::slice::from_ref(&one));
        assert!(ledger.some(10, |principal| *principal == other).is_empty());
        let owed = ledger.remove(&one);
        assert!(ledger.is_empty() && ledger.remove(&one).is_empty());
        assert_eq!(ledger.amount(&owed[0].1, 0), rate.time_of(3));
        ledger.note(Bucket::of_account(&one, Endpoint::CALL), &call, 0);
        ledger.put_back(&one, owed, 0);
        let owed = ledger.remove(&one);
        assert_eq!((owed.len(), ledger.len()), (1, 0));
        assert_eq!(ledger.amount(&owed[0].1, 0), rate.time_of(4));
    }
}
