//! The report of a store.

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The state and the counters of a store, as plain numbers: for metrics, or for a status page.
///
/// [`Store::report`](super::Store::report) returns it. A number that does not apply to a store is
/// 0. A store made of several stores adds up their reports. A store of your own starts from
/// [`default`](Self::default), or from the report of the store that it wraps.
///
/// ```
/// use bolna_rate_limit::Limiter;
/// use bolna_rate_limit::store::Store;
///
/// /// Whether this replica counts with the others, for a status page.
/// fn counts_together<St: Store>(limiter: &Limiter<St>) -> bool {
///     let store = limiter.report().store;
///     store.open_breakers == 0 && store.owed == 0
/// }
/// # assert!(counts_together(&Limiter::default()));
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReport {
    /// The number of buckets that are tracked in this process now, those of addresses excluded: of
    /// a `MemoryStore`, also of one that is the local store of a
    /// [`LocalFallback`](super::LocalFallback).
    pub buckets: usize,
    /// The number of buckets of network addresses that are tracked in this process now.
    pub addresses: usize,
    /// The number of blocks and overdrafts that are kept in this process. Those that have ended
    /// count until they are dropped.
    pub blocks: usize,
    /// The most buckets, blocks and overdrafts that may be kept in this process; `None` without a
    /// cap.
    pub max_buckets: Option<usize>,
    /// How many checks a [shared bucket](super::MemoryStore::max_buckets) has decided, since the
    /// store was made, because there was no room for a bucket of the caller's own.
    pub shared: u64,
    /// How many times a shard of the buckets in this process was swept, that is cleared of buckets
    /// that are full again, since the store was made.
    pub sweeps: u64,
    /// The number of buckets that the sweeps have dropped since the store was made.
    pub dropped: u64,
    /// The number of buckets that a [`DenialCache`](super::DenialCache) remembers now: its
    /// [`len`](super::DenialCache::len).
    pub remembered_denials: usize,
    /// The number of checks that the local store of a [`LocalFallback`](super::LocalFallback) has
    /// decided because the other store failed, since the store was made.
    pub fallbacks: u64,
    /// The failures that a [`LocalFallback`](super::LocalFallback) has answered from its local
    /// store instead: how many of each [kind](super::StoreError::kind), sorted by kind, since the
    /// store was made.
    ///
    /// It counts each of the [`fallbacks`](Self::fallbacks) and each peek that the local store has
    /// answered. Errors [of one request](super::StoreError::of_request) count too. A failure that
    /// the store returns to its caller is not counted.
    pub failures: BTreeMap<&'static str, u64>,
    /// The number of buckets for which this process has admitted units without the store and has
    /// not charged them to the store yet: those of a `RedisStore`, or of a
    /// [`LocalFallback`](super::LocalFallback) with [`max_owed`](super::LocalFallback::max_owed).
    pub owed: usize,
    /// The units that the store has charged, since it was made, for requests that no longer waited
    /// for its answer: requests that were dropped, or decided without it after the deadline.
    pub late_charges: u64,
    /// The number of corrections, that is refunds and settlements that were
    /// [submitted](super::Store::submit), that wait for the server of a `RedisStore` or for its
    /// answer: one for each bucket that they correct. A correction is merged with the last one of
    /// its bucket if both are refunds, or both settlements, by the same quota. Then they count as
    /// one.
    pub waiting_corrections: usize,
    /// The number of corrections that a `RedisStore` has lost since it was made, one for each
    /// bucket: there was no room for them, the key of the bucket holds something that is not a
    /// bucket, or it is not known whether the server has carried them out. Each submitted
    /// correction counts, also if it was merged.
    pub lost_corrections: u64,
    /// The number of breakers: one for each [`Breaker`](super::Breaker). The connection of a
    /// `RedisStore` to its server counts as one, and in a cluster that to each known primary.
    pub breakers: usize,
    /// The number of breakers that are open now, and of servers that are lost. A store behind an
    /// open breaker is not called.
    pub open_breakers: usize,
}

impl AddAssign for StoreReport {
    fn add_assign(&mut self, other: Self) {
        self.buckets += other.buckets;
        self.addresses += other.addresses;
        self.blocks += other.blocks;
        self.shared += other.shared;
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
        self.owed += other.owed;
        self.late_charges += other.late_charges;
        self.waiting_corrections += other.waiting_corrections;
        self.lost_corrections += other.lost_corrections;
        self.breakers += other.breakers;
        self.open_breakers += other.open_breakers;
    }
}
