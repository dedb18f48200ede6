//! Instructions to a store, other than checks.

use std::time::Duration;

#[cfg(feature = "redis")]
use crate::values::Principal;
use crate::values::{Bucket, Charge, Decisions};

/// An instruction to a store, other than a check: from an operator, or from a program that knows
/// only after a request what it used.
///
/// More commands may be added. A store answers one that it does not know with
/// [`StoreError::unsupported`](super::StoreError::unsupported).
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::{Bucket, Charge, Command, Entry, MemoryStore, Reply, Store};
/// use bolna_rate_limit::{Endpoint, Principal, Quota};
///
/// # tokio_test::block_on(async {
/// let store = MemoryStore::new();
/// let caller = Principal::user("u-17").expect("the id is not empty");
/// let bucket = Bucket::of_account(&caller, Endpoint::CALL);
/// let reply = store.command(Command::block(bucket, Duration::from_secs(60))).await?;
/// assert_eq!(reply, Reply::Done);
///
/// let entry = Entry::new(Endpoint::CALL, Quota::per_minute(500).build()?);
/// let reply = store.command(Command::Peek(Charge::of_one(&caller, &entry))).await?;
/// let decisions = reply.into_decisions().expect("the reply to a peek has decisions");
/// assert!(decisions.first().is_blocked());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Command<'a> {
    /// Says what a check of the charge would decide now. Nothing is charged or changed: a bucket
    /// that has to be corrected, after a change of quota or because the clock went back, is
    /// corrected by the next check. The reply has [decisions](Reply::Decisions).
    Peek(Charge<'a>),
    /// Gives the cost of each entry back to its bucket, at most until the bucket is full.
    ///
    /// What is given back is time: the time in which as many units come back by the quota of the
    /// entry. So a drained bucket then admits exactly that many units, and a change of plan between
    /// the charge and the refund does not matter. An overdraft is repaid first. A bucket whose time
    /// until full is more than a full refill and its overdraft is corrected to that first. A block
    /// stays.
    Refund(Charge<'a>),
    /// Charges each bucket its cost, even if the bucket does not hold it, because the units were
    /// used already. What the bucket did not hold is its overdraft, which is one burst at most and
    /// is repaid before the bucket holds units again.
    Settle(Charge<'a>),
    /// Fills a bucket up, overdraft included, and lifts its block, if there is one.
    Reset(Bucket<'a>),
    /// Blocks a bucket: every request that it is charged for is refused from now on and for
    /// `period`, whatever the quota.
    ///
    /// The bucket goes on refilling meanwhile. Requests that are refused because of the block are
    /// not charged. A zero `period` lifts the block, and a later block replaces an earlier one.
    #[non_exhaustive]
    Block {
        /// The bucket.
        bucket: Bucket<'a>,
        /// For how long. At most [`Quota::MAX_REFILL_TIME`](crate::Quota::MAX_REFILL_TIME).
        period: Duration,
    },
}

impl<'a> Command<'a> {
    /// [Blocks](Self::Block) a bucket. Periods longer than
    /// [`Quota::MAX_REFILL_TIME`](crate::Quota::MAX_REFILL_TIME) are clamped to it.
    #[must_use]
    pub fn block(bucket: Bucket<'a>, period: Duration) -> Self {
        Self::Block { bucket, period: period.min(crate::Quota::MAX_REFILL_TIME) }
    }

    /// The command as a word, for messages: `peek`, `refund`, `settle`, `reset` or `block`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Peek(_) => "peek",
            Self::Refund(_) => "refund",
            Self::Settle(_) => "settle",
            Self::Reset(_) => "reset",
            Self::Block { .. } => "block",
        }
    }

    /// The principal whose buckets the command is about.
    #[cfg(feature = "redis")]
    pub(super) const fn principal(&self) -> &'a Principal {
        match *self {
            Self::Peek(charge) | Self::Refund(charge) | Self::Settle(charge) => charge.principal(),
            Self::Reset(bucket) | Self::Block { bucket, .. } => bucket.principal(),
        }
    }

    /// The buckets that the command may change.
    pub(super) fn changes(&self) -> impl Iterator<Item = Bucket<'a>> + use<'a> {
        let (charge, bucket) = match *self {
            Self::Peek(_) => (None, None),
            Self::Refund(charge) | Self::Settle(charge) => (Some(charge), None),
            Self::Reset(bucket) | Self::Block { bucket, .. } => (None, Some(bucket)),
        };
        charge.into_iter().flat_map(|charge| charge.buckets()).chain(bucket)
    }
}

/// A store's reply to a [`Command`].
///
/// The [example of `Command`](Command) has both kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The command was carried out.
    Done,
    /// The decisions that a [peek](Command::Peek) asks for.
    Decisions(Decisions),
}

impl Reply {
    /// The decisions, if the reply has any.
    #[must_use]
    pub fn into_decisions(self) -> Option<Decisions> {
        match self {
            Self::Done => None,
            Self::Decisions(decisions) => Some(decisions),
        }
    }
}
