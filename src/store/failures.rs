//! How many failures of each kind there were.

use std::array;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use super::error::OTHER;

/// More than there are kinds. If a store makes up more all the same, they count as others.
const KINDS: usize = 32;

/// Counts without a lock: during an outage each request is a failure.
pub(super) struct Failures {
    kinds: [Kind; KINDS],
    others: Counts,
}

/// On a cache line of its own, so that the kinds before the one that is counted are only read.
#[derive(Default)]
#[repr(align(64))]
struct Kind {
    /// Taken by the first failure of its kind that finds it free.
    word: OnceLock<&'static str>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    /// Of those after which something was decided without the store.
    decided: AtomicU64,
    /// Of those after which something was only looked up.
    looked_up: AtomicU64,
}

impl Failures {
    /// Instead of the store, another has decided.
    pub(super) fn decided(&self, error: &StoreError) {
        self.counts(error.kind()).decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Instead of the store, another was looked at.
    pub(super) fn looked_up(&self, error: &StoreError) {
        self.counts(error.kind()).looked_up.fetch_add(1, Ordering::Relaxed);
    }

    /// How many decisions there were, and how many failures of each kind.
    pub(super) fn report(&self) -> (u64, BTreeMap<&'static str, u64>) {
        let (mut all_decided, mut failures) = (0, BTreeMap::new());
        let kinds = self.kinds.iter().map_while(|kind| Some((*kind.word.get()?, &kind.counts)));
        for (word, counts) in kinds.chain([(OTHER, &self.others)]) {
            let decided = counts.decided.load(Ordering::Relaxed);
            let count = decided + counts.looked_up.load(Ordering::Relaxed);
            if count > 0 {
                all_decided += decided;
                *failures.entry(word).or_default() += count;
            }
        }
        (all_decided, failures)
    }

    fn counts(&self, word: &'static str) -> &Counts {
        let kind = self.kinds.iter().find(|kind| *kind.word.get_or_init(|| word) == word);
        kind.map_or(&self.others, |kind| &kind.counts)
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self { kinds: array::from_fn(|_| Kind::default()), others: Counts::default() }
    }
}
