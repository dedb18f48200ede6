//! The worker that dispatches the waiting requests of one group of endpoints.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::timeout_at;

use super::endpoint::PacedEndpoint;

/// Dispatches requests when they are due, with one timer, until no request waits.
///
/// This is a task, and not a timer that the first waiting future polls: a future that is not polled
/// for a while would delay all requests behind it.
pub(super) fn work(endpoint: Arc<PacedEndpoint>) -> impl Future<Output = ()> + Send {
    // Created here and not in the task, because the task may be dropped before its first poll.
    let mut worker = Worker { endpoint, is_done: false };
    async move {
        let mut woken = Vec::new();
        while let Some(next) = worker.step(&mut woken) {
            // After the timeout and after a change alike, it is time to look again.
            let _ = timeout_at(worker.endpoint.instant(next), worker.endpoint.changed()).await;
        }
    }
}

/// If the runtime of the worker ends, wakes the waiting requests, so that one of them starts
/// another worker.
struct Worker {
    /// Any endpoint of the group.
    endpoint: Arc<PacedEndpoint>,
    is_done: bool,
}

impl Worker {
    fn step(&mut self, woken: &mut Vec<Waker>) -> Option<u64> {
        let mut group = self.endpoint.lock();
        let next = group.dispatch_due(self.endpoint.now(), woken);
        if next.is_none() {
            group.has_worker = false;
            self.is_done = true;
        }
        drop(group);
        woken.drain(..).for_each(Waker::wake);
        next
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.is_done {
            let mut group = self.endpoint.lock();
            group.has_worker = false;
            let woken = group.wakers();
            drop(group);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
