//! What a store says of itself when it changes.

use std::fmt;
use std::sync::Arc;

use super::listeners::undisturbed;

/// Something has changed with a store. Told on transitions only, so a line in the log for each is
/// not too many; its [`Display`](fmt::Display) is one line.
///
/// It holds no password and no id of a principal, as far as the errors of the store don't.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreEvent {
    /// The store is not asked any more: requests are decided without it, or answered with an error.
    /// In a cluster, those of one server.
    Lost {
        /// Its address, if it has one.
        server: Option<Arc<str>>,
        /// Why.
        reason: Arc<str>,
    },
    /// The store is still lost, but for another kind of reason: it can be reached again and refuses
    /// the password, say.
    StillLost {
        /// Its address, if it has one.
        server: Option<Arc<str>>,
        /// Why.
        reason: Arc<str>,
    },
    /// The store is asked again.
    Regained {
        /// Its address, if it has one: that of the server that is asked now, which may be another
        /// than before.
        server: Option<Arc<str>>,
    },
    /// As many buckets owe as there may be in this process, and new callers share what is left: see
    /// [`MemoryStore::max_buckets`](super::MemoryStore::max_buckets).
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
            Self::Lost { server, reason: why } => {
                write!(f, "the rate limiter can't count on {}: {}", name(server), reason(why))
            }
            Self::StillLost { server, reason: why } => {
                write!(f, "the rate limiter still can't count on {}: {}", name(server), reason(why))
            }
            Self::Regained { server } => write!(f, "the rate limiter counts on {}", name(server)),
            Self::CapReached { max_buckets } => {
                write!(
                    f,
                    "the rate limiter tracks as many buckets as it may, {max_buckets}: new callers share"
                )
            }
            Self::CapRelieved { max_buckets } => {
                write!(
                    f,
                    "the rate limiter has room again for a tenth of its {max_buckets} buckets"
                )
            }
        }
    }
}

/// A text without its line breaks: it may quote what a server has said.
struct OneLine(Arc<str>);

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

/// Who wants to be told of a store's [`StoreEvent`]s: see
/// [`Store::subscribe`](super::Store::subscribe). Clones tell the same.
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
    /// One who calls `listener`.
    pub fn new(listener: impl Fn(&StoreEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// For stores: tells of it. A panic of the listener ends here.
    pub fn tell(&self, event: &StoreEvent) {
        undisturbed(|| (self.0)(event));
    }
}

impl fmt::Debug for StoreListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreListener").finish_non_exhaustive()
    }
}
