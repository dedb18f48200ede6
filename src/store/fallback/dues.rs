//! What one replica owes the store for one bucket.
//!
//! # How much is charged back
//! While the store is lost, replica `i` of `N` admits units on its own. The store's bucket refills
//! meanwhile, as if no unit were charged. No replica knows for certain how full it was at the loss,
//! since other replicas may have drained it. So what is charged back assumes that it was drained:
//!
//! * All that was admitted is charged back, if the loss was shorter than a full refill. The bucket
//!   had no time to become full and to waste units.
//! * After a longer loss the bucket may have been full for `loss - refill`. A replica may take its
//!   share of that time off, `(loss - refill) / N`: units that came back while it admitted.
//! * But a replica charges back at least what a bucket of its own would still owe: one that started
//!   full, refills at one `N`th of the rate, and was charged the replica's units only.
//!
//! So a caller who stays below the limit during a long loss finds an almost full bucket, one that
//! took all it could get finds it drained or overdrawn, and no number of losses adds up to more
//! than one overdraft.

use std::num::NonZeroU32;

use crate::store::Entry;

/// Units that this replica has admitted from a bucket without the store, and that are not charged
/// to the store yet. All times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dues {
    /// The store's bucket, as it was measured by the last charge. One unit.
    entry: Entry,
    /// When the first unit was admitted.
    since: u64,
    /// The time in which the admitted units come back.
    admitted: u64,
    /// When a bucket that refills at this replica's share would be full again.
    full_at: u64,
}

impl Dues {
    pub(super) const fn new(entry: Entry, now: u64) -> Self {
        Self { entry, since: now, admitted: 0, full_at: 0 }
    }

    /// The store's bucket, as it was measured by the last charge.
    pub(crate) const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Adds the cost of an entry.
    pub(super) fn add(&mut self, entry: &Entry, now: u64, replicas: NonZeroU32) {
        self.entry = *entry;
        let time = entry.time();
        self.admitted = self.admitted.saturating_add(time);
        let slowly = time.saturating_mul(replicas.get().into());
        self.full_at = self.full_at.max(now).saturating_add(slowly);
    }

    /// Takes off units that were given back, at most as many as were admitted. Returns what is left
    /// of `time`.
    pub(super) fn reduce(&mut self, time: u64, replicas: NonZeroU32) -> u64 {
        let taken = time.min(self.admitted);
        self.admitted -= taken;
        self.full_at = self.full_at.saturating_sub(taken.saturating_mul(replicas.get().into()));
        time - taken
    }

    /// Adds dues of the same bucket.
    pub(super) fn merge(&mut self, other: &Self, now: u64) {
        self.since = self.since.min(other.since);
        self.admitted = self.admitted.saturating_add(other.admitted);
        self.full_at = self.full_at.max(now).saturating_add(other.full_at.saturating_sub(now));
    }

    pub(super) const fn is_nothing(&self) -> bool {
        self.admitted == 0
    }

    /// The time to charge to the store's bucket now. At most two refills, after which a bucket is
    /// drained and overdrawn as far as it can be.
    pub(super) fn amount(&self, now: u64, replicas: NonZeroU32) -> u64 {
        let (replicas, refill) = (u64::from(replicas.get()), self.entry.rate().refill());
        let wasted = now.saturating_sub(self.since).saturating_sub(refill) / replicas;
        let own = self.full_at.saturating_sub(now).div_ceil(replicas);
        self.admitted.saturating_sub(wasted).max(own).min(refill.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::Dues;
    use crate::store::Entry;
    use crate::values::{Endpoint, Quota};

    const SECOND: u64 = 1_000_000_000;

    /// Of one unit a second, ten at once.
    fn units(cost: u32) -> Entry {
        let quota = Quota::per(1, Duration::from_secs(1)).burst(10).build().expect("it is valid");
        Entry::new(Endpoint::CALL, quota).with_cost(cost).expect("at most the burst")
    }

    fn replicas(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("at least one")
    }

    #[test]
    fn all_that_was_admitted_is_charged_back_after_a_loss_shorter_than_a_refill() {
        let (mut dues, two) = (Dues::new(units(1), 5 * SECOND), replicas(2));
        dues.add(&units(3), 5 * SECOND, two);
        dues.add(&units(1), 9 * SECOND, two);
        assert_eq!(dues.amount(15 * SECOND, two), 4 * SECOND);
    }

    #[test]
    fn a_caller_below_the_limit_owes_little_after_a_long_loss_and_one_at_the_limit_a_bucket() {
        let one = replicas(1);
        let after_a_loss_at = |every: u64| {
            let mut dues = Dues::new(units(1), 0);
            for second in (0..1000).step_by(usize::try_from(every).expect("small")) {
                dues.add(&units(1), second * SECOND, one);
            }
            dues.amount(1000 * SECOND, one)
        };
        assert_eq!(after_a_loss_at(2), 0);
        assert_eq!(after_a_loss_at(1), 10 * SECOND);
    }

    #[test]
    fn never_more_than_an_overdraft_is_charged_back() {
        let (mut dues, one) = (Dues::new(units(1), 0), replicas(1));
        (0..50).for_each(|_| dues.add(&units(10), 0, one));
        assert_eq!(dues.amount(0, one), 20 * SECOND);
    }

    #[test]
    fn what_was_given_back_is_not_charged() {
        let (mut dues, two) = (Dues::new(units(1), 0), replicas(2));
        dues.add(&units(3), 0, two);
        assert_eq!(dues.reduce(2 * SECOND, two), 0);
        assert_eq!(dues.amount(0, two), SECOND);
        assert_eq!(dues.reduce(2 * SECOND, two), SECOND);
        assert!(dues.is_nothing() && dues.amount(0, two) == 0);
    }

    #[test]
    fn dues_of_one_bucket_add_up() {
        let (mut dues, two) = (Dues::new(units(1), 0), replicas(2));
        dues.add(&units(3), 0, two);
        let mut later = Dues::new(units(1), SECOND);
        later.add(&units(1), SECOND, two);
        later.merge(&dues, SECOND);
        assert_eq!(later.amount(SECOND, two), 4 * SECOND);
    }
}
