//! The future of a request that has arrived is polled, is ready to send, or is dropped.

use std::task::Waker;

use super::super::pairs::Pairs;
use super::super::queue::{Place, Polled, Stage, Ticket};
use super::State;

/// What happens to a dispatched request that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client::pace) enum Verdict {
    /// It counts as sent.
    Go,
    /// It stays ready, and is woken in a moment.
    Hold,
    /// It has to wait in the queue again.
    Back,
}

impl State {
    /// The future of a request is polled before its service is ready. `waker` is stored if the
    /// request waits.
    pub(in crate::client::pace) fn poll(
        &mut self,
        ticket: Ticket,
        waker: &mut Option<Waker>,
    ) -> Polled {
        let polled = self.queue.poll(ticket, waker);
        if polled == Polled::WaitsAgain {
            self.limits.mark_unjudged();
        }
        polled
    }

    /// A dispatched request, which is ready now, is sent, unless others were sent just before or a
    /// pause has begun. If it is held, `waker` is stored, and the previous one is left in its
    /// place. Returns, too, the waker of a request that is not held.
    pub(in crate::client::pace) fn send(
        &mut self,
        pairs: &mut Pairs,
        ticket: Ticket,
        now: u64,
        is_retry: bool,
        waker: &mut Option<Waker>,
    ) -> (Verdict, Option<Waker>) {
        if !self.queue.stage(ticket).is_some_and(Stage::is_dispatched) {
            return (Verdict::Back, None);
        }
        let place = self.queue.place(ticket);
        // If there is no time for all that are held, the worker makes the last ones lapse.
        let before = if let Place::Last(before) = place { before } else { 0 };
        if !self.may_hold(pairs, now, before) {
            let left = self.queue.lapse(ticket);
            self.limits.lapse(pairs);
            return (Verdict::Back, left);
        }
        if place != Place::First || self.opens(pairs, 0) > now {
            self.queue.hold(ticket, waker);
            return (Verdict::Hold, None);
        }
        let left = self.queue.leave(ticket).and_then(|(_, waker)| waker);
        self.limits.send(pairs, now);
        self.count_sent(is_retry);
        (Verdict::Go, left)
    }

    /// A request leaves the queue. Returns whether another one may be due earlier now, and the
    /// waker of the request.
    pub(in crate::client::pace) fn leave(
        &mut self,
        pairs: &mut Pairs,
        ticket: Ticket,
    ) -> (bool, Option<Waker>) {
        let Some((stage, waker)) = self.queue.leave(ticket) else { return (false, None) };
        if stage.is_dispatched() {
            self.limits.give_back(pairs);
        }
        self.remember_sooner(pairs);
        (stage == Stage::Waiting || stage.is_dispatched(), waker)
    }
}
