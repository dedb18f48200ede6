//! Fingerprints of ids.
//!
//! A store in this process keeps the fingerprint of an id instead of the id, so two ids with the
//! same fingerprint would share a bucket. The fingerprint is a pseudo-random function of the id
//! with a key that no caller knows, so a caller can't choose an id that has the fingerprint of
//! another. Among a billion ids, the chance that any two have the same is below 2^-68.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use siphasher::sip128::SipHasher13;

/// The key of this process.
static KEY: LazyLock<SipHasher13> = LazyLock::new(|| {
    // Both numbers are pseudo-random functions of a seed from the operating system.
    let seed = RandomState::new();
    SipHasher13::new_with_keys(seed.hash_one(0), seed.hash_one(1))
});

/// The fingerprint of an id.
pub(super) fn of(id: &[u8]) -> [u64; 2] {
    let hash = KEY.hash(id);
    [hash.h1, hash.h2]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::of;

    #[test]
    fn equal_ids_have_the_same_fingerprint_and_others_another() {
        assert_eq!(of(b"org-4"), of("org-4".as_bytes()));
        let all: HashSet<_> = (0..100_000).map(|number: u32| of(&number.to_ne_bytes())).collect();
        assert_eq!(all.len(), 100_000);
    }
}
