//! The refusals that each thread has used last.
//!
//! Under an attack over many threads, no thread writes to a cache line of another thread or waits
//! for one.

use std::cell::{Cell, RefCell};

use super::denial::Denial;
use crate::store::Entry;
use crate::values::{Decision, Principal};

/// How many refusals a thread remembers.
const MOST: usize = 16;

thread_local! {
    static RECENT: [Recent; MOST] = const { [const { Recent::none() }; MOST] };
}

struct Recent {
    /// Apart from the rest, which nearly always need not be read because the hash differs.
    hash: Cell<u64>,
    what: RefCell<Option<(Source, Denial)>>,
}

/// A cache, and the number of its corrections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) cache: u64,
    pub(super) corrections: u64,
}

impl Recent {
    const fn none() -> Self {
        Self { hash: Cell::new(0), what: RefCell::new(None) }
    }

    #[inline]
    fn look(
        &self,
        source: Source,
        principal: &Principal,
        entry: &Entry,
        now: u64,
    ) -> Option<Decision> {
        let what = self.what.borrow();
        let (its_source, denial) = what.as_ref()?;
        let same = *its_source == source && denial.is_of(principal, entry.name());
        if same { denial.refuses(entry.limit(), now) } else { None }
    }
}

#[inline]
pub(super) fn recall(
    source: Source,
    hash: u64,
    principal: &Principal,
    entry: &Entry,
    now: u64,
) -> Option<Decision> {
    let look = |recent: &[Recent; MOST]| {
        let recent = &recent[place(hash)];
        if recent.hash.get() == hash { recent.look(source, principal, entry, now) } else { None }
    };
    // A thread that is ending remembers nothing.
    RECENT.try_with(look).ok().flatten()
}

pub(super) fn remember(source: Source, hash: u64, denial: Denial) {
    let _ = RECENT.try_with(|recent| {
        let recent = &recent[place(hash)];
        recent.hash.set(hash);
        recent.what.replace(Some((source, denial)));
    });
}

/// The place of a hash. Uses other bits than the choice of a shard does.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 16) as usize % MOST
}
