//! The most buckets that are kept.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::listeners::Listeners;
use crate::store::{StoreEvent, StoreListener};

/// What a [`MemoryStore`](super::MemoryStore) with a cap tells its operator.
///
/// Told when things change, not for every request: `Reached`, then `Relieved`, then perhaps
/// `Reached` again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CapEvent {
    /// As many buckets owe as there may be. New callers share what is left until some are full
    /// again.
    Reached {
        /// The cap.
        max_buckets: usize,
    },
    /// A tenth of the cap is free again.
    Relieved {
        /// The buckets that are tracked.
        buckets: usize,
    },
}

pub(super) struct Cap {
    most: usize,
    /// Whether it has been told that it is reached, and not yet that it is relieved. Changes with
    /// what stands.
    reached: AtomicBool,
    listeners: Listeners<CapEvent>,
}

/// What there is to tell is about one cap.
const THIS: u64 = 0;

impl Cap {
    pub(super) fn none() -> Self {
        Self { most: usize::MAX, reached: AtomicBool::new(false), listeners: Listeners::default() }
    }

    /// Of a store that is empty.
    pub(super) fn of(self, most: usize) -> Self {
        self.holds(0);
        Self { most: most.max(1), ..self }
    }

    /// Somebody who comes while it is reached is told so.
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

    /// Tells that a caller had to share, if that is news.
    pub(super) fn reached(&self) {
        if !self.reached.load(Ordering::Relaxed) {
            self.change(true, CapEvent::Reached { max_buckets: self.most });
        }
    }

    /// Tells that there is room, if that is news.
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
