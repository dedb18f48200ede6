//! The keys by which buckets are found.

use crate::values::{Bucket, FingerprintKey, Id, Kind, LimitName, Principal};

/// The key of a bucket: 128 bits, from the [fingerprints](crate::values::Id) of the ids of
/// principal and user, their kinds, and the name of the limit. Two buckets have the same key with a
/// chance of 2^-128, or 2^-112 if they belong to users of one principal, or 2^-64 if they differ in
/// kinds and limit alone.
///
/// A key depends on nothing of the process but the key of the fingerprints. It is part of the
/// format of snapshots, so it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketKey([u64; 2]);

/// 2^64 divided by the golden ratio, which is odd: it spreads neighbouring numbers, and maps no two
/// numbers to the same one.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The lowest bits of a key's second half, which choose the shard.
const SHARD_BITS: u32 = 16;

/// Makes the keys of a table's buckets.
#[derive(Clone, Default)]
pub(super) struct Keys {
    /// The key of the fingerprints, if it is not that of the process: then the fingerprints that
    /// ids hold are of no use, and each request computes its own. Boxed, since it is rarely there.
    own: Option<Box<FingerprintKey>>,
}

impl Keys {
    /// Keys made with the fingerprints of that key. If ids were not made before, they are made with
    /// it from now on, in the whole process.
    pub(super) fn adopt(fingerprints: FingerprintKey) -> Self {
        Self { own: (!fingerprints.adopt()).then(|| Box::new(fingerprints)) }
    }

    /// The key of the fingerprints.
    pub(super) fn fingerprints(&self) -> FingerprintKey {
        self.own.as_deref().copied().unwrap_or_else(|| *FingerprintKey::of_process())
    }

    /// Whether the fingerprints that ids hold are of no use.
    pub(super) fn are_own(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn of(&self, bucket: &Bucket<'_>) -> BucketKey {
        let (principal, name) = (bucket.principal(), bucket.name());
        let own = BucketKey::new_for(self.fingerprint(principal.id()), principal.kind(), name);
        match bucket.user() {
            None => own,
            Some(user) => own.of_user(self.fingerprint(user.id()), user.kind().hash()),
        }
    }

    #[inline]
    fn fingerprint(&self, id: &Id) -> [u64; 2] {
        match &self.own {
            None => id.fingerprint(),
            Some(own) => compute(own, id),
        }
    }
}

#[cold]
#[inline(never)]
fn compute(fingerprints: &FingerprintKey, id: &Id) -> [u64; 2] {
    fingerprints.fingerprint(id.as_bytes())
}

impl BucketKey {
    pub(super) const NONE: Self = Self([0; 2]);

    /// The key of an account's bucket, by the fingerprint that its id holds. In a table whose keys
    /// [are its own](Keys::are_own), no bucket has it.
    #[inline]
    pub(super) fn of_account(principal: &Principal, name: LimitName) -> Self {
        Self::new_for(principal.id().fingerprint(), principal.kind(), name)
    }

    #[inline]
    fn new_for([first, second]: [u64; 2], kind: Kind, name: LimitName) -> Self {
        Self([first ^ name.hash() ^ kind.hash().wrapping_mul(GOLDEN), second])
    }

    pub(super) const fn new(numbers: [u64; 2]) -> Self {
        Self(numbers)
    }

    pub(super) const fn numbers(self) -> [u64; 2] {
        self.0
    }

    /// The key of a user's bucket. The lowest bits, which choose the shard, stay the same.
    const fn of_user(self, [first, second]: [u64; 2], kind: u64) -> Self {
        // Other multiples than those of the principal, so that a user and a principal of the same
        // id and kind do not cancel out.
        Self([
            self.0[0] ^ first.wrapping_mul(GOLDEN) ^ kind.rotate_left(32),
            self.0[1] ^ second.wrapping_mul(GOLDEN) << SHARD_BITS,
        ])
    }

    /// The hash by which a shard's tables place the bucket.
    #[inline]
    pub(super) const fn hash(self) -> u64 {
        self.0[0]
    }

    /// One of that many places, a power of two.
    #[inline]
    pub(super) const fn place(self, places: usize) -> usize {
        // Neither the lowest bits of the hash, which are alike for buckets of one principal, nor
        // the highest, by which the tables tell buckets apart.
        (self.0[0] >> 32) as usize & (places - 1)
    }

    /// A number by which the bucket's shard is chosen: the same for all buckets of a principal and
    /// its users, so that a charge needs the lock of that shard, and if it has buckets of everyone
    /// one more.
    #[inline]
    pub(super) const fn shard(self) -> u64 {
        self.0[1]
    }
}
