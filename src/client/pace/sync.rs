//! The lock of a group, and what wakes its worker.
//!
//! With `--cfg bolna_loom` they are those of [loom](https://docs.rs/loom), which runs a test once
//! for each order in which threads can take their steps.

#[cfg(not(bolna_loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(not(bolna_loom))]
pub(super) use tokio::sync::Notify;

#[cfg(bolna_loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};

#[cfg(bolna_loom)]
pub(super) use for_loom::Notify;

#[cfg(bolna_loom)]
mod for_loom {
    use loom::sync::{Condvar, Mutex};

    /// What the worker needs of tokio's `Notify`: a call of `notify_one` ends one wait that has
    /// begun or the next one that begins.
    #[derive(Debug)]
    pub(in crate::client::pace) struct Notify {
        is_notified: Mutex<bool>,
        changed: Condvar,
    }

    impl Notify {
        pub(in crate::client::pace) fn new() -> Self {
            Self { is_notified: Mutex::new(false), changed: Condvar::new() }
        }

        pub(in crate::client::pace) fn notify_one(&self) {
            *self.is_notified.lock().expect("no test panics under the lock") = true;
            self.changed.notify_one();
        }

        /// Blocks its thread.
        pub(in crate::client::pace) async fn notified(&self) {
            let mut is_notified = self.is_notified.lock().expect("no test panics under the lock");
            while !*is_notified {
                is_notified = self.changed.wait(is_notified).expect("... nor here");
            }
            *is_notified = false;
        }
    }
}
