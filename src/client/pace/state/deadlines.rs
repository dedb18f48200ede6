//! The requests that can't be dispatched before their deadlines.

use std::task::Waker;
use std::time::Duration;

use super::super::error::Lack;
use super::super::pair::Pair;
use super::super::pairs::Pairs;
use super::super::queue::Order;
use super::{SECOND, State};
use crate::client::log::Event;

/// How long after a check of all deadlines the next one begins, for each thousand requests that
/// wait. A check takes about a hundredth of that.
const REST_PER_THOUSAND: u64 = SECOND / 1000;

impl State {
    /// Makes requests expire that are due after their deadlines, if a request may be due later than
    /// at the last check. The check looks at each waiting request, so it is not made at once if the
    /// last one was just before.
    pub(in crate::client::pace) fn judge(
        &mut self,
        pairs: &mut Pairs,
        order: Order,
        now: u64,
        woken: &mut Vec<Waker>,
    ) {
        if let Some(from) = self.judges_from(pairs) {
            if now < from {
                return;
            }
            let thousands = self.queue.waiting() as u64 / 1000;
            self.rests_until = now.saturating_add(thousands * REST_PER_THOUSAND);
            let (due, others) = (|ahead| self.limits.due(pairs, ahead), self.queue.undispatched());
            let lack = self.lack_of_time(pairs, |pair| pair.due(others));
            let expired = self.queue.expire_late(order, now, due, lack, woken);
            let wait = due(self.queue.undispatched()).saturating_sub(now);
            self.count_unsent(pairs, now, expired, Duration::from_nanos(wait), lack);
        }
        self.limits.mark_judged(pairs, self.queue.undispatched());
    }

    /// When the deadlines are to be checked, if a request may miss its deadline.
    pub(super) fn judges_from(&self, pairs: &Pairs) -> Option<u64> {
        let has_waiting = self.queue.waiting() > 0;
        let is_later = has_waiting && self.limits.is_later(pairs, self.queue.undispatched());
        is_later.then_some(self.rests_until)
    }

    /// Makes the requests expire that have waited until their deadlines for a permit, or for a pace
    /// that was learned. It is not known before when a permit is given back, nor whether the pace
    /// gets faster. Returns whether there were any.
    pub(in crate::client::pace) fn expire(
        &mut self,
        pairs: &mut Pairs,
        now: u64,
        woken: &mut Vec<Waker>,
    ) -> bool {
        if self.queue.waiting() == 0 || self.due(pairs, 0) > now {
            return false;
        }
        let pool = self.limits.fullest(pairs, now);
        let lack = match pool.filter(|pool| self.lacks_permit(pairs, pool, now)) {
            Some(pool) => pool.lack(now),
            None => self.lack_of_time(pairs, Pair::dispatch_at),
        };
        let wait = self.limits.dispatch_at(pairs).saturating_sub(now);
        let expired = self.queue.expire_overdue(now, wait, lack, woken);
        self.count_unsent(pairs, now, expired, Duration::from_nanos(wait), lack);
        expired > 0
    }

    /// Counts requests that are not sent, and logs them. One more would have to wait for that time,
    /// for what it lacks.
    pub(super) fn count_unsent(
        &mut self,
        pairs: &mut Pairs,
        now: u64,
        requests: u64,
        wait: Duration,
        lack: Lack,
    ) {
        self.counts.unsent += requests;
        if requests > 0 {
            let (endpoint, limit) = (self.endpoint, lack.limit);
            pairs.events.add(now, Event::Unsent { endpoint, requests, wait, limit });
        }
    }

    /// All requests may wait for so much longer, because they could not be dispatched in that time.
    pub(in crate::client::pace) fn move_deadlines(&mut self, by: u64) {
        self.queue.move_deadlines(by);
    }

    /// Remembers the times that are earlier now, because they may become later again. That matters
    /// only to requests that wait.
    pub(super) fn remember_sooner(&mut self, pairs: &Pairs) {
        let ahead = self.queue.undispatched();
        if ahead > 0 {
            self.limits.mark_sooner(pairs, ahead);
        }
    }
}
