//! A table by principal, in shards that have a lock each.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;

use crate::values::Principal;

const SHARDS: usize = 64;

/// What a store keeps for some principals, until it is sent to a server.
#[derive(Debug)]
pub(super) struct ByPrincipal<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    hasher: RandomState,
    /// The shard that [`some`](Self::some) begins with.
    hand: AtomicUsize,
}

pub(super) type Shard<V> = HashMap<Principal, V, RandomState>;

impl<V> ByPrincipal<V> {
    pub(super) fn new() -> Self {
        let hasher = RandomState::default();
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone())));
        Self { shards: shards.collect(), hasher, hand: AtomicUsize::new(0) }
    }

    /// The shard of a principal, locked.
    pub(super) fn shard(&self, principal: &Principal) -> MutexGuard<'_, Shard<V>> {
        // Not the lowest or highest bits: the hash table of the shard uses them.
        lock(&self.shards[(self.hasher.hash_one(principal) >> 32) as usize % SHARDS])
    }

    /// At most `most` of the principals that are in the table and `wanted`. Each call begins with
    /// another shard.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(super) fn some(&self, most: usize, wanted: impl Fn(&Principal) -> bool) -> Vec<Principal> {
        let mut found = Vec::new();
        if most == 0 {
            return found;
        }
        let first = self.hand.fetch_add(1, Ordering::Relaxed);
        for number in 0..SHARDS {
            let shard = lock(&self.shards[(first + number) % SHARDS]);
            let left = most - found.len();
            found.extend(shard.keys().filter(|principal| wanted(principal)).take(left).cloned());
            if found.len() == most {
                break;
            }
        }
        // In an order that does not depend on the hasher, so that a simulated run repeats itself.
        found.sort_unstable();
        found
    }
}

/// Ignores poisoning: a panic leaves the table valid.
fn lock<V>(shard: &Mutex<Shard<V>>) -> MutexGuard<'_, Shard<V>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
