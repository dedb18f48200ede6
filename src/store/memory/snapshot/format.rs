//! The bytes of a snapshot.
//!
//! They are words of 64 bits, the lowest byte first:
//!
//! | words | |
//! |---|---|
//! | 1 | `bolna-rl` |
//! | 1 | the version, 1 |
//! | 1 | the wall-clock time, in nanoseconds since 1970 |
//! | 2 | the key of the fingerprints |
//! | 6 | the numbers of buckets, exceptions and shared buckets: of accounts, then of addresses |
//! | 3 each | the buckets: the key, and the time until it is full |
//! | 4 each | the exceptions: the key, how much longer it is blocked, and its overdraft |
//! | 6 each | the shared buckets: see [`SharedRecord`] |
//! | | the same three for addresses |
//! | 2 | a checksum of all the words before it |
//!
//! All times but the first are in nanoseconds from then on. A format is never changed in place:
//! what has to change takes a new version, and every version can be read for ever.

use std::array;

use super::SnapshotError;
use crate::values::{Quota, Rate, Scope, checksum};

/// The version of the format that is written.
pub(super) const VERSION: u64 = 1;

/// Why what was checked before can't fail.
pub(super) const CHECKED: &str = "a snapshot was checked when it was made";

/// The longest time that a bucket can owe, in nanoseconds: a full refill of the slowest quota, and
/// an overdraft of as much.
pub(super) const LONGEST: u64 = Quota::MAX_REFILL_TIME.as_secs() * 1_000_000_000 * 2;

const MAGIC: [u8; 8] = *b"bolna-rl";

/// The size of a word, in bytes.
const WORD: usize = 8;

/// The number of tables: that of accounts, and that of addresses.
const TABLES: usize = 2;

/// The words before the buckets.
const HEADER: usize = 5 + 3 * TABLES;

/// The words of the checksum.
const CHECKSUM: usize = 2;

pub(super) type SlotRecord = [u64; 3];
pub(super) type ExceptionRecord = [u64; 4];

/// The hash of the limit's name, its scope, the interval and the burst of the quota (0 and 0 for
/// none), the time until the bucket is full, and the longest refill that it was measured by.
pub(super) type SharedRecord = [u64; 6];

/// The bytes while they are written.
pub(super) struct Writer {
    bytes: Vec<u8>,
    counts: Vec<usize>,
}

impl Writer {
    /// The snapshot of that wall-clock time by that key, which will have some `buckets`.
    pub(super) fn new(taken: u64, key: [u64; 2], buckets: usize) -> Self {
        let room = buckets * size_of::<SlotRecord>() + (HEADER + CHECKSUM) * WORD;
        let mut writer = Self { bytes: Vec::with_capacity(room), counts: Vec::new() };
        writer.bytes.extend_from_slice(&MAGIC);
        writer.words([VERSION, taken, key[0], key[1]]);
        writer.words([0; 3 * TABLES]);
        writer
    }

    pub(super) fn words<const N: usize>(&mut self, words: [u64; N]) {
        for word in words {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Notes how many records were written.
    pub(super) fn count(&mut self, records: usize) {
        self.counts.push(records);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let at = (HEADER - 3 * TABLES) * WORD;
        for (place, count) in self.bytes[at..].chunks_exact_mut(WORD).zip(&self.counts) {
            place.copy_from_slice(&(*count as u64).to_le_bytes());
        }
        let checksum = checksum(&self.bytes);
        self.words(checksum);
        self.bytes
    }
}

/// The parts of a snapshot.
pub(super) struct Contents<'a> {
    pub(super) taken: u64,
    pub(super) key: [u64; 2],
    /// That of accounts, and that of addresses.
    pub(super) tables: [TableContents<'a>; TABLES],
}

#[derive(Clone, Copy, Default)]
pub(super) struct TableContents<'a> {
    slots: &'a [u8],
    exceptions: &'a [u8],
    shared: &'a [u8],
}

impl<'a> Contents<'a> {
    /// Checks that the bytes are a snapshot, whole and undamaged.
    ///
    /// # Errors
    /// If they are not.
    pub(super) fn check(bytes: &[u8]) -> Result<(), SnapshotError> {
        let contents = Contents::of(bytes)?;
        let (checked, end) = bytes.split_at(bytes.len() - CHECKSUM * WORD);
        let is_whole = records(end).eq([checksum(checked)]);
        let is_valid = || contents.tables.iter().all(TableContents::is_valid);
        if is_whole && is_valid() { Ok(()) } else { Err(SnapshotError::Damaged) }
    }

