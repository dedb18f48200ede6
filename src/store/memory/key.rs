//! The keys by which buckets are found.

use crate::values::{Endpoint, Principal};

/// The key of a bucket: 128 bits, from the [fingerprint](crate::values::Id) of the id, the
/// principal's kind and the endpoint. Two buckets have the same key with a chance of 2^-128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketKey([u64; 2]);

/// 2^64 divided by the golden ratio, which is odd: it spreads neighbouring numbers, and maps no two
/// numbers to the same one.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl BucketKey {
    pub(super) const NONE: Self = Self([0; 2]);

    #[inline]
    pub(super) fn of(principal: &Principal, endpoint: Endpoint) -> Self {
        let [first, second] = principal.id().fingerprint();
        let name = u64::from(endpoint.number()) | u64::from(principal.kind().number()) << 16;
        Self([first ^ name.wrapping_mul(GOLDEN), second])
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

    /// A number by which the bucket's shard is chosen: the same for all buckets of a principal, so
    /// that a charge needs the lock of one shard only.
    #[inline]
    pub(super) const fn shard(self) -> u64 {
        self.0[1]
    }
}
