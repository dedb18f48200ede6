//! Why a snapshot can't be restored.

use std::error::Error;
use std::fmt;

use super::format::VERSION;

/// Why bytes are not a [`Snapshot`](super::Snapshot), or why a store can't restore one. Nothing was
/// changed.
///
/// ```
/// use bolna_rate_limit::store::{MemoryStore, Snapshot, SnapshotError};
///
/// /// Starts with full buckets if the file is unusable, but not if it is the wrong file.
/// fn restored(file: Vec<u8>) -> Result<MemoryStore, SnapshotError> {
///     let mut store = MemoryStore::new();
///     match Snapshot::from_bytes(file).and_then(|snapshot| store.restore(&snapshot)) {
///         Err(error @ (SnapshotError::Truncated { .. } | SnapshotError::Damaged)) => {
///             eprintln!("the limits start anew: {error}");
///         }
///         result => result?,
///     }
///     Ok(store)
/// }
/// assert_eq!(restored(b"[limits]".to_vec()).unwrap_err(), SnapshotError::Foreign);
/// let cut = MemoryStore::new().snapshot().as_bytes()[..50].to_vec();
/// assert!(restored(cut).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are not a snapshot at all.
    Foreign,
    /// The snapshot was taken by a later release of the crate, in a version of the format that this
    /// release does not know.
    #[non_exhaustive]
    Newer {
        /// The version of the snapshot's format.
        version: u64,
    },
    /// The end of the snapshot is missing: the process ended while it was written, or the disk was
    /// full.
    #[non_exhaustive]
    Truncated {
        /// How many bytes there are.
        bytes: usize,
        /// How many there have to be, at least.
        expected: u64,
    },
    /// The bytes have changed since the snapshot was taken.
    Damaged,
    /// The store has counted requests already.
    #[non_exhaustive]
    InUse {
        /// How many buckets, blocks and overdrafts it keeps.
        buckets: usize,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str(
                "the bytes are not a snapshot of a store: they do not begin as one; check which \
                 file was read",
            ),
            Self::Newer { version } => write!(
                f,
                "the snapshot is of version {version}, and this release reads versions up to \
                 {VERSION}: it was taken by a later release, so use that one or start without it"
            ),
            Self::Truncated { bytes, expected } => write!(
                f,
                "the snapshot is cut off: it has {bytes} bytes and needs {expected}; write it to \
                 another file first, and rename that when it is complete"
            ),
            Self::Damaged => f.write_str(
                "the snapshot is damaged: its contents do not match its checksum, or make no \
                 sense; start without it",
            ),
            Self::InUse { buckets } => write!(
                f,
                "the store keeps {buckets} buckets already: restore a snapshot before the store \
                 counts requests"
            ),
        }
    }
}

impl Error for SnapshotError {}
