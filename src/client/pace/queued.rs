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
    /// When it arrived.
    arrived: u64,
    /// Another policy finds its endpoint by it.
    path: Arc<str>,
    /// How long it may wait.
    bound: Bound,
    /// Whether the ticket is no longer in the queue.
    has_left: bool,
}

/// What becomes of a dispatched request that is ready.
pub(super) enum Readied {
    Sent(Sent),
    /// It is sent, and the policy does not count it any more.
    Exempt,
    /// It has to wait in the queue again.
    Back,
}

impl QueuedRequest {
    pub(super) const fn new(
        endpoint: Arc<PacedEndpoint>,
        ticket: Ticket,
        arrived: u64,
        path: Arc<str>,
        bound: Bound,
    ) -> Self {
        Self { endpoint, ticket, arrived, path, bound, has_left: false }
    }

    /// Waits until the request is dispatched.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        // What is left in it is dropped after the lock is released.
        let mut waker = Some(cx.waker().clone());
        while !self.has_left {
            let PacedEndpoint { endpoint, at, ref group, .. } = *self.endpoint;
            let (polled, lacks_worker) = group.poll(at, self.ticket, &mut waker);
            match polled {
                Polled::Dispatched => break,
                Polled::Moved => self.follow(),
                Polled::Expired { wait, lack } => {
                    self.has_left = true;
                    return Poll::Ready(Err(WaitError::new(endpoint, wait, lack, self.bound)));
                }
                Polled::Waits | Polled::WaitsAgain => {
                    if lacks_worker {
                        self.start_worker();
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the request, whose service is ready. It stays pending while the request has to be held
    /// for a moment.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Poll<Readied> {
        let is_retry = self.bound == Bound::Retries;
        // What is left in it is dropped after the lock is released, as is the waker below.
        let mut waker = Some(cx.waker().clone());
        while !self.has_left {
            let now = self.endpoint.now();
            let mut group = self.endpoint.lock();
            if group.moved().is_some() {
                drop(group);
                self.follow();
                continue;
            }
            let (state, pairs) = group.endpoint(self.endpoint.at);
            let (verdict, _waker) = state.send(pairs, self.ticket, now, is_retry, &mut waker);
            let (has_held, has_worker) = (group.has_held(), group.has_worker);
            drop(group);
            if verdict == Verdict::Hold && !has_worker {
                self.start_worker();
            }
            if verdict != Verdict::Go || has_held {
                self.endpoint.notify();
            }
            return match verdict {
                Verdict::Hold => Poll::Pending,
                Verdict::Back => Poll::Ready(Readied::Back),
                Verdict::Go => {
                    self.has_left = true;
                    let endpoint = Arc::clone(&self.endpoint);
                    Poll::Ready(Readied::Sent(Sent::new(endpoint, self.arrived, now)))
                }
            };
        }
        Poll::Ready(Readied::Exempt)
    }

    /// The policy was replaced: finds the endpoint in whose queue the request is now. It is in none
    /// if its path is exempt, or was in the meantime; then it is sent at once.
    fn follow(&mut self) {
        let table = self.endpoint.lock().moved().cloned();
        match table.and_then(|table| table.of_path(&self.path)) {
            Some(endpoint) => self.endpoint = endpoint,
            None => self.has_left = true,
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
        while !self.has_left {
            let mut group = self.endpoint.lock();
            if group.moved().is_some() {
                drop(group);
                self.follow();
                continue;
            }
            let (state, pairs) = group.endpoint(self.endpoint.at);
            let (is_sooner, _waker) = state.leave(pairs, self.ticket);
            drop(group);
            if is_sooner {
                self.endpoint.notify();
            }
            break;
        }
    }
}
