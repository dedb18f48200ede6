//! The locks of one charge.

use std::ops::Deref;

use super::key::BucketKey;
use super::shard::{Buckets, Shard};
use super::sync::{RwLockReadGuard, RwLockWriteGuard};
use super::table::Table;
use crate::values::{Charge, Scope};

/// The shards of a charge, locked: that of its principal's buckets and, if there is an entry that
/// counts everyone and its bucket is elsewhere, that of such buckets too.
pub(super) struct Locked<'a, G> {
    first: Part<'a, G>,
    second: Option<Part<'a, G>>,
}

/// A locked shard, with the guard of its lock.
pub(super) struct Part<'a, G> {
    index: usize,
    pub(super) shard: &'a Shard,
    pub(super) buckets: G,
}

/// Shards that can be changed.
pub(super) type Writable<'a> = Locked<'a, RwLockWriteGuard<'a, Buckets>>;

/// Shards that can be looked at, while requests that charge one bucket go on.
pub(super) type Readable<'a> = Locked<'a, RwLockReadGuard<'a, Buckets>>;

impl Table {
    /// Locks the shards of a charge, to change them.
    pub(super) fn write(&self, charge: &Charge<'_>, keys: &[BucketKey]) -> Writable<'_> {
        self.lock(charge, keys, Shard::write)
    }

    /// Locks the shards of a charge, to look at them.
    pub(super) fn read(&self, charge: &Charge<'_>, keys: &[BucketKey]) -> Readable<'_> {
        self.lock(charge, keys, Shard::read)
    }

    /// Locks the shards of a charge in ascending order, so that two charges never wait for each
    /// other.
    fn lock<'a, G>(
        &'a self,
        charge: &Charge<'_>,
        keys: &[BucketKey],
        lock: impl Fn(&'a Shard) -> G,
    ) -> Locked<'a, G> {
        // All buckets of everyone are in one shard, as all of a principal are.
        let index_of = |are_everyones: bool| {
            let mut each = charge.entries().iter().zip(keys);
            let found = each.find(|it| (it.0.scope() == Scope::Everyone) == are_everyones);
            found.map(|(_, key)| self.index(*key))
        };
        let (low, high) = match (index_of(false), index_of(true)) {
            (Some(one), Some(other)) if one != other => (one.min(other), Some(one.max(other))),
            (Some(one), _) | (None, Some(one)) => (one, None),
            (None, None) => unreachable!("a charge has at least one entry"),
        };
        let part = |index| {
            let shard = self.shard_at(index);
            Part { index, shard, buckets: lock(shard) }
        };
        let first = part(low);
        Locked { first, second: high.map(part) }
    }
}

impl<G: Deref<Target = Buckets>> Locked<'_, G> {
    /// The buckets of the shard of that index, which is one of them.
    pub(super) fn buckets(&self, index: usize) -> &Buckets {
        match &self.second {
            Some(second) if second.index == index => &second.buckets,
            _ => &self.first.buckets,
        }
    }
}

impl<'a> Writable<'a> {
    /// The buckets of the shard of that index, which is one of them, to be changed.
    pub(super) fn buckets_mut(&mut self, index: usize) -> &mut Buckets {
        match &mut self.second {
            Some(second) if second.index == index => &mut second.buckets,
            _ => &mut self.first.buckets,
        }
    }

    /// Makes void the refusals by these shards that threads remember: see [`Shard::alter`].
    pub(super) fn alter(&self) {
        for part in [&self.first].into_iter().chain(&self.second) {
            part.shard.alter(&part.buckets);
        }
    }

    pub(super) fn parts(
        &mut self,
    ) -> impl Iterator<Item = &mut Part<'a, RwLockWriteGuard<'a, Buckets>>> {
        [&mut self.first].into_iter().chain(&mut self.second)
    }
}

impl<G> Part<'_, G> {
    pub(super) const fn index(&self) -> usize {
        self.index
    }
}
