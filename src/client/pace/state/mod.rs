//! The state of one endpoint, as plain data. Times are nanoseconds since the pacer's origin.

mod answers;
mod in_flight;

use std::task::Waker;
use std::time::Duration;

use super::bucket::nanos;
use super::error::Lack;
use super::limits::Limits;
use super::pair::Pair;
use super::pairs::Pairs;
use super::pool::Pool;
use super::queue::{Fate, Queue, Ticket};
use super::settings::Settings;
use crate::client::hints::{Memo, Names};
use crate::client::usage::Usage;
use crate::values::{Endpoint, Quota};

const SECOND: u64 = 1_000_000_000;

/// How long a unit is reserved for a dispatched request whose future is not polled. After that,
/// other requests may use the unit.
const LAPSE: u64 = SECOND / 4;

/// How long after its deadline a request is still dispatched, since a timer or a task may be late.
const LATENESS: u64 = SECOND;

/// How long a ready request may keep its ready service, when others were sent just before it.
const HOLD: u64 = SECOND / 4;

/// The methods get the pairs of the [group](super::group::Group), of which some are this
/// endpoint's.
#[derive(Debug)]
pub(super) struct State {
    endpoint: Endpoint,
    quota: Quota,
    settings: Settings,
    pub(super) limits: Limits,
    /// The names of the limits.
    pub(super) names: Names,
    /// A cache for reading the server's fields.
    pub(super) memo: Memo,
    /// How many refusals in a row were of requests sent after a pause.
    refused_in_a_row: u32,
    queue: Queue,
    /// The first waiting request, if it was due and lacked a permit.
    passed_over: Option<Ticket>,
    /// How many requests have been sent and have no response yet.
    in_flight: u64,
    /// How many requests have permits, and a response.
    held: u64,
    counts: Counts,
}

/// The counters of an endpoint since the pacer was created.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
}

/// What happens to a request that arrives.
pub(super) enum Arrival {
    /// It counts as sent.
    Sent,
    Wait(Ticket),
    Full {
        wait: u64,
        lack: Lack,
    },
    TooLong {
        wait: u64,
        lack: Lack,
    },
}

/// What happens to a dispatched request that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts as sent.
    Go,
    /// It stays ready, and is woken in a moment.
    Hold,
    /// It has to wait in the queue again.
    Back,
}

/// When one more request is due by a limit, for each of the three reasons to wait; when the first
/// one is due; and when the first dispatched one may be sent.
pub(super) type Times = [u64; 5];

impl State {
    pub(super) fn new(
        endpoint: Endpoint,
        limits: Limits,
        pairs: &Pairs,
        settings: Settings,
    ) -> Self {
        let own = limits.of(pairs).next().map(|pair| pair.quota);
        Self {
            endpoint,
            quota: own.expect("each endpoint has its own limit"),
            settings,
            names: Names {
                rates: limits.of(pairs).map(|pair| pair.name).collect(),
                concurrent: limits.pools(pairs).filter_map(Pool::name).collect(),
            },
            limits,
            memo: Memo::default(),
            refused_in_a_row: 0,
            queue: Queue::default(),
            passed_over: None,
            in_flight: 0,
            held: 0,
            counts: Counts::default(),
        }
    }

    /// A request arrives. `number` orders the requests of all endpoints; `again` is the time by
    /// which a request that was refused before has to be sent again. If it `is_behind` requests of
    /// other endpoints, it has to wait for a moment.
    #[inline]
    pub(super) fn arrive(
        &mut self,
        pairs: &mut Pairs,
        number: u64,
        now: u64,
        again: Option<u64>,
        is_behind: bool,
    ) -> Arrival {
        self.lapse_late_ones(pairs, now);
        let (mut opens, ready) = (0, self.queue.ready());
        self.limits.each(pairs, |pair| {
            pair.pass_time(now);
            opens = opens.max(pair.dispatch_at()).max(pair.opens(ready));
        });
        let has_room = !self.has_pools() || self.has_room(pairs, now);
        if !is_behind && self.queue.is_empty() && opens <= now && has_room {
            self.limits.pass(pairs, now);
            self.count_sent(again.is_some());
            return Arrival::Sent;
        }
        self.wait(pairs, number, now, again)
    }

