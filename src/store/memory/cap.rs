//! The cap: the most buckets that are tracked.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};

/// A change of a [`MemoryStore`](super::MemoryStore) with a cap.
///
/// Reported on transitions, not for every request: `Reached`, then `Relieved`, then perhaps
/// `Reached` again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CapEvent {
    /// As many buckets as the cap permits are in use. New callers share buckets until some are full
    /// again.
    Reached {
        /// The cap.
        max_buckets: usize,
    },
    /// A tenth of the cap is free again.
    Relieved {
        /// The number of buckets that are tracked now.
        buckets: usize,
    },
}

pub(super) struct Cap {
    most: usize,
    /// Whether `Reached` is the last event. Changes together with the lasting events.
    reached: AtomicBool,
    listeners: Listeners<CapEvent>,
}

/// The number of the cap among lasting events: a store has only one.
const THIS: u64 = 0;

impl Cap {
    pub(super) fn none() -> Self {
        Self { most: usize::MAX, reached: AtomicBool::new(false), listeners: Listeners::default() }
    }

    /// A cap of `most` buckets, at least 1, for an empty store.
    pub(super) fn of(self, most: usize) -> Self {
        self.holds(0);
        Self { most: most.max(1), ..self }
    }

    /// Adds a listener. If the cap is reached, the listener gets that event at once.
    pub(super) fn tell(&self, listener: impl Fn(&CapEvent) + Send + Sync + 'static) {
        self.listeners.add(listener);
    }

    pub(super) fn subscribe(&self, listener: StoreListener) {
        let max_buckets = self.most;
        self.tell(move |event| {
            listener.tell(&match event {
                CapEvent::Reached { .. } => StoreEvent::CapReached { max_buckets },
                CapEvent::Relieved { .. } => StoreEvent::CapRelieved { max_buckets },
            });
        });
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Reports that the cap is reached, unless that was the last event. Called when a caller has to
    /// share a bucket.
    pub(super) fn reached(&self) {
        if !self.reached.load(Ordering::Relaxed) {
            self.change(true, CapEvent::Reached { max_buckets: self.most });
        }
    }

    /// Reports that a tenth of the cap is free again, if it is and `Reached` was the last event.
    /// Called with the number of buckets after a sweep.
    pub(super) fn holds(&self, buckets: usize) {
        let relieved = buckets <= self.most - self.most.div_ceil(10);
        if relieved && self.reached.load(Ordering::Relaxed) {
            self.change(false, CapEvent::Relieved { buckets });
        }
    }

    #[cold]
    fn change(&self, reached: bool, event: CapEvent) {
        self.listeners.note(|standing| {
            if self.reached.swap(reached, Ordering::Relaxed) == reached {
                return None;
            }
            if reached {
                standing.insert(THIS, event)
            } else {
                standing.remove(&THIS)
            };
            Some(event)
        });
        self.listeners.tell();
    }
}
