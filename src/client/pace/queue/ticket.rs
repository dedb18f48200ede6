//! Which request is dispatched first.

/// A request's ticket, for as long as it is in the queue. Requests with a lower ticket are
/// dispatched first: the retries, then the others, each in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::client::pace) struct Ticket(u64);

/// Marks the tickets of requests that are not retries.
const FIRST_TIME: u64 = 1 << 63;

impl Ticket {
    /// The later a request arrives, the higher is its `number`.
    pub(super) const fn new(number: u64, is_retry: bool) -> Self {
        Self(number | if is_retry { 0 } else { FIRST_TIME })
    }
}
