//! What a response reports about the server's limits.

mod clock;
mod exchange;
mod later;
mod rate_limit;
mod retry_after;

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::values::LimitName;

pub(super) use clock::ServerClock;
pub(super) use exchange::Exchange;
pub(super) use rate_limit::{Memo, standings};
pub(super) use retry_after::{retry_after, wait};

/// The names of an endpoint's limits.
#[derive(Debug)]
pub(super) struct Names {
    /// Of the limits of a rate, the endpoint's own first.
    pub(super) rates: Box<[LimitName]>,
    /// Of the limits of requests in flight.
    pub(super) concurrent: Box<[LimitName]>,
}

/// The state of an endpoint's limits, as the header fields of a response report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standings {
    /// The state of each limit, the endpoint's own first. If the own one is not reported by its
    /// name, it is the one with the fewest units left, of those with other names.
    pub(super) limits: SmallVec<[Option<Standing>; 1]>,
    /// The longest time until an exhausted limit other than these has units again.
    pub(super) others_exhausted: Option<Duration>,
    /// The state of each limit of requests in flight, and then that of all such limits with other
    /// names together. Empty if none is reported.
    pub(super) concurrent: SmallVec<[Concurrent; 2]>,
}

/// The state of a limit of requests in flight, as far as it is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Concurrent {
    /// How many requests may be in flight.
    pub(super) most: Option<u32>,
    /// How many more requests may be.
    pub(super) remaining: Option<u32>,
}

/// The state of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The units left.
    pub(super) remaining: u32,
    /// The quota of the limit and its window, as far as the server reports them.
    pub(super) quota: Option<ReportedQuota>,
    /// The time until the limit has units again, if it is exhausted, counted from when the response
    /// was made.
    pub(super) exhausted: Option<Duration>,
}

/// The burst of a quota, and the window in which it comes back, if that is known.
pub(super) type ReportedQuota = (u32, Option<Duration>);

impl Standings {
    /// A state that is reported without a name. It is treated as that of the endpoint's own limit,
    /// the first of `count`.
    fn of_own(own: Standing, count: usize) -> Self {
        let mut limits = smallvec![None; count];
        limits[0] = Some(own);
        Self { limits, others_exhausted: None, concurrent: SmallVec::new() }
    }

    /// Whether a refusal with this report is due to a limit of requests in flight alone.
    pub(super) fn blames_concurrent(&self) -> bool {
        let is_exhausted = |standing: &Standing| standing.remaining == 0;
        self.concurrent.iter().any(|limit| limit.remaining == Some(0))
            && self.others_exhausted.is_none()
            && !self.limits.iter().flatten().any(is_exhausted)
    }

    /// The longest time until an exhausted limit has units again.
    pub(super) fn exhausted(&self) -> Option<Duration> {
        let limits = self.limits.iter().flatten().filter_map(|standing| standing.exhausted);
        limits.chain(self.others_exhausted).max()
    }
}
