//! The events of a store, and its listeners.

use std::fmt;
use std::sync::Arc;

use super::listeners::undisturbed;

/// A change of the state of a store.
///
/// Reported on transitions, not for every request, so a log line for each event is not too much.
/// Its [`Display`](fmt::Display) is one line.
///
/// An event holds no password and no id of a principal, unless an error of the store does.
///
/// ```
/// use bolna_rate_limit::store::{Breaker, MemoryStore, Store, StoreEvent, StoreListener};
///
/// let store = Breaker::new(MemoryStore::new());
/// store.subscribe(StoreListener::new(|event| match event {
///     // An operator has opened the breaker: no alarm.
///     StoreEvent::Lost { kind: "by_hand", .. } => {}
///     StoreEvent::Lost { kind, .. } | StoreEvent::StillLost { kind, .. } => {
///         eprintln!("alarm {kind}: {event}");
///     }
///     event => println!("{event}"),
/// }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreEvent {
    /// The store is lost: it is no longer called. Its requests are decided without it, or fail with
    /// an error. In a cluster, these are the requests for one server.
    Lost {
        /// The server: its address, or what is known of it, such as the name by which Sentinels
        /// know it. `None` for a store without a server.
        server: Option<Arc<str>>,
        /// The [kind](super::StoreError::kind) of the error that was the cause. `by_hand` if a
        /// [`Breaker`](super::Breaker) was opened by hand.
        kind: &'static str,
        /// The error that was the cause.
        reason: Arc<str>,
    },
    /// The store is still lost, but for another kind of reason. For example, it can be reached
    /// again and refuses the password.
    StillLost {
        /// The server, as in [`Lost`](Self::Lost).
        server: Option<Arc<str>>,
        /// The [kind](super::StoreError::kind) of the error that is the cause now.
        kind: &'static str,
        /// The error that is the cause now.
        reason: Arc<str>,
    },
    /// The store is called again. In a cluster, one such event follows each [`Lost`](Self::Lost).
    Regained {
        /// The address of the server that is called now, if the store has one. It may be another
        /// server than before.
        server: Option<Arc<str>>,
    },
    /// As many buckets as the cap permits are in use in this process. New callers share buckets:
    /// see [`MemoryStore::max_buckets`](super::MemoryStore::max_buckets). Sent when a caller or a
    /// block first finds no room, not when the last room is taken.
    CapReached {
        /// The cap.
        max_buckets: usize,
    },
    /// A tenth of the cap is free again.
    CapRelieved {
        /// The cap.
        max_buckets: usize,
    },
}

impl fmt::Display for StoreEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |server: &Option<Arc<str>>| {
            OneLine(server.clone().unwrap_or_else(|| "its store".into()))
        };
        let reason = |reason: &Arc<str>| OneLine(Arc::clone(reason));
        match self {
            Self::Lost { server, reason: why, .. } => {
                write!(f, "the rate limiter can't count on {}: {}", name(server), reason(why))
            }
            Self::StillLost { server, reason: why, .. } => {
                write!(f, "the rate limiter still can't count on {}: {}", name(server), reason(why))
            }
            Self::Regained { server } => write!(f, "the rate limiter counts on {}", name(server)),
            Self::CapReached { max_buckets } => {
                write!(
                    f,
                    "the rate limiter has reached its cap of {max_buckets} buckets: new callers \
                     share buckets"
                )
            }
            Self::CapRelieved { max_buckets } => {
                write!(
                    f,
                    "the rate limiter has a tenth of its cap of {max_buckets} buckets free again"
                )
            }
        }
    }
}

/// A text without line breaks and other control characters. The text may quote a server's answer.
pub(crate) struct OneLine(pub(crate) Arc<str>);

impl fmt::Display for OneLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in
            self.0.split(char::is_control).filter(|line| !line.is_empty()).enumerate()
        {
            f.write_str(if number == 0 { "" } else { " " })?;
            f.write_str(line)?;
        }
        Ok(())
    }
}

/// A callback for the [`StoreEvent`]s of a store: see
/// [`Store::subscribe`](super::Store::subscribe). Clones call the same function.
///
/// ```
/// use bolna_rate_limit::store::{MemoryStore, Store, StoreListener};
///
/// let store = MemoryStore::new().max_buckets(100_000);
/// store.subscribe(StoreListener::new(|event| eprintln!("{event}")));
/// ```
#[derive(Clone)]
pub struct StoreListener(Arc<dyn Fn(&StoreEvent) + Send + Sync>);

impl StoreListener {
    /// A listener that calls the function `listener`.
    pub fn new(listener: impl Fn(&StoreEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Calls the listener with `event`; for stores. If the listener panics, the panic is caught.
    pub fn notify(&self, event: &StoreEvent) {
        undisturbed(|| (self.0)(event));
    }
}

impl fmt::Debug for StoreListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreListener").finish_non_exhaustive()
    }
}
