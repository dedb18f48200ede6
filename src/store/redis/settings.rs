//! The settings of a store, and its events.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::{RedisStoreError, RedisStoreErrorKind};
use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};

/// A change between a [`RedisStore`](crate::store::RedisStore) and its server. Events are reported
/// on transitions, not for every request, so each of them can be logged.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RedisEvent {
    /// The server is lost, and requests are decided without it. In a cluster these are the requests
    /// whose buckets are in its slots.
    #[non_exhaustive]
    Lost {
        /// Its address.
        server: String,
        /// Why.
        reason: Arc<RedisStoreError>,
    },
    /// The server is still lost, but for another kind of reason. For example, it can be reached
    /// again but rejects the password.
    #[non_exhaustive]
    StillLost {
        /// Its address.
        server: String,
        /// Why.
        reason: Arc<RedisStoreError>,
    },
    /// The server decides requests again. In a cluster it may be another one, which has taken over
    /// from the server that was lost.
    #[non_exhaustive]
    Regained {
        /// Its address, which may differ from that of the lost server.
        server: String,
    },
}

/// Writes one line, with the cause.
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
    /// The same event, as stores of any kind report it.
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
    /// The longest time that a check takes.
    pub(super) deadline: Duration,
    /// The longest time that one step of connecting takes.
    pub(super) connect_timeout: Duration,
    /// The most requests that wait for one server at a time.
    pub(super) most_waiting: usize,
    pub(super) listeners: Listeners<RedisEvent>,
}

impl Settings {
    /// Reports an event. `number` is that of the [`Link`](super::link::Link) to the server, or
    /// [`WHOLE`].
    pub(super) fn tell(&self, number: u64, event: RedisEvent) {
        self.listeners.note(|standing| {
            match event.clone() {
                // A listener that subscribes later has not heard of the loss: it gets `Lost`, not
                // `StillLost`.
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

/// The number of the only server, or of the whole cluster while none of its primaries is known.
pub(super) const WHOLE: u64 = 0;
