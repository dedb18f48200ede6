//! Fingerprints of ids.
//!
//! A store in this process keeps the fingerprint of an id instead of the id, so two ids with the
//! same fingerprint would share a bucket. The fingerprint is a pseudo-random function of the id
//! with a key that no caller knows, so a caller can't choose an id that has the fingerprint of
//! another. Among a billion ids, the chance that any two have the same is below 2^-68.
//!
//! The function is part of the format of snapshots, so it never changes.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use siphasher::sip128::SipHasher13;

/// The key of this process, by which ids are made.
static PROCESS: OnceLock<FingerprintKey> = OnceLock::new();

/// A key of fingerprints. It is a secret.
#[derive(Clone, Copy)]
pub(crate) struct FingerprintKey(SipHasher13);

impl FingerprintKey {
    pub(crate) fn new([first, second]: [u64; 2]) -> Self {
        Self(SipHasher13::new_with_keys(first, second))
    }

    /// The key of this process: a random one, unless another was [adopted](Self::adopt).
    #[inline]
    pub(crate) fn of_process() -> &'static Self {
        PROCESS.get_or_init(Self::random)
    }

    /// Makes this the key of the process, unless that has a key already. Returns whether this is
    /// the key of the process.
    pub(crate) fn adopt(self) -> bool {
        PROCESS.get_or_init(|| self).numbers() == self.numbers()
    }

    /// The key in two numbers.
    pub(crate) fn numbers(&self) -> [u64; 2] {
        let (first, second) = self.0.keys();
        [first, second]
    }

    /// The fingerprint of an id.
    #[inline]
    pub(crate) fn fingerprint(&self, id: &[u8]) -> [u64; 2] {
        let hash = self.0.hash(id);
        [hash.h1, hash.h2]
    }

    fn random() -> Self {
        // Both numbers are pseudo-random functions of a seed from the operating system.
        let seed = RandomState::new();
        Self::new([seed.hash_one(0), seed.hash_one(1)])
    }
}

/// The fingerprint of an id by the key of this process.
pub(super) fn of(id: &[u8]) -> [u64; 2] {
    FingerprintKey::of_process().fingerprint(id)
}

/// A checksum, which finds damage. It is not secret, so it proves nothing about who made the bytes.
pub(crate) fn checksum(bytes: &[u8]) -> [u64; 2] {
    let hash = SipHasher13::new_with_keys(0, 0).hash(bytes);
    [hash.h1, hash.h2]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{FingerprintKey, of};

    #[test]
    fn equal_ids_have_the_same_fingerprint_and_others_another() {
        assert_eq!(of(b"org-4"), of("org-4".as_bytes()));
        let all: HashSet<_> = (0..100_000).map(|number: u32| of(&number.to_ne_bytes())).collect();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn a_process_that_has_made_ids_adopts_no_other_key() {
        let before = of(b"org-4");
        let process = FingerprintKey::of_process();
        let [first, second] = process.numbers();
        assert!(!FingerprintKey::new([!first, second]).adopt());
        assert!(FingerprintKey::new([first, second]).adopt());
        assert_eq!(of(b"org-4"), before);
    }
}
