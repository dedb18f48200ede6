//! Requests and commands that wait for their server.

use super::failure::Failure;
use super::request::{Entries, Run};
use crate::store::{Charge, Command, Reply};
use crate::values::{OwnedBucket, Principal, Scope};

/// One microsecond, in nanoseconds.
const MICRO: u64 = 1000;

/// One request or command, and the ticket by which it gets its answer.
#[derive(Debug)]
pub(super) struct Pending<T> {
    pub(super) principal: Principal,
    pub(super) op: Op,
    /// When the request stops waiting, in nanoseconds.
    pub(super) deadline: u64,
    pub(super) ticket: T,
    /// How many servers have answered that the bucket is elsewhere.
    pub(super) hops: u8,
    /// Whether the call says that another server has sent the request on.
    pub(super) asking: bool,
}

/// What is to be done to the buckets of one principal.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    Check(Entries),
    Peek(Entries),
    Refund(Entries),
    Settle(Entries),
    Reset(OwnedBucket),
    Block(OwnedBucket, u64),
}

/// How a request gets its answer.
pub(super) trait Ticket {
    /// Whether the request still waits.
    fn is_waiting(&self) -> bool;
    /// Gives the answer.
    fn say(self, answer: Result<Reply, Failure>);
}

impl<T> Pending<T> {
    pub(super) fn new(principal: Principal, op: Op, deadline: u64, ticket: T) -> Self {
        Self { principal, op, deadline, ticket, hops: 0, asking: false }
    }
}

impl Op {
    pub(super) fn check(charge: &Charge<'_>) -> Self {
        Self::Check(Entries::of(charge))
    }

    pub(super) fn of(command: &Command<'_>) -> Self {
        match command {
            Command::Peek(charge) => Self::Peek(Entries::of(charge)),
            Command::Refund(charge) => Self::Refund(Entries::of(charge)),
            Command::Settle(charge) => Self::Settle(Entries::of(charge)),
            Command::Reset(bucket) => Self::Reset(OwnedBucket::of(*bucket)),
            Command::Block { bucket, period, .. } => {
                let time = crate::store::nanos(*period).div_ceil(MICRO) * MICRO;
                Self::Block(OwnedBucket::of(*bucket), time)
            }
        }
    }

    /// The buckets that it is about. `principal` is the one that sends the request.
    pub(super) fn buckets<'a>(
        &'a self,
        principal: &'a Principal,
    ) -> impl Iterator<Item = OwnedBucket> + use<'a> {
        let (entries, bucket) = match self {
            Self::Check(entries)
            | Self::Peek(entries)
            | Self::Refund(entries)
            | Self::Settle(entries) => (Some(entries), None),
            Self::Reset(bucket) | Self::Block(bucket, _) => (None, Some(bucket.clone())),
        };
        entries.into_iter().flat_map(|entries| entries.buckets(principal)).chain(bucket)
    }

    /// Whether one of the buckets of a request of some principal is everyone's.
    pub(super) fn is_of_everyone(&self) -> bool {
        match self {
            Self::Check(entries)
            | Self::Peek(entries)
            | Self::Refund(entries)
            | Self::Settle(entries) => {
                entries.as_slice().iter().any(|entry| entry.scope() == Scope::Everyone)
            }
            Self::Reset(_) | Self::Block(..) => false,
        }
    }

    /// The runs to send: none for a peek. `principal` is the one that sends the request.
    pub(super) fn runs<'a>(
        &'a self,
        principal: &'a Principal,
    ) -> impl Iterator<Item = Run> + use<'a> {
        let (entries, one) = match self {
            Self::Check(entries) => {
                (None, Some(Run::Charge { entries: entries.clone(), count: 1 }))
            }
            Self::Peek(_) => (None, None),
            Self::Refund(entries) | Self::Settle(entries) => (Some(entries), None),
            Self::Reset(bucket) => (None, Some(Run::Reset { bucket: bucket.clone() })),
            Self::Block(bucket, time) => {
                (None, Some(Run::Block { bucket: bucket.clone(), time: *time }))
            }
        };
        let settles = matches!(self, Self::Settle(_));
        let each = entries.into_iter().flat_map(move |entries| {
            let entries = entries.buckets(principal).zip(entries.as_slice());
            entries.map(move |(bucket, entry)| {
                let (rate, time) = (entry.rate(), entry.time());
                if settles {
                    Run::Settle { bucket, rate, time }
                } else {
                    Run::Refund { bucket, rate, time }
                }
            })
        });
        each.chain(one)
    }
}
