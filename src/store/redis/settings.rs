//! The settings of a store, and its events.

use std::time::Duration;

use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};

pub(super) struct Settings {
    pub(super) prefix: String,
    /// The longest time that a check takes.
    pub(super) deadline: Duration,
    /// The longest time that one step of connecting takes.
    pub(super) connect_timeout: Duration,
    /// The most requests that wait for one server at a time.
    pub(super) most_waiting: usize,
    pub(super) listeners: Listeners<StoreEvent>,
}

impl Settings {
    /// Reports an event. `number` is that of the [`Link`](super::link::Link) to the server, or
    /// [`WHOLE`].
    pub(super) fn tell(&self, number: u64, event: StoreEvent) {
        self.listeners.note(|standing| {
            match event.clone() {
                // A listener that subscribes later has not heard of the loss: it gets `Lost`, not
                // `StillLost`.
                StoreEvent::Lost { server, kind, reason }
                | StoreEvent::StillLost { server, kind, reason } => {
                    standing.insert(number, StoreEvent::Lost { server, kind, reason })
                }
                _ => standing.remove(&number),
            };
            Some(event)
        });
        self.listeners.tell();
    }

    pub(super) fn subscribe(&self, listener: StoreListener) {
        self.listeners.add(move |event| listener.notify(event));
    }
}

/// The number of the only server, or of the whole cluster while none of its primaries is known.
pub(super) const WHOLE: u64 = 0;