    /// A request arrives that can't be sent at once.
    fn wait(&mut self, pairs: &mut Pairs, number: u64, now: u64, again: Option<u64>) -> Arrival {
        self.remember_sooner(pairs);
        if let Some(deadline) = again {
            // It goes before others, and may be too late itself: all deadlines are to be checked.
            self.limits.mark_unjudged();
            return Arrival::Wait(self.queue.push(number, true, deadline));
        }
        let wait = self.due(pairs, self.queue.ahead()).saturating_sub(now);
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
        let is_judged = !self.limits.is_later(pairs, self.queue.ahead());
        let ticket = self.queue.push(number, false, now.saturating_add(longest));
        if is_judged {
            self.limits.mark_judged(pairs, self.queue.ahead());
        }
        Arrival::Wait(ticket)
    }

    /// Makes those requests lapse that would have to stay dispatched or ready for too long, and
    /// dispatches the ready ones again that may be sent now.
    pub(super) fn clear(&mut self, pairs: &mut Pairs, now: u64, woken: &mut Vec<Waker>) {
        self.lapse_late_ones(pairs, now);
        self.limits.each(pairs, |pair| pair.pass_time(now));
        self.limits.each_pool(pairs, |pool| pool.pass_time(now));
        while self.queue.ready() > 0
            && !self.may_hold(pairs, now, self.queue.unaware() + self.queue.ready() - 1)
        {
            woken.extend(self.queue.lapse_last_ready());
            self.limits.lapse(pairs);
        }
        while self.queue.ready() > 0 && self.opens(pairs, self.queue.unaware()) <= now {
            woken.extend(self.queue.redispatch_ready(now));
        }
    }

    /// Dispatches the first waiting request, which is due, or makes it expire.
    pub(super) fn dispatch(&mut self, pairs: &mut Pairs, now: u64, woken: &mut Vec<Waker>) {
        let Some(deadline) = self.queue.first_deadline() else { return };
        if deadline.saturating_add(LATENESS) < now {
            self.counts.unsent += 1;
            let lack = self.lack(pairs, now);
            woken.extend(self.queue.expire_first(0, lack));
        } else {
            self.limits.dispatch(pairs, now);
            woken.extend(self.queue.dispatch(now));
        }
    }

    /// Makes requests expire that are due after their deadlines, if a request may be due later than
    /// at the last check.
    pub(super) fn judge(&mut self, pairs: &Pairs, now: u64, woken: &mut Vec<Waker>) {
        if self.limits.is_later(pairs, self.queue.ahead()) {
            let (due, lack) = (|ahead| self.limits.due(pairs, ahead), self.lack_of_time(pairs));
            self.counts.unsent += self.queue.expire_late(now, due, lack, woken);
        }
        self.limits.mark_judged(pairs, self.queue.ahead());
    }

    /// Whether no request waits for a point in time.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// The first request that waits to be dispatched.
    pub(super) fn first(&self) -> Option<Ticket> {
        self.queue.first()
    }

    /// When something is to be done for this endpoint.
    pub(super) fn next(&self, pairs: &Pairs, now: u64) -> Option<u64> {
        let due = self.queue.first().map(|_| self.due(pairs, 0));
        // If it is due and was not dispatched just before, it waits for a permit or for the pace.
        let due = due.map(|due| if due > now { due } else { self.next_chance(pairs, now) });
        let opens = (self.queue.ready() > 0).then(|| self.opens(pairs, self.queue.unaware()));
        let lapses = self.queue.first_dispatched().map(|at| at.saturating_add(LAPSE));
        let forgets = self.limits.of(pairs).filter_map(Pair::forgets_at).min();
        [due, opens, lapses, forgets].into_iter().flatten().min()
    }

    /// Remembers the times that are earlier now, because they may become later again. That matters
    /// only to requests that wait.
    fn remember_sooner(&mut self, pairs: &Pairs) {
        let ahead = self.queue.ahead();
        if ahead > 0 {
            self.limits.mark_sooner(pairs, ahead);
        }
    }

    /// The state of a request; `waker` is woken when it changes. A lapsed request takes its old
    /// place in the queue again.
    pub(super) fn look(
        &mut self,
        ticket: Ticket,
        waker: &mut Option<Waker>,
        deadline: u64,
    ) -> Fate {
        let fate = self.queue.look(ticket, waker);
        if fate == Fate::Lapsed {
            self.queue.come_back(ticket, waker.take(), deadline);
            self.limits.mark_unjudged();
        }
        fate
    }

