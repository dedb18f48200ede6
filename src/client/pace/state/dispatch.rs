//! What the worker does with the requests of one endpoint.

use std::task::Waker;

use super::super::pair::Pair;
use super::super::pairs::Pairs;
use super::{SECOND, State};
use crate::client::priority::Priority;

/// How long a unit is reserved for a dispatched request whose future is not polled. After that,
/// other requests may use the unit.
const LAPSE: u64 = SECOND / 4;

impl State {
    /// Makes those requests lapse that would have to stay dispatched or held for too long, and
    /// dispatches the held ones again that may be sent now.
    pub(in crate::client::pace) fn clear(
        &mut self,
        pairs: &mut Pairs,
        now: u64,
        woken: &mut Vec<Waker>,
    ) {
        self.lapse_unpolled(pairs, now);
        self.limits.each_with_events(pairs, |pair, events| pair.pass_time(now, events));
        self.limits.each_pool(pairs, |pool| pool.pass_time(now));
        while self.queue.held() > 0
            && !self.may_hold(pairs, now, self.queue.unaware() + self.queue.held() - 1)
        {
            woken.extend(self.queue.lapse_last_held());
            self.limits.lapse(pairs);
        }
        while self.queue.held() > 0 && self.opens(pairs, self.queue.unaware()) <= now {
            woken.extend(self.queue.redispatch(now));
        }
    }

    /// Dispatches the first waiting request of that priority, which is due. If it is late for that,
    /// a timer or a task was late, and it is dispatched nevertheless.
    pub(in crate::client::pace) fn dispatch(
        &mut self,
        priority: Priority,
        pairs: &mut Pairs,
        now: u64,
        woken: &mut Vec<Waker>,
    ) {
        self.limits.dispatch(pairs, now);
        woken.extend(self.queue.dispatch(priority, now));
    }

    /// When something is to be done for this endpoint.
    pub(in crate::client::pace) fn next(&self, pairs: &Pairs, now: u64) -> Option<u64> {
        let due = (self.queue.waiting() > 0).then(|| self.due(pairs, 0));
        // If it is due and was not dispatched just before, it waits for a permit or for the pace.
        let due = due.map(|due| if due > now { due } else { self.next_chance(pairs, now) });
        let opens = self.has_held().then(|| self.opens(pairs, self.queue.unaware()));
        let lapses = self.queue.first_dispatched().map(|at| at.saturating_add(LAPSE));
        let forgets = self.limits.of(pairs).filter_map(Pair::forgets_at).min();
        let judges = self.judges_from(pairs);
        [due, opens, lapses, forgets, judges].into_iter().flatten().min()
    }

    /// Gives the units back of dispatched requests that were not polled in time.
    #[inline]
    pub(super) fn lapse_unpolled(&mut self, pairs: &mut Pairs, now: u64) {
        if let Some(by) = now.checked_sub(LAPSE).filter(|_| self.queue.unaware() > 0) {
            while self.queue.lapse_unpolled(by) {
                self.limits.give_back(pairs);
            }
        }
    }
}
