//! The limits of a group of endpoints.

use super::pair::Pair;
use super::pool::Pool;
use crate::client::log::Events;

/// The limits of a group of endpoints, each once.
#[derive(Debug)]
pub(super) struct Pairs {
    /// Those of a rate.
    pub(super) rates: Box<[Pair]>,
    /// Those of requests in flight. One is added when the server reports a limit that the policy
    /// does not have.
    pub(super) pools: Vec<Pool>,
    pub(super) events: Events,
}
