//! What all endpoints of a pacer have in common.

use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use crate::client::hints::ServerClock;
use crate::client::retry::Resumptions;

#[derive(Debug)]
pub(super) struct Common {
    /// The clock of the server.
    pub(super) clock: ServerClock,
    /// Tells refused requests that the pause for whose end they wait is ended by hand.
    pub(super) resumed: Resumptions,
    /// How many requests could not be sent at once. One number orders the requests of all groups,
    /// which another policy may merge.
    pub(super) arrivals: AtomicU64,
}

impl Common {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            clock: ServerClock::new(origin),
            resumed: Resumptions::default(),
            arrivals: AtomicU64::new(0),
        }
    }
}
