//! What the thread remembers of callers that it has refused.
//!
//! A bucket that has no unit has none until a time that is known, whoever asks for one. So a thread
//! that has refused a caller goes on to without looking at the bucket: under an attack on many
//! threads none of them writes, or waits for, a cache line of another.

use std::cell::Cell;

use super::table::Key;
use crate::principal::Id;

/// How many a thread remembers: those who are refused much, at 72 bytes each.
const DENIALS: usize = 16;

thread_local! {
    static DENIED: [Denial; DENIALS] = const { [const { Denial::none() }; DENIALS] };
}

struct Denial {
    /// Apart, since it nearly always tells that the rest need not be looked at.
    hash: Cell<u64>,
    what: Cell<What>,
}

#[derive(Clone, Copy)]
struct What {
    source: Source,
    full_at: u64,
    class: u16,
    length: u8,
    id: [u8; Id::INLINE],
}

/// A store, and how often buckets have been changed in it by other means than time and requests.
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

/// When the bucket of a caller that this thread has refused will be full, at the least: nothing but
/// time has filled it since.
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

/// Remembers a refusal, unless the id is a long one.
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

/// By other bits than those that choose a shard.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 16) as usize % DENIALS
}