    /// A dispatched request, which is ready now, is sent, unless others were sent just before or a
    /// pause has begun.
    pub(super) fn send(
        &mut self,
        pairs: &mut Pairs,
        ticket: Ticket,
        now: u64,
        again: bool,
        waker: &mut Option<Waker>,
    ) -> Verdict {
        if !self.queue.may_go(ticket) {
            return Verdict::Back;
        }
        let before = self.queue.ready_before(ticket);
        if !self.may_hold(pairs, now, before) {
            *waker = self.queue.lapse(ticket);
            self.limits.lapse(pairs);
            return Verdict::Back;
        }
        if self.opens(pairs, before) > now {
            self.queue.hold(ticket, waker);
            return Verdict::Hold;
        }
        *waker = self.queue.remove(ticket).1;
        self.limits.send(pairs, now);
        self.count_sent(again);
        Verdict::Go
    }

    /// Whether requests are ready, and may be sent earlier or later because of another one.
    pub(super) fn has_ready(&self) -> bool {
        self.queue.ready() > 0
    }

    /// Whether requests have not been sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.queue.unsent() > 0
    }

    /// When unsent requests are due, by each of the limits.
    pub(super) fn times<'a>(&'a self, pairs: &'a Pairs) -> impl Iterator<Item = Times> + 'a {
        let ahead = self.queue.ahead();
        self.limits.of(pairs).map(move |pair| {
            let [own, server, paused_until, _] = pair.due_times(ahead);
            [own, server, paused_until, pair.dispatch_at(), pair.opens(0)]
        })
    }

    /// A request leaves the queue. Returns whether another one may be due earlier now, and the
    /// waker of the request.
    pub(super) fn leave(&mut self, pairs: &mut Pairs, ticket: Ticket) -> (bool, Option<Waker>) {
        let (fate, waker) = self.queue.remove(ticket);
        if fate == Fate::Dispatched {
            self.limits.give_back(pairs);
        }
        self.remember_sooner(pairs);
        (matches!(fate, Fate::Waits | Fate::Dispatched), waker)
    }

    /// Whether the request waits to be dispatched or sent.
    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        self.queue.waits(ticket)
    }

    /// The wakers of all requests that wait or are held.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.queue.wakers()
    }

    pub(super) fn usage(&self, pairs: &mut Pairs, now: u64) -> Usage {
        self.limits.each_pool(pairs, |pool| pool.pass_time(now));
        let paused = self.limits.paused_until(pairs).saturating_sub(now);
        let waiting = self.queue.unsent();
        let is_stopped = paused > 0 || waiting > 0;
        let wait = self.limits.expected(pairs, self.queue.ahead()).saturating_sub(now);
        Usage {
            endpoint: self.endpoint,
            quota: self.quota,
            remaining: if is_stopped { 0 } else { self.limits.remaining(pairs, now) },
            waiting,
            in_flight: self.in_flight,
            wait: Duration::from_nanos(wait),
            paused: Duration::from_nanos(paused),
            sent: self.counts.sent,
            retried: self.counts.retried,
            refused: self.counts.refused,
            unsent: self.counts.unsent,
            concurrency: self.concurrency(pairs, now),
        }
    }

    /// When the next request may be dispatched, after `ahead` others.
    pub(super) fn due(&self, pairs: &Pairs, ahead: u64) -> u64 {
        self.limits.due(pairs, ahead)
    }

    /// When the next dispatched request may be sent, after `ahead` others.
    fn opens(&self, pairs: &Pairs, ahead: u64) -> u64 {
        self.limits.opens(pairs, ahead)
    }

    /// Whether a ready request stays ready until it may be sent, after `ahead` others.
    fn may_hold(&self, pairs: &Pairs, now: u64, ahead: u64) -> bool {
        self.limits.paused_until(pairs) <= now
            && self.limits.may_send(pairs, now)
            && self.opens(pairs, ahead) <= now.saturating_add(HOLD)
    }

    fn count_sent(&mut self, again: bool) {
        self.in_flight += 1;
        self.counts.sent += 1;
        self.counts.retried += u64::from(again);
    }

    /// Gives the units back of dispatched requests that were not polled in time.
    #[inline]
    fn lapse_late_ones(&mut self, pairs: &mut Pairs, now: u64) {
        while self.queue.first_dispatched().is_some_and(|at| at.saturating_add(LAPSE) <= now) {
            self.queue.lapse_first();
            self.limits.give_back(pairs);
        }
    }
}
