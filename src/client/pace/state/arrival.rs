//! A request arrives: it is sent at once, waits, or fails.

use std::sync::Arc;
use std::time::Duration;

use super::super::bucket::nanos;
use super::super::error::Lack;
use super::super::pairs::Pairs;
use super::super::queue::{Order, Ticket};
use super::State;
use crate::client::max_wait::{MaxWait, WaitOptions};
use crate::client::priority::Priority;

/// What happens to a request that can't be sent at once.
pub(in crate::client::pace) enum Arrival {
    /// It `is_news` to the worker if others may be due later now, or if its deadline is the first.
    Waits {
        ticket: Ticket,
        is_news: bool,
    },
    Full {
        wait: u64,
        lack: Lack,
    },
    TooLong {
        wait: u64,
        lack: Lack,
    },
}

/// A request that can't be sent at once.
#[derive(Clone)]
pub(in crate::client::pace) struct Newcomer {
    /// Orders the requests of all endpoints.
    pub(in crate::client::pace) number: u64,
    pub(in crate::client::pace) options: WaitOptions,
    /// By when it has to be sent again, if it was refused before.
    pub(in crate::client::pace) again: Option<u64>,
    pub(in crate::client::pace) path: Arc<str>,
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
        let (mut opens, mut held, mut is_first) = (0, 0, true);
        // Most requests find the queue without any other.
        if !self.queue.has_none() {
            self.lapse_unpolled(pairs, now);
            (held, is_first) = (self.queue.held(), self.queue.is_empty());
        }
        self.limits.each_with_events(pairs, |pair, events| {
            pair.pass_time(now, events);
            opens = opens.max(pair.dispatch_at()).max(pair.opens(held));
        });
        let has_room = !self.has_pools() || self.has_room(pairs, now);
        let passes = is_first && opens <= now && has_room;
        if passes {
            self.limits.pass(pairs, now);
            self.count_sent(is_retry);
        }
        passes
    }

    /// A request that can't be sent at once waits, if it is not too late for it.
    pub(in crate::client::pace) fn wait(
        &mut self,
        pairs: &mut Pairs,
        order: Order,
        now: u64,
        newcomer: Newcomer,
    ) -> Arrival {
        let Newcomer { number, options, again, path } = newcomer;
        let WaitOptions { priority, max_wait } = options;
        self.remember_sooner(pairs);
        if let Some(deadline) = again {
            // It goes before others, and may be too late itself: all deadlines are to be checked.
            self.limits.mark_unjudged();
            let ticket = self.queue.arrive(number, priority, true, deadline, path);
            return Arrival::Waits { ticket, is_news: true };
        }
        let others = self.queue.undispatched();
        let ahead = order.ahead(priority, self.queue.each_undispatched());
        let longest = nanos(max_wait.map_or(self.settings.max_wait, |MaxWait(wait)| wait));
        // One that may not wait fails although it may be due now, and is told all that is known.
        let (may_wait, due) = (longest > 0, self.due(pairs, ahead));
        let known = || self.limits.expected(pairs, ahead).max(self.limits.dispatch_at(pairs));
        let due = if may_wait { due } else { due.max(known()) };
        let wait = due.saturating_sub(now);
        let is_full = self.is_full(priority);
        if is_full || !may_wait || wait > longest {
            let lack = if is_full || !may_wait {
                self.lack(pairs, now)
            } else {
                // Its place in the order comes too late, whether there is a permit then or not.
                self.lack_of_time(pairs, |pair| pair.due(ahead))
            };
            self.count_unsent(pairs, now, 1, Duration::from_nanos(wait), lack);
            return if is_full {
                Arrival::Full { wait, lack }
            } else {
                Arrival::TooLong { wait, lack }
            };
        }
        let goes_before = ahead < others;
        let deadline = now.saturating_add(longest);
        // While requests wait for a permit or an answer, the worker sleeps until the first of the
        // deadlines.
        let ends_first = self.queue.next_deadline().is_some_and(|first| deadline < first);
        let is_judged = !goes_before && !self.limits.is_later(pairs, others);
        let ticket = self.queue.arrive(number, priority, false, deadline, path);
        if is_judged {
            self.limits.mark_judged(pairs, others + 1);
        } else if goes_before {
            self.limits.mark_unjudged();
        }
        Arrival::Waits { ticket, is_news: goes_before || ends_first }
    }

    /// Whether no more requests of that priority may wait. A bulk job leaves room for interactive
    /// requests.
    fn is_full(&self, priority: Priority) -> bool {
        let [interactive, bulk] = self.queue.unsent();
        let others = if priority == Priority::Bulk { bulk } else { 0 };
        interactive + others >= self.settings.max_waiting
    }
}
