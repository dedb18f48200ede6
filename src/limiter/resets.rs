//! The buckets that were reset, so that what a request had paid before is not given back after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::in_flight::Key;
use crate::store::Bucket;

/// The most buckets whose last reset is remembered. A reset is made by an operator, so there are
/// few between a charge and its refund.
const MOST: usize = 4096;

/// The resets that this limiter has made.
#[derive(Default)]
pub(super) struct Resets {
    /// How many there were.
    count: AtomicU64,
    /// The number of the last one of each bucket.
    last: Mutex<HashMap<Key, u64, foldhash::fast::RandomState>>,
}

impl Resets {
    /// How many there were so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// A bucket was reset.
    pub(super) fn note(&self, bucket: &Bucket<'_>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.count() + 1;
        if last.len() >= MOST {
            // The older half.
            let mut numbers: Vec<u64> = last.values().copied().collect();
            let (_, middle, _) = numbers.select_nth_unstable(MOST / 2);
            let middle = *middle;
            last.retain(|_, number| *number > middle);
        }
        last.insert(Key::of(bucket), number);
        self.count.store(number, Ordering::Release);
    }

    /// Whether a bucket was reset after there had been so many resets.
    pub(super) fn has_reset(&self, bucket: &Bucket<'_>, since: u64) -> bool {
        if self.count() == since {
            return false;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&Key::of(bucket)).is_some_and(|number| *number > since)
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Resets};
    use crate::store::Bucket;
    use crate::values::{Endpoint, Principal};

    #[test]
    fn of_more_buckets_than_are_remembered_the_last_ones_are() {
        let resets = Resets::default();
        let callers: Vec<_> =
            (0..MOST + 10).map(|number| Principal::user(number).expect("not empty")).collect();
        let bucket = |number: usize| Bucket::of_account(&callers[number], Endpoint::CALL);
        (0..callers.len()).for_each(|number| resets.note(&bucket(number)));
        let last = callers.len() - 1;
        assert!(resets.has_reset(&bucket(last), 0) && resets.has_reset(&bucket(last - 100), 0));
        assert!(!resets.has_reset(&bucket(last), resets.count()));
        assert!(!resets.has_reset(&bucket(0), 0));
        assert!(resets.last.lock().expect("no panic").len() <= MOST);
    }
}
