//! The most buckets that are kept.

use std::sync::atomic::{AtomicBool, Ordering};

/// What a [`MemoryStore`](super::MemoryStore) with a cap tells its operator.
///
/// Told when things change, not for every request: `Reached`, then `Relieved`, then perhaps `Reached` again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CapEvent {
    /// As many buckets owe as there may be. New callers share what is left until some are full again.
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

pub(super) type Listener = Box<dyn Fn(CapEvent) + Send + Sync>;

pub(super) struct Cap {
    most: usize,
    reached: AtomicBool,
    listener: Option<Listener>,
}

impl Cap {
    pub(super) fn none() -> Self {
        Self::of(usize::MAX)
    }

    pub(super) fn of(most: usize) -> Self {
        Self { most: most.max(1), reached: AtomicBool::new(false), listener: None }
    }

    pub(super) fn told_to(self, listener: Option<Listener>) -> Self {
        Self { listener, ..self }
    }

    pub(super) fn into_listener(self) -> Option<Listener> {
        self.listener
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Tells that a caller had to share, if that is news.
    pub(super) fn reached(&self) {
        if !self.reached.swap(true, Ordering::Relaxed) {
            self.tell(CapEvent::Reached { max_buckets: self.most });
        }
    }

    /// Tells that there is room, if that is news.
    pub(super) fn holds(&self, buckets: usize) {
        let relieved = buckets <= self.most - self.most.div_ceil(10);
        if relieved && self.reached.load(Ordering::Relaxed) && self.reached.swap(false, Ordering::Relaxed) {
            self.tell(CapEvent::Relieved { buckets });
        }
    }

    fn tell(&self, event: CapEvent) {
        if let Some(listener) = &self.listener {
            listener(event);
        }
    }
}