    /// The parts. Their contents are not checked.
    ///
    /// # Errors
    /// If the header and the length are not those of a snapshot.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let begin = bytes.len().min(WORD);
        if bytes[..begin] != MAGIC[..begin] {
            return Err(SnapshotError::Foreign);
        }
        let cut_off = |expected: usize| SnapshotError::Truncated {
            bytes: bytes.len(),
            expected: expected as u64,
        };
        let least = (HEADER + CHECKSUM) * WORD;
        // The version comes first, since the header of a later one may be another.
        match bytes.get(WORD..2 * WORD).map(word) {
            None => return Err(cut_off(least)),
            Some(0) => return Err(SnapshotError::Damaged),
            Some(version) if version > VERSION => return Err(SnapshotError::Newer { version }),
            Some(_) if bytes.len() < least => return Err(cut_off(least)),
            Some(_) => {}
        }
        let (header, mut rest) = bytes.split_at(HEADER * WORD);
        let header: [u64; HEADER] = array::from_fn(|index| word(&header[index * WORD..]));
        let [_, _, taken, first, second, counts @ ..] = header;
        let sizes = [3, 4, 6, 3, 4, 6].map(|words| words * WORD as u64);
        let lengths: [Option<u64>; 6] = array::from_fn(|at| counts[at].checked_mul(sizes[at]));
        let expected = lengths.iter().try_fold(least as u64, |sum, more| sum.checked_add((*more)?));
        let Some(expected) = expected else { return Err(SnapshotError::Damaged) };
        match (bytes.len() as u64).cmp(&expected) {
            std::cmp::Ordering::Less => {
                return Err(SnapshotError::Truncated { bytes: bytes.len(), expected });
            }
            std::cmp::Ordering::Greater => return Err(SnapshotError::Damaged),
            std::cmp::Ordering::Equal => {}
        }
        let mut part = |index: usize| {
            // It is part of the length that was compared, so it fits.
            let length = lengths[index].and_then(|length| usize::try_from(length).ok());
            let (part, more) = rest.split_at(length.unwrap_or(0));
            rest = more;
            part
        };
        let mut table = |first| TableContents {
            slots: part(first),
            exceptions: part(first + 1),
            shared: part(first + 2),
        };
        let tables = [table(0), table(3)];
        Ok(Self { taken, key: [first, second], tables })
    }
}

impl<'a> TableContents<'a> {
    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = SlotRecord> + use<'a> {
        records(self.slots)
    }

    pub(super) fn exceptions(&self) -> impl ExactSizeIterator<Item = ExceptionRecord> + use<'a> {
        records(self.exceptions)
    }

    pub(super) fn shared(&self) -> impl ExactSizeIterator<Item = SharedRecord> + use<'a> {
        records(self.shared)
    }

    fn is_valid(&self) -> bool {
        self.slots().all(|[.., debt]| debt <= LONGEST)
            && self.exceptions().all(|[.., blocked, overdraft]| blocked.max(overdraft) <= LONGEST)
            && self.shared().all(|[_, scope, interval, burst, debt, longest]| {
                let rate = rate_of(interval, burst).is_some();
                scope_of(scope).is_some() && rate && debt.max(longest) <= LONGEST
            })
    }
}

/// The number of a scope.
pub(super) const fn scope_number(scope: Scope) -> u64 {
    match scope {
        Scope::Account => 0,
        Scope::User => 1,
        Scope::Everyone => 2,
        Scope::Address => 3,
    }
}

/// The scope of that number, if there is one.
pub(super) const fn scope_of(number: u64) -> Option<Scope> {
    Some(match number {
        0 => Scope::Account,
        1 => Scope::User,
        2 => Scope::Everyone,
        3 => Scope::Address,
        _ => return None,
    })
}

/// The rate of that interval and burst, or that there is none. `None` if there can't be such a
/// rate.
pub(super) fn rate_of(interval: u64, burst: u64) -> Option<Option<Rate>> {
    if (interval, burst) == (0, 0) {
        return Some(None);
    }
    Rate::checked(interval, u32::try_from(burst).ok()?).map(Some)
}

fn records<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u64; N]> + use<'_, N> {
    bytes.chunks_exact(N * WORD).map(|record| array::from_fn(|index| word(&record[index * WORD..])))
}

/// The first word.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word.copy_from_slice(&bytes[..WORD]);
    u64::from_le_bytes(word)
}
