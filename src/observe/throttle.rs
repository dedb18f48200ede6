//! A bound on the number of lines that are logged.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{Charge, Entry, MemoryStore};
use crate::values::clock::Clock;
use crate::values::{Endpoint, Principal, Quota, QuotaBuilder};

/// Admits lines up to a quota, and counts the lines that are left out.
pub(super) struct Throttle<C> {
    store: MemoryStore<C>,
    quota: Quota,
    left_out: AtomicU64,
}

impl<C: Clock> Throttle<C> {
    pub(super) fn new(quota: QuotaBuilder, clock: C) -> Self {
        let quota = quota.build().expect("it is a constant");
        Self {
            store: MemoryStore::with_clock(clock).max_buckets(256),
            quota,
            left_out: AtomicU64::new(0),
        }
    }

    /// If the line is admitted, the number of lines that were left out since the last one. `None`
    /// if it is left out. Each pair of `what` and `endpoint` has a quota of its own.
    pub(super) fn admit(&self, what: &'static str, endpoint: Endpoint) -> Option<u64> {
        let principal = Principal::user(what)?;
        let entry = Entry::new(endpoint, self.quota);
        if self.store.charge(Charge::of_one(&principal, &entry)).outcome().is_admitted() {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}
