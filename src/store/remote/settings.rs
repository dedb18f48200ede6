//! The settings of a store, and its events.

use std::time::Duration;

use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};

pub(super) struct Settings {
    /// The longest time that a check takes.
    pub(super) deadline: Duration,
    /// The longest time that one step of connecting takes.
    pub(super) connect_timeout: Duration,
    /// The most principals whose requests wait for one server at a time.
    pub(super) most_waiting: usize,
    pub(super) listeners: Listeners<StoreEvent>,
}

/// The number of the only server, or of the whole cluster while none of its primaries is known.
pub(super) const WHOLE: u64 = 0;

impl Settings {
    /// Reports an event of the server with that number.
    pub(super) fn emit(&self, number: u64, event: StoreEvent) {
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
        self.listeners.deliver();
    }

    /// Stops reporting to new listeners that the server is lost.
    pub(super) fn forget(&self, number: u64) {
        self.listeners.note(|standing| {
            standing.remove(&number);
            None
        });
    }

    pub(super) fn subscribe(&self, listener: StoreListener) {
        self.listeners.add(move |event| listener.notify(event));
    }
}
