//! What a response says of its server's limits.

mod rate_limit;
mod retry_after;

use std::time::Duration;

pub(super) use rate_limit::{Memo, standing};
pub(super) use retry_after::retry_after;

/// How the sender of a request stands, by the header fields of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The units that are left, of the limit that is named as the endpoint is or else of the
    /// tightest.
    pub(super) remaining: u32,
    /// The quota of that limit and the window that it is for, if the server tells.
    pub(super) quota: Option<(u32, Option<Duration>)>,
    /// The longest time, from when the response was made, until a limit that is used up has units
    /// again.
    pub(super) exhausted: Option<Duration>,
}
