//! How far a request has come.

use crate::client::pace::error::Lack;

/// The stage of a request between its arrival and the moment in which it is sent, fails or is
/// dropped. [The module of the pace](crate::client::pace) has the diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client::pace) enum Stage {
    /// It waits for units and permits.
    Waiting,
    /// Its units and permits are reserved since that time, and its future is woken.
    Dispatched { at: u64 },
    /// Its future was polled since, and gets the inner service ready.
    Readying,
    /// The inner service is ready, but others were sent just before: it is held for a moment.
    Held,
    /// It was dispatched and could not be sent, so its units and permits were given back. When its
    /// future is polled, it waits again.
    Lapsed,
    /// It can't be dispatched before its deadline. When its future is polled, it fails: it would
    /// have had to wait for that time, for what it lacks.
    Expired { wait: u64, lack: Lack },
}

impl Stage {
    /// Whether units and permits are reserved for the request.
    pub(in crate::client::pace) const fn is_dispatched(self) -> bool {
        matches!(self, Self::Dispatched { .. } | Self::Readying | Self::Held)
    }

    pub(super) const fn is_expired(self) -> bool {
        matches!(self, Self::Expired { .. })
    }

    /// Whether an event leads from this stage to the next one: the arrows of the diagram.
    pub(super) const fn leads_to(self, next: Self) -> bool {
        use Stage::{Dispatched, Expired, Held, Lapsed, Readying, Waiting};
        match self {
            Waiting => matches!(next, Dispatched { .. } | Expired { .. }),
            Dispatched { .. } => matches!(next, Readying | Held | Lapsed),
            Readying => matches!(next, Held | Lapsed),
            Held => matches!(next, Dispatched { .. } | Lapsed),
            Lapsed => matches!(next, Waiting),
            Expired { .. } => false,
        }
    }
}
