//! Which request of a priority is dispatched first.

use crate::client::priority::Priority;

/// A request's ticket, for as long as it is in the queue. Of the requests of one priority, those
/// with a lower ticket are dispatched first: the retries, then the others, each in the order of
/// arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::client::pace) struct Ticket(u64);

/// Marks the tickets of bulk requests.
const BULK: u64 = 1 << 63;

/// Marks the tickets of requests that are not retries.
const FIRST_TIME: u64 = 1 << 62;

impl Ticket {
    /// The later a request arrives, the higher is its `number`.
    pub(super) const fn new(number: u64, priority: Priority, is_retry: bool) -> Self {
        let bulk = if matches!(priority, Priority::Bulk) { BULK } else { 0 };
        let first_time = if is_retry { 0 } else { FIRST_TIME };
        Self(number | bulk | first_time)
    }

    pub(in crate::client::pace) const fn priority(self) -> Priority {
        if self.0 & BULK == 0 { Priority::Interactive } else { Priority::Bulk }
    }
}
