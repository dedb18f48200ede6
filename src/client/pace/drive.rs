//! The worker that dispatches the waiting requests of one group of endpoints.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::timeout_at;

use super::lane::Lane;

/// Dispatches requests when they are due, with one timer, until no request waits.
///
/// This is a task, and not a timer that the first waiting future polls: a future that is not polled
/// for a while would delay all requests behind it.
pub(super) fn drive(lane: Arc<Lane>) -> impl Future<Output = ()> + Send {
    // Created here and not in the task, because the task may be dropped before its first poll.
    let mut driving = Driving { lane, is_done: false };
    async move {
        let mut woken = Vec::new();
        while let Some(next) = driving.turn(&mut woken) {
            // After the timeout and after a change alike, it is time to look again.
            let _ = timeout_at(driving.lane.instant(next), driving.lane.changed()).await;
        }
    }
}

/// If the runtime of the worker ends, wakes the waiting requests, so that one of them starts
/// another worker.
struct Driving {
    /// Any lane of the group.
    lane: Arc<Lane>,
    is_done: bool,
}

impl Driving {
    fn turn(&mut self, woken: &mut Vec<Waker>) -> Option<u64> {
        let mut group = self.lane.lock();
        let next = group.turn(self.lane.now(), woken);
        if next.is_none() {
            group.is_driven = false;
            self.is_done = true;
        }
        drop(group);
        woken.drain(..).for_each(Waker::wake);
        next
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if !self.is_done {
            let mut group = self.lane.lock();
            group.is_driven = false;
            let woken = group.wakers();
            drop(group);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
