//! What a service and its clones share.

use std::sync::{Mutex, PoisonError};

use super::config::Config;

pub(super) struct Shared<S, St> {
    pub(super) config: Config<St>,
    /// The inner service that the layer was given. It is never polled: a clone of a service that
    /// was polled may believe that it is ready, as that of `tower::steer::Steer` does. In a mutex,
    /// because `S` need not be `Sync`.
    original: Mutex<S>,
}

impl<S: Clone, St> Shared<S, St> {
    pub(super) fn new(config: Config<St>, original: S) -> Self {
        Self { config, original: Mutex::new(original) }
    }

    /// An inner service that was never polled.
    #[cold]
    pub(super) fn unpolled(&self) -> S {
        // A clone that panics leaves the original as it is.
        self.original.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
