//! What is sent to a server, and what it answers.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::store::{BucketState, Charge, Entry};
use crate::values::{OwnedBucket, Principal, Rate, Scope};

/// What one request of a principal is charged: the entries of its charge, each measured in whole
/// microseconds, as the server does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entries {
    /// The user within the principal, if an entry counts each user. So the requests of two users
    /// that are charged to the same buckets are equal.
    user: Option<Arc<Principal>>,
    /// One fits without an allocation.
    list: SmallVec<[Entry; 1]>,
}

impl Entries {
    pub(super) fn of(charge: &Charge<'_>) -> Self {
        let entries = charge.entries();
        let counts_users = entries.iter().any(|entry| entry.scope() == Scope::User);
        let in_micros = |entry: &Entry| entry.counted_in(entry.rate().in_whole_micros());
        Self {
            user: charge.user().filter(|_| counts_users).cloned().map(Arc::new),
            list: entries.iter().map(in_micros).collect(),
        }
    }

    pub(super) fn as_slice(&self) -> &[Entry] {
        &self.list
    }

    /// The charge, as one of that principal.
    pub(super) fn charge<'a>(&'a self, principal: &'a Principal) -> Charge<'a> {
        Charge::of(principal, self.user.as_deref(), &self.list)
    }

    /// The buckets, in the order of the entries.
    pub(super) fn buckets<'a>(
        &'a self,
        principal: &'a Principal,
    ) -> impl Iterator<Item = OwnedBucket> + use<'a> {
        self.charge(principal).buckets().map(OwnedBucket::of)
    }
}

/// Of accounts and everyone, measured in whole microseconds already.
#[cfg(test)]
impl From<&[Entry]> for Entries {
    fn from(entries: &[Entry]) -> Self {
        Self { user: None, list: entries.into() }
    }
}

#[cfg(test)]
impl<const N: usize> From<[Entry; N]> for Entries {
    fn from(entries: [Entry; N]) -> Self {
        entries.as_slice().into()
    }
}

/// A call: what becomes of some buckets of one principal, which are all in one slot. Buckets of
/// everyone are in another slot, but then there is one server only.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) principal: Principal,
    /// The buckets, each once. At least one.
    pub(super) buckets: SmallVec<[OwnedBucket; 1]>,
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
    Settle { bucket: OwnedBucket, rate: Rate, time: u64 },
    /// Makes the bucket full that much earlier.
    Refund { bucket: OwnedBucket, rate: Rate, time: u64 },
    /// Fills the bucket up, and lifts its block.
    Reset { bucket: OwnedBucket },
    /// Blocks the bucket for that time; 0 lifts the block.
    Block { bucket: OwnedBucket, time: u64 },
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
