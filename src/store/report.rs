//! What a store says of itself when it is asked.

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The state of a store and what it has counted, as plain numbers: for metrics, or a page for the
/// operator.
///
/// From [`Store::report`](super::Store::report). What a store has none of is 0. A store of several
/// adds their reports up; one of your own begins with [`default`](Self::default), or with the
/// report of what it wraps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReport {
    /// The buckets that are tracked in this process now:
    /// [`MemoryStore::len`](super::MemoryStore::len), of a
    /// [`LocalFallback`](super::LocalFallback) that of its local store.
    pub buckets: usize,
    /// The most buckets that may be tracked in this process; `None` without a cap.
    pub max_buckets: Option<usize>,
    /// How often a shard of the buckets in this process was swept of those that are full again,
    /// since the store was made.
    pub sweeps: u64,
    /// The buckets that were dropped thereby, since the store was made.
    pub dropped: u64,
    /// The buckets that a [`DenialCache`](super::DenialCache) remembers now: its
    /// [`len`](super::DenialCache::len).
    pub remembered_denials: usize,
    /// The decisions that a [`LocalFallback`](super::LocalFallback) has taken by its local store,
    /// because the other one could not be asked, since the store was made.
    pub fallbacks: u64,
    /// The failures that ended in a [`LocalFallback`](super::LocalFallback), which answered all
    /// the same: how many of each [kind](super::StoreError::kind), in the order of the words,
    /// since the store was made. Each of the [`fallbacks`](Self::fallbacks) is one of them,
    /// and so is each peek that the local store has answered. Errors [of
    /// one request](super::StoreError::of_request) count too.
    ///
    /// A failure that ends nowhere in the store is told to whoever has asked, and not counted
    /// here.
    pub failures: BTreeMap<&'static str, u64>,
    /// The breakers: one for each [`Breaker`](super::Breaker), one for a server, and of a cluster
    /// one for each primary that is known.
    pub breakers: usize,
    /// Those of them that are open now: what is behind them is not asked.
    pub open_breakers: usize,
}

impl AddAssign for StoreReport {
    fn add_assign(&mut self, other: Self) {
        self.buckets += other.buckets;
        self.max_buckets = match (self.max_buckets, other.max_buckets) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.sweeps += other.sweeps;
        self.dropped += other.dropped;
        self.remembered_denials += other.remembered_denials;
        self.fallbacks += other.fallbacks;
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.breakers += other.breakers;
        self.open_breakers += other.open_breakers;
    }
}
