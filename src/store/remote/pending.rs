//! Requests and commands that wait for their server.

use super::failure::Failure;
use super::request::{Entries, Run};
use crate::store::{Charge, Command, Entry, Reply};
use crate::values::{Endpoint, Principal};

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

/// What is to be done to the buckets of one principal. Every entry is measured in whole
/// microseconds, as the server does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    Check(Entries),
    Peek(Entries),
    Refund(Entries),
    Settle(Entries),
    Reset(Endpoint),
    Block(Endpoint, u64),
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
        Self::Check(in_whole_micros(charge))
    }

    pub(super) fn of(command: &Command<'_>) -> Self {
        match command {
            Command::Peek(charge) => Self::Peek(in_whole_micros(charge)),
            Command::Refund(charge) => Self::Refund(in_whole_micros(charge)),
            Command::Settle(charge) => Self::Settle(in_whole_micros(charge)),
            Command::Reset { endpoint, .. } => Self::Reset(*endpoint),
            Command::Block { endpoint, period, .. } => {
                Self::Block(*endpoint, crate::store::nanos(*period).div_ceil(MICRO) * MICRO)
            }
        }
    }

    /// The buckets that it is about.
    pub(super) fn buckets(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let (entries, bucket) = match self {
            Self::Check(entries)
            | Self::Peek(entries)
            | Self::Refund(entries)
            | Self::Settle(entries) => (entries.as_slice(), None),
            Self::Reset(bucket) | Self::Block(bucket, _) => (&[][..], Some(*bucket)),
        };
        entries.iter().map(Entry::endpoint).chain(bucket)
    }

    /// The runs to send: none for a peek.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let (entries, one) = match self {
            Self::Check(entries) => {
                (&[][..], Some(Run::Charge { entries: entries.clone(), count: 1 }))
            }
            Self::Peek(_) => (&[][..], None),
            Self::Refund(entries) | Self::Settle(entries) => (entries.as_slice(), None),
            Self::Reset(bucket) => (&[][..], Some(Run::Reset { bucket: *bucket })),
            Self::Block(bucket, time) => {
                (&[][..], Some(Run::Block { bucket: *bucket, time: *time }))
            }
        };
        let settles = matches!(self, Self::Settle(_));
        let each = entries.iter().map(move |entry| {
            let (bucket, rate, time) = (entry.endpoint(), entry.rate(), entry.time());
            if settles {
                Run::Settle { bucket, rate, time }
            } else {
                Run::Refund { bucket, rate, time }
            }
        });
        each.chain(one)
    }
}

fn in_whole_micros(charge: &Charge<'_>) -> Entries {
    charge.entries().iter().map(|entry| entry.counted_in(entry.rate().in_whole_micros())).collect()
}
