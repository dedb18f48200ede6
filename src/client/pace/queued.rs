//! A request in the queue of its endpoint.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::endpoint::{PacedEndpoint, Sent};
use super::error::{Bound, WaitError};
use super::queue::{Polled, Ticket};
use super::state::Verdict;
use super::worker::work;

/// A request with a ticket. Dropping it removes the request from the queue.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    endpoint: Arc<PacedEndpoint>,
    ticket: Ticket,
    /// How long it may wait.
    bound: Bound,
    /// Whether the ticket is no longer in the queue.
    has_left: bool,
}

impl QueuedRequest {
    pub(super) const fn new(endpoint: Arc<PacedEndpoint>, ticket: Ticket, bound: Bound) -> Self {
        Self { endpoint, ticket, bound, has_left: false }
    }

    /// Waits until the request is dispatched.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        // What is left in it is dropped after the lock is released.
        let mut waker = Some(cx.waker().clone());
        let PacedEndpoint { endpoint, at, ref group, .. } = *self.endpoint;
        let (polled, lacks_worker) = group.poll(at, self.ticket, &mut waker);
        match polled {
            Polled::Dispatched => Poll::Ready(Ok(())),
            Polled::Expired { wait, lack } => {
                self.has_left = true;
                Poll::Ready(Err(WaitError::new(endpoint, wait, lack, self.bound)))
            }
            Polled::Waits | Polled::WaitsAgain => {
                if lacks_worker {
                    self.start_worker();
                }
                Poll::Pending
            }
        }
    }

    /// Sends the request, whose service is ready. It stays pending while the request has to be held
    /// for a moment, and returns `None` if the request has to wait in the queue again.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
        let now = self.endpoint.now();
        // What is left in it is dropped after the lock is released.
        let mut waker = Some(cx.waker().clone());
        let mut group = self.endpoint.lock();
        let (state, pairs) = group.endpoint(self.endpoint.at);
        let is_retry = self.bound == Bound::Retries;
        let verdict = state.send(pairs, self.ticket, now, is_retry, &mut waker);
        let (has_held, has_worker) = (group.has_held(), group.has_worker);
        drop(group);
        if verdict == Verdict::Hold && !has_worker {
            self.start_worker();
        }
        if verdict != Verdict::Go || has_held {
            self.endpoint.notify();
        }
        match verdict {
            Verdict::Hold => Poll::Pending,
            Verdict::Back => Poll::Ready(None),
            Verdict::Go => {
                self.has_left = true;
                Poll::Ready(Some(Sent::new(Arc::clone(&self.endpoint), now)))
            }
        }
    }

    /// Starts a worker if there is none.
    fn start_worker(&self) {
        // Without a runtime, or without timers on it, this panics here and not in the task.
        let (runtime, _) = (Handle::current(), sleep(Duration::ZERO));
        if !self.endpoint.group.wants_worker() {
            return;
        }
        let worker = runtime.spawn(work(Arc::clone(&self.endpoint)));
        // On a runtime that has shut down, the request would be woken and try again for ever.
        let is_in_vain = || self.endpoint.lock().is_left_alone(self.endpoint.at, self.ticket);
        assert!(
            !worker.is_finished() || !is_in_vain(),
            "a request waits on a tokio runtime that has been shut down"
        );
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        let mut group = self.endpoint.lock();
        let (state, pairs) = group.endpoint(self.endpoint.at);
        let (is_sooner, _waker) = state.leave(pairs, self.ticket);
        drop(group);
        if is_sooner {
            self.endpoint.notify();
        }
    }
}
