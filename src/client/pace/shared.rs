//! A group of endpoints behind its lock, and the rules by which it has a worker.
//!
//! Three rules keep a request from waiting for ever:
//! * **The worker ends under the lock**, in the same step in which it finds that no request waits
//!   for a point in time. A request that arrives later finds no worker.
//! * **A request that is polled and waits starts a worker if there is none.** It does not matter
//!   which request or which of the group's endpoints it is.
//! * **A worker that is dropped before it has ended**, with its runtime, wakes all requests. The
//!   first that is polled starts another worker.
//!
//! A group whose endpoints have [moved](super::table) has no requests, and wants no worker. All
//! requests that waited are woken then, so that the first one starts a worker of its new group.
//!
//! While there is a worker, it is notified of everything after which something may be due earlier
//! than it has planned. A notification is sent after the lock is released, and kept until the
//! worker waits.

use std::sync::PoisonError;
use std::task::Waker;

use super::group::Group;
use super::queue::{Polled, Ticket};
use super::sync::{Mutex, MutexGuard, Notify};
use crate::client::log::Pending;

#[derive(Debug)]
pub(super) struct Shared {
    group: Mutex<Group>,
    /// Tells the worker that something may be due at another time.
    changed: Notify,
}

impl Shared {
    pub(super) fn new(group: Group) -> Self {
        Self { group: Mutex::new(group), changed: Notify::new() }
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Group> {
        // A panic leaves the state whole: no code panics in the middle of a change.
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker is to look at the group again.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits until the worker is to look at the group again.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A request whose service is not ready is polled; `waker` is stored if it waits, and else
    /// whatever is left in its place is to be dropped. Returns, too, whether a worker has to be
    /// started.
    pub(super) fn poll(
        &self,
        endpoint: usize,
        ticket: Ticket,
        waker: &mut Option<Waker>,
    ) -> (Polled, bool) {
        let mut group = self.lock();
        if group.moved().is_some() {
            return (Polled::Moved, false);
        }
        let polled = group.endpoint(endpoint).0.poll(ticket, waker);
        let has_worker = group.has_worker;
        drop(group);
        if polled == Polled::WaitsAgain {
            self.notify();
        }
        let waits = matches!(polled, Polled::Waits | Polled::WaitsAgain);
        (polled, waits && !has_worker)
    }

    /// Whether the caller is to start a worker: there is none, and no other caller starts one.
    pub(super) fn wants_worker(&self) -> bool {
        let mut group = self.lock();
        group.moved().is_none() && !std::mem::replace(&mut group.has_worker, true)
    }

    /// What the worker does at each step. Adds the wakers to be woken, and returns when the next
    /// step is to be, unless the worker has ended with this one, and the events to be logged.
    pub(super) fn step(&self, now: u64, woken: &mut Vec<Waker>) -> (Option<u64>, Pending) {
        let mut group = self.lock();
        let next = group.dispatch_due(now, woken);
        group.has_worker = next.is_some();
        (next, group.drain_events())
    }

    /// The worker is dropped and has not ended.
    pub(super) fn lose_worker(&self) {
        let mut group = self.lock();
        group.lose_worker();
        let woken = group.wakers();
        drop(group);
        woken.into_iter().for_each(Waker::wake);
    }
}
