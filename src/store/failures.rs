//! Counters of failures by kind.

use std::array;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use super::error::OTHER;

/// The most kinds that are counted apart: more than the stores here have. The failures of further
/// kinds count as [`OTHER`].
const KINDS: usize = 32;

/// Counts without a lock, since every request fails during an outage.
pub(super) struct Failures {
    kinds: [Kind; KINDS],
    others: Counts,
}

/// On a cache line of its own: a search reads the kinds before the one that it counts, and must not
/// wait for their counters.
#[derive(Default)]
#[repr(align(64))]
struct Kind {
    /// The name of the kind. The first failure of a new kind sets it in the first free place.
    word: OnceLock<&'static str>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    /// Failures of checks, which were decided without the store.
    decided: AtomicU64,
    /// Failures of peeks, which were answered without the store.
    looked_up: AtomicU64,
}

impl Failures {
    /// Counts a failure after which another store has decided the check.
    pub(super) fn decided(&self, error: &StoreError) {
        self.counts(error.kind()).decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure after which another store has answered the peek.
    pub(super) fn looked_up(&self, error: &StoreError) {
        self.counts(error.kind()).looked_up.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of failures after which another store has decided, and the number of failures of
    /// each kind.
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
