//! Locks and atomics, and a cell for a bucket.
//!
//! With `--cfg bolna_loom` they are those of [loom](https://docs.rs/loom), which runs a test once
//! for each order in which threads can take their steps. Then the cell is one of our own, since
//! governor's does not know loom. It keeps to the same contract.

#[cfg(not(bolna_loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(bolna_loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(not(bolna_loom))]
pub(super) use governor::state::InMemoryState as Cell;

#[cfg(bolna_loom)]
#[derive(Default)]
pub(super) struct Cell(AtomicU64);

#[cfg(bolna_loom)]
impl governor::state::StateStore for Cell {
    type Key = governor::state::NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &Self::Key, f: F) -> Result<T, E>
    where
        F: Fn(Option<governor::nanos::Nanos>) -> Result<(T, governor::nanos::Nanos), E>,
    {
        use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

        let mut seen = self.0.load(Acquire);
        loop {
            let (result, new) = f((seen != 0).then(|| seen.into()))?;
            match self.0.compare_exchange(seen, new.as_u64(), Release, Relaxed) {
                Ok(_) => return Ok(result),
                Err(other) => seen = other,
            }
        }
    }
}
