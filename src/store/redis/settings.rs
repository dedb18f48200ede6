//! How a store is set up, and what it tells.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::error::{RedisStoreError, RedisStoreErrorKind};

/// Something has changed between a [`RedisStore`](crate::store::RedisStore) and its server. Told on transitions only, so a
/// line in the log for each is not too many.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RedisEvent {
    /// The server is lost: requests are decided without it. In a cluster, those of its slots.
    #[non_exhaustive]
    Lost {
        /// Its address.
        server: String,
        /// Why.
        reason: Arc<RedisStoreError>,
    },
    /// The server is still lost, but for another kind of reason: it can be reached again and refuses the password, say.
    #[non_exhaustive]
    StillLost {
        /// Its address.
        server: String,
        /// Why.
        reason: Arc<RedisStoreError>,
    },
    /// The server decides, again or, in a cluster, instead of another.
    #[non_exhaustive]
    Regained {
        /// Its address, which may be another than before.
        server: String,
    },
}

/// One line, with the cause.
impl fmt::Display for RedisEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { reason, .. } | Self::StillLost { reason, .. } => match reason.source() {
                Some(source) if reason.kind() == RedisStoreErrorKind::Unreachable => write!(f, "{reason} ({source})"),
                _ => reason.fmt(f),
            },
            Self::Regained { server } => write!(f, "the rate limiter counts on {server}"),
        }
    }
}

pub(super) type Listener = Box<dyn Fn(RedisEvent) + Send + Sync>;

pub(super) struct Settings {
    pub(super) prefix: String,
    /// The longest that a check takes.
    pub(super) deadline: Duration,
    /// The longest that connecting takes, and each step of it.
    pub(super) connect_timeout: Duration,
    /// The most requests that wait at a time.
    pub(super) most_waiting: usize,
    pub(super) listener: Option<Listener>,
}

impl Settings {
    pub(super) fn tell(&self, event: RedisEvent) {
        if let Some(listener) = &self.listener {
            // `eprintln!` panics when nobody reads any more. The server has to be connected to all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(event)));
        }
    }
}
