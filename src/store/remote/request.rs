//! What is sent to a server, and what it answers.

use smallvec::SmallVec;

use crate::store::{BucketState, Entry};
use crate::values::{Endpoint, Principal, Rate};

/// The entries of a charge. One fits without an allocation.
pub(super) type Entries = SmallVec<[Entry; 1]>;

/// A call: what becomes of some buckets of one principal, which are all in one slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) principal: Principal,
    /// The buckets, each once. At least one.
    pub(super) buckets: SmallVec<[Endpoint; 1]>,
    /// What is done to them, in this order. Empty if the buckets are only read.
    pub(super) runs: SmallVec<[Run; 1]>,
    /// The time after which nothing is done, in microseconds of the server's clock; 0 for none.
    pub(super) deadline: i64,
    /// The time of the call, in microseconds of the server's clock; 0 if the script asks the server
    /// for it. Negative if it is an estimate. An estimate may be behind that of another replica, so
    /// a bucket may seem to owe more than is possible. If each call corrected that, two replicas
    /// that call in turn would give units away.
    pub(super) now: i64,
    /// Whether another node of the cluster has sent the call to this one.
    pub(super) asking: bool,
}

/// What is done to buckets in one step. All buckets are buckets of the [`Request`], and all times
/// are whole microseconds, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Run {
    /// As many equal requests, one after the other, each charged to all of its buckets or to none.
    Charge { entries: Entries, count: u32 },
    /// Charges the bucket that time, even if it has less left: an overdraft of at most one refill
    /// of the rate.
    Settle { bucket: Endpoint, rate: Rate, time: u64 },
    /// Makes the bucket full that much earlier.
    Refund { bucket: Endpoint, rate: Rate, time: u64 },
    /// Fills the bucket up, and lifts its block.
    Reset { bucket: Endpoint },
    /// Blocks the bucket for that time; 0 lifts the block.
    Block { bucket: Endpoint, time: u64 },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The runs were carried out.
    Done {
        /// The time of the server, in microseconds.
        now: i64,
        /// The buckets as they were before the runs, in the order of the request. What became of
        /// each run follows from them by the law of [`Charge::apply`](crate::store::Charge::apply).
        states: SmallVec<[BucketState; 1]>,
    },
    /// The call reached the server after its deadline, and nothing was done.
    Late {
        /// The time of the server, in microseconds.
        now: i64,
    },
}
