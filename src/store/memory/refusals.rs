//! The refusals that each thread remembers.
//!
//! As long as a bucket is not changed, the time at which it is full decides about all requests. So
//! a thread that has refused a caller remembers that time, and goes on to refuse without reading
//! the bucket. Under an attack over many threads, no thread writes to a cache line of another
//! thread or waits for one.
//!
//! A refusal is void as soon as any bucket of its shard is changed: see
//! [`Shard::alter`](super::shard::Shard::alter).

use std::cell::Cell;

use super::key::BucketKey;
use super::shard::Shard;

/// How many refusals a thread remembers, of 32 bytes each. It is enough for the few callers that
/// are refused much.
const REFUSALS: usize = 16;

#[cfg(not(bolna_loom))]
thread_local! {
    static REMEMBERED: [Cell<Refusal>; REFUSALS] =
        const { [const { Cell::new(Refusal::NONE) }; REFUSALS] };
}

#[cfg(bolna_loom)]
loom::thread_local! {
    static REMEMBERED: [Cell<Refusal>; REFUSALS] =
        [const { Cell::new(Refusal::NONE) }; REFUSALS];
}

#[derive(Clone, Copy)]
struct Refusal {
    key: BucketKey,
    /// The [version](super::shard::Shard::version) of the shard. No shard has version 0, so a
    /// refusal of that version is one that was only seen.
    version: u64,
    tat: u64,
}

impl Refusal {
    const NONE: Self = Self { key: BucketKey::NONE, version: 0, tat: 0 };
}

/// The time at which the bucket is full, if this thread remembers it and no bucket of the shard has
/// changed since.
#[inline]
pub(super) fn recall(key: BucketKey, shard: &Shard) -> Option<u64> {
    with(key, |refusal| {
        let refusal = refusal.get();
        // The version is on a cache line that nearly always need not be read, since the key
        // differs.
        (refusal.key == key && refusal.version == shard.version()).then_some(refusal.tat)
    })
    .flatten()
}

/// Notes that a request for the bucket was refused. Returns whether the last such request of this
/// thread was for the same bucket, so that it is worth remembering.
pub(super) fn seen(key: BucketKey) -> bool {
    with(key, |refusal| refusal.replace(Refusal { key, ..Refusal::NONE }).key == key)
        .unwrap_or_default()
}

/// Remembers the time at which the bucket is full.
pub(super) fn remember(key: BucketKey, version: u64, tat: u64) {
    with(key, |refusal| refusal.set(Refusal { key, version, tat }));
}

/// A thread that is ending remembers nothing.
#[inline]
fn with<R>(key: BucketKey, look: impl FnOnce(&Cell<Refusal>) -> R) -> Option<R> {
    let place = key.place(REFUSALS);
    REMEMBERED.try_with(|remembered| look(&remembered[place])).ok()
}
