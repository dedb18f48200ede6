//! The refusals that each thread remembers.
//!
//! If a bucket has no unit, the time of its next unit is known, and requests before that time can't
//! change it. So a thread that has refused a caller goes on to refuse without reading the bucket.
//! Under an attack over many threads, no thread writes to a cache line of another thread or waits
//! for one.

use std::cell::Cell;

use super::table::Key;
use crate::values::Id;

/// How many refusals a thread remembers, of 80 bytes each. It is enough for the few callers that
/// are refused much.
const DENIALS: usize = 16;

thread_local! {
    static DENIED: [Denial; DENIALS] = const { [const { Denial::none() }; DENIALS] };
}

struct Denial {
    /// Apart from the rest, which nearly always need not be read because the hash differs.
    hash: Cell<u64>,
    what: Cell<What>,
}

#[derive(Clone, Copy)]
struct What {
    source: Source,
    full_at: u64,
    class: u32,
    length: u8,
    id: [u8; Id::INLINE],
}

/// A store, and the number of changes of its buckets other than by time and requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) store: u64,
    pub(super) altered: u64,
}

impl Denial {
    const fn none() -> Self {
        // No store has this number.
        let source = Source { store: 0, altered: 0 };
        let what = What { source, full_at: 0, class: 0, length: 0, id: [0; Id::INLINE] };
        Self { hash: Cell::new(0), what: Cell::new(what) }
    }
}

/// If this thread has refused the caller, the earliest time at which the bucket can be full.
/// Nothing but time has filled the bucket since the refusal.
#[inline]
pub(super) fn recall(source: Source, hash: u64, key: Key<'_>) -> Option<u64> {
    DENIED.with(|denied| {
        let denial = &denied[place(hash)];
        if denial.hash.get() == hash { denial.full_at(source, key) } else { None }
    })
}

impl Denial {
    #[inline(never)]
    fn full_at(&self, source: Source, key: Key<'_>) -> Option<u64> {
        let What { source: its_source, full_at, class, length, id } = self.what.get();
        let same =
            its_source == source && class == key.class() && id[..usize::from(length)] == *key.id();
        same.then_some(full_at)
    }
}

/// Remembers a refusal, unless the id is longer than [`Id::INLINE`] bytes.
#[inline(never)]
pub(super) fn remember(source: Source, hash: u64, key: Key<'_>, full_at: u64) {
    let mut id = [0; Id::INLINE];
    if let (Ok(length), Some(place_of_id)) =
        (u8::try_from(key.id().len()), id.get_mut(..key.id().len()))
    {
        place_of_id.copy_from_slice(key.id());
        DENIED.with(|denied| {
            let denial = &denied[place(hash)];
            denial.hash.set(hash);
            denial.what.set(What { source, full_at, class: key.class(), length, id });
        });
    }
}

/// The place of a hash. Uses other bits than the choice of a shard does.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 16) as usize % DENIALS
}
