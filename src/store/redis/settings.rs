//! How a store is set up, and what it tells.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::{RedisStoreError, RedisStoreErrorKind};
use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};

/// Something has changed between a [`RedisStore`](crate::store::RedisStore) and its server. Told on
/// transitions only, so a line in the log for each is not too many.
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
    /// The server is still lost, but for another kind of reason: it can be reached again and
    /// refuses the password, say.
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
                Some(source) if reason.kind() == RedisStoreErrorKind::Unreachable => {
                    write!(f, "{reason} ({source})")
                }
                _ => reason.fmt(f),
            },
            Self::Regained { server } => write!(f, "the rate limiter counts on {server}"),
        }
    }
}

impl RedisEvent {
    /// As what a store of any kind tells.
    fn of_store(&self) -> StoreEvent {
        let named = |server: &String| Some(Arc::from(server.as_str()));
        match self {
            Self::Lost { server, reason } => {
                StoreEvent::Lost { server: named(server), reason: reason.why(server).into() }
            }
            Self::StillLost { server, reason } => {
                StoreEvent::StillLost { server: named(server), reason: reason.why(server).into() }
            }
            Self::Regained { server } => StoreEvent::Regained { server: named(server) },
        }
    }
}

pub(super) struct Settings {
    pub(super) prefix: String,
    /// The longest that a check takes.
    pub(super) deadline: Duration,
    /// The longest that connecting takes, and each step of it.
    pub(super) connect_timeout: Duration,
    /// The most requests that wait at a time.
    pub(super) most_waiting: usize,
    pub(super) listeners: Listeners<RedisEvent>,
}

impl Settings {
    /// `number` is that of the [`Link`](super::link::Link) to the server, or [`WHOLE`].
    pub(super) fn tell(&self, number: u64, event: RedisEvent) {
        self.listeners.note(|standing| {
            match event.clone() {
                // Whoever comes later has not been told that it is lost.
                RedisEvent::Lost { server, reason } | RedisEvent::StillLost { server, reason } => {
                    standing.insert(number, RedisEvent::Lost { server, reason })
                }
                RedisEvent::Regained { .. } => standing.remove(&number),
            };
            Some(event)
        });
        self.listeners.tell();
    }

    pub(super) fn subscribe(&self, listener: StoreListener) {
        self.listeners.add(move |event| listener.tell(&event.of_store()));
    }
}

/// The number of the server, or of the cluster as long as none of its primaries is known.
pub(super) const WHOLE: u64 = 0;
