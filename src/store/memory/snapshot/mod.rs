//! Snapshots: what the buckets of a store owe, for the next process.

mod copy;
mod error;
mod format;
mod restore;
#[cfg(feature = "serde")]
mod serde;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use format::{CHECKED, Contents};

pub use error::SnapshotError;

/// What the buckets of a [`MemoryStore`](super::MemoryStore) owe at one time, their blocks and
/// their overdrafts. A process that restarts takes one before it ends, and restores it when it has
/// started: see [`MemoryStore::snapshot`](super::MemoryStore::snapshot).
///
/// ```
/// use bolna_rate_limit::store::{MemoryStore, Snapshot};
/// use bolna_rate_limit::{Account, Limiter, Policy};
///
/// let caller = Account::user("u-17");
/// let old = Limiter::default();
/// let _ruling = old.check_now(&caller, "/call");
/// let bytes = old.store().snapshot().as_bytes().to_vec();
///
/// let mut store = MemoryStore::new();
/// store.restore(&Snapshot::from_bytes(bytes)?)?;
/// assert_eq!(Limiter::with_store(Policy::default(), store)?.report().store.buckets, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Format
/// A snapshot is a sequence of bytes with a version and a checksum. A snapshot of this version can
/// be read by every later release of the crate. An earlier release refuses one of a later version,
/// with [`SnapshotError::Newer`]. The byte order and the size of words do not depend on the
/// machine.
///
/// It takes 24 bytes for each bucket that is not full, 32 for each block or overdraft, and some 100
/// besides. With the feature `serde` it can be serialized and read back: as bytes or, in formats
/// for humans such as JSON, as text of twice that length. [`as_bytes`](Self::as_bytes) needs no
/// copy.
///
/// # It is a secret
/// A snapshot contains no ids and no names. It does contain the random key by which this process
/// makes fingerprints of ids. An attacker who has the key can tell which of the ids that it knows
/// were active, and can look for ids that share a bucket. So store a snapshot as you would a
/// private key: readable only by the user that runs the service (mode 0600), and neither in a log
/// nor in a shared folder. `Debug` does not show the contents. The checksum finds damage; it does
/// not stop an attacker who can write the file.
#[derive(Clone)]
pub struct Snapshot(Vec<u8>);

impl Snapshot {
    /// The snapshot that [`as_bytes`](Self::as_bytes) has given as these bytes. It takes them over
    /// without a copy if they are a `Vec`.
    ///
    /// # Errors
    /// If the bytes are something else, are cut off or damaged, or are of a later version.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, SnapshotError> {
        let bytes = bytes.into();
        Contents::check(&bytes)?;
        Ok(Self(bytes))
    }

    /// The snapshot as bytes, to be written to a file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The wall-clock time at which it was taken. A time before 1970 or after 2554 is given as the
    /// nearest time that is not.
    #[must_use]
    pub fn taken_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.contents().taken)
    }

    /// The number of buckets in it. Those that were full are not.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.contents().tables.iter().map(|table| table.slots().len()).sum()
    }

    fn contents(&self) -> Contents<'_> {
        Contents::of(&self.0).expect(CHECKED)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes, since the key of the fingerprints is among them.
        f.debug_struct("Snapshot")
            .field("taken_at", &self.taken_at())
            .field("buckets", &self.buckets())
            .finish_non_exhaustive()
    }
}

/// A wall-clock time in nanoseconds since 1970.
fn since_epoch(time: SystemTime) -> u64 {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}
