//! The task that lets those go who wait for one endpoint.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::timeout_at;

use super::lane::Lane;

/// Lets those go whose turn it is, with one timer, until nobody waits.
///
/// A task, rather than a timer that the first of them polls: a future that is not polled for a
/// while would hold up all behind it.
pub(super) fn drive(lane: Arc<Lane>) -> impl Future<Output = ()> + Send {
    // Here, and not in the task, which may be dropped before it begins.
    let mut driving = Driving { lane, is_done: false };
    async move {
        let mut woken = Vec::new();
        while let Some(next) = driving.turn(&mut woken) {
            // Either way it is time to look again.
            let _ = timeout_at(driving.lane.instant(next), driving.lane.changed.notified()).await;
        }
    }
}

/// Sees to it that somebody else drives when the runtime of the task ends.
struct Driving {
    lane: Arc<Lane>,
    is_done: bool,
}

impl Driving {
    fn turn(&mut self, woken: &mut Vec<Waker>) -> Option<u64> {
        let mut state = self.lane.lock();
        let next = state.turn(self.lane.now(), woken);
        if next.is_none() {
            state.is_driven = false;
            self.is_done = true;
        }
        drop(state);
        woken.drain(..).for_each(Waker::wake);
        next
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.lane.lock();
            state.is_driven = false;
            let woken = state.wakers();
            drop(state);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
