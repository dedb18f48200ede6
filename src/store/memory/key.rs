//! The keys by which buckets are found.

use crate::values::{Bucket, LimitName, Principal};

/// The key of a bucket: 128 bits, from the [fingerprints](crate::values::Id) of the ids of
/// principal and user, their kinds, and the name of the limit. Two buckets have the same key with a
/// chance of 2^-128, or 2^-112 if they belong to users of one principal, or 2^-64 if they differ in
/// kinds and limit alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketKey([u64; 2]);

/// 2^64 divided by the golden ratio, which is odd: it spreads neighbouring numbers, and maps no two
/// numbers to the same one.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The lowest bits of a key's second half, which choose the shard.
const SHARD_BITS: u32 = 16;

impl BucketKey {
    pub(super) const NONE: Self = Self([0; 2]);

    #[inline]
    pub(super) fn of_account(principal: &Principal, name: LimitName) -> Self {
        let [first, second] = principal.id().fingerprint();
        let kind = principal.kind().hash().wrapping_mul(GOLDEN);
        Self([first ^ name.hash() ^ kind, second])
    }

    pub(super) fn of(bucket: &Bucket<'_>) -> Self {
        let own = Self::of_account(bucket.principal(), bucket.name());
        match bucket.user() {
            None => own,
            Some(user) => own.of_user(user.id().fingerprint(), user.kind().hash()),
        }
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
