//! A request arrives: it is sent at once, waits, or fails.

use super::super::bucket::nanos;
use super::super::error::Lack;
use super::super::pairs::Pairs;
use super::super::queue::Ticket;
use super::State;

/// What happens to a request that can't be sent at once.
pub(in crate::client::pace) enum Arrival {
    Waits(Ticket),
    Full { wait: u64, lack: Lack },
    TooLong { wait: u64, lack: Lack },
}

impl State {
    /// A request arrives. Returns whether it can be sent at once; then it counts as sent.
    #[inline]
    pub(in crate::client::pace) fn pass(
        &mut self,
        pairs: &mut Pairs,
        now: u64,
        is_retry: bool,
    ) -> bool {
        self.lapse_unpolled(pairs, now);
        let (mut opens, held) = (0, self.queue.held());
        self.limits.each(pairs, |pair| {
            pair.pass_time(now);
            opens = opens.max(pair.due(0)).max(pair.opens(held));
        });
        let has_room = !self.has_pools() || self.has_room(pairs, now);
        let passes = self.queue.is_empty() && opens <= now && has_room;
        if passes {
            self.limits.pass(pairs, now);
            self.count_sent(is_retry);
        }
        passes
    }

    /// A request that can't be sent at once waits, if it is not too late for it. `number` orders
    /// the requests of all endpoints of the group; `again` is the time by which a request that was
    /// refused before has to be sent again.
    pub(in crate::client::pace) fn wait(
        &mut self,
        pairs: &mut Pairs,
        number: u64,
        now: u64,
        again: Option<u64>,
    ) -> Arrival {
        self.remember_sooner(pairs);
        if let Some(deadline) = again {
            // It goes before others, and may be too late itself: all deadlines are to be checked.
            self.limits.mark_unjudged();
            return Arrival::Waits(self.queue.arrive(number, true, deadline));
        }
        let ahead = self.queue.ahead();
        let wait = self.due(pairs, ahead).saturating_sub(now);
        let longest = nanos(self.settings.max_wait);
        let is_full = self.queue.unsent() >= self.settings.max_waiting;
        if is_full || wait > longest {
            self.counts.unsent += 1;
            let lack = self.lack(pairs, now);
            return if is_full {
                Arrival::Full { wait, lack }
            } else {
                Arrival::TooLong { wait, lack }
            };
        }
        let is_judged = !self.limits.is_later(pairs, ahead);
        let ticket = self.queue.arrive(number, false, now.saturating_add(longest));
        if is_judged {
            self.limits.mark_judged(pairs, self.queue.ahead());
        }
        Arrival::Waits(ticket)
    }
}
