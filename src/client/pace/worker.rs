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
    let mut worker = Worker { endpoint, has_ended: false };
    async move {
        let mut woken = Vec::new();
        while let Some(next) = worker.step(&mut woken) {
            // After the timeout and after a change alike, it is time to look again.
            let changed = worker.endpoint.group.changed();
            let _ = timeout_at(worker.endpoint.instant(next), changed).await;
        }
    }
}

struct Worker {
    /// Any endpoint of the group.
    endpoint: Arc<PacedEndpoint>,
    has_ended: bool,
}

impl Worker {
    fn step(&mut self, woken: &mut Vec<Waker>) -> Option<u64> {
        let (next, events) = self.endpoint.group.step(self.endpoint.now(), woken);
        self.has_ended = next.is_none();
        woken.drain(..).for_each(Waker::wake);
        events.log();
        next
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended {
            self.endpoint.group.lose_worker();
        }
    }
}
