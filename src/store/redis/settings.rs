//! How a store is set up, and what it tells.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::RedisStoreError;

/// Something has changed between a [`RedisStore`](crate::store::RedisStore) and its server. Told on transitions only, so a
/// line in the log for each is not too many.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RedisEvent {
    /// The server is lost: requests are decided without it. In a cluster, those of its slots.
    Lost {
        /// Its address.
        server: String,
        /// Why.
        reason: Arc<RedisStoreError>,
    },
    /// The server decides, again or, in a cluster, instead of another.
    Regained {
        /// Its address, which may be another than before.
        server: String,
    },
}

/// One line, with the cause.
impl fmt::Display for RedisEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { reason, .. } => match reason.source() {
                Some(source) => write!(f, "{reason} ({source})"),
                None => reason.fmt(f),
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
            listener(event);
        }
    }
}
