//! What all endpoints of a pacer have in common.

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::hints::ServerClock;

#[derive(Debug)]
pub(super) struct Common {
    /// The clock of the server.
    pub(super) clock: ServerClock,
    /// Changes when pauses are ended by hand.
    pub(super) resumed: watch::Sender<()>,
}

impl Common {
    pub(super) fn new(origin: Instant) -> Self {
        Self { clock: ServerClock::new(origin), resumed: watch::Sender::new(()) }
    }
}
