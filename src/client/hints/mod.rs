//! What a response reports about the server's limits.

mod rate_limit;
mod retry_after;

use std::time::Duration;

pub(super) use rate_limit::{Memo, standing};
pub(super) use retry_after::retry_after;

/// The state of a limit, as the header fields of a response report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The units left: of the limit that has the name of the endpoint, or else of the limit with
    /// the fewest.
    pub(super) remaining: u32,
    /// The quota of that limit and its window, as far as the server reports them.
    pub(super) quota: Option<(u32, Option<Duration>)>,
    /// The longest time until an exhausted limit has units again, counted from when the response
    /// was made.
    pub(super) exhausted: Option<Duration>,
}
