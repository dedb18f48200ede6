//! The state of one endpoint, as plain data: its queue, its limits and its counters. Times are
//! nanoseconds since the pacer's origin.
//!
//! The methods get the pairs of the [group](super::group::Group), of which some are this
//! endpoint's.

mod answers;
mod arrival;
mod counts;
mod deadlines;
mod dispatch;
mod in_flight;
mod sending;

use std::task::Waker;
use std::time::Duration;

pub(super) use answers::Refusal;
pub(super) use arrival::{Arrival, Newcomer};
pub(super) use counts::Counts;
pub(super) use sending::Verdict;

use super::limits::Limits;
use super::pairs::Pairs;
use super::pool::Pool;
use super::queue::{Each, Order, Queue, Request, Stage, Ticket};
use super::settings::Settings;
use crate::client::hints::{Memo, Names};
use crate::client::priority::Priority;
use crate::client::usage::{LearnedRate, Usage};
use crate::values::{Endpoint, Quota};

const SECOND: u64 = 1_000_000_000;

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
    pub(super) refused_in_a_row: u32,
    queue: Queue,
    /// Until when not all deadlines are checked again.
    rests_until: u64,
    /// A waiting request that came next, was due and lacked a permit.
    passed_over: Option<Ticket>,
    /// How many requests have been sent and have no response yet.
    in_flight: u64,
    /// How many requests have permits, and a response.
    held: u64,
    pub(super) counts: Counts,
    /// Since when the endpoint was paused, and until when, as last logged.
    logged_pause: (u64, u64),
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
            rests_until: 0,
            passed_over: None,
            in_flight: 0,
            held: 0,
            counts: Counts::default(),
            logged_pause: (0, 0),
        }
    }

    pub(super) fn usage(&self, pairs: &mut Pairs, order: Order, now: u64) -> Usage {
        self.limits.each_pool(pairs, |pool| pool.pass_time(now));
        let paused = self.limits.paused_until(pairs).saturating_sub(now);
        let waiting = self.queue.unsent();
        let is_stopped = paused > 0 || waiting != [0, 0];
        let waits = [Priority::Interactive, Priority::Bulk].map(|priority| {
            let ahead = order.ahead(priority, self.queue.each_undispatched());
            Duration::from_nanos(self.limits.expected(pairs, ahead).saturating_sub(now))
        });
        Usage {
            endpoint: self.endpoint,
            quota: self.quota,
            remaining: if is_stopped { 0 } else { self.limits.remaining(pairs, now) },
            waiting,
            unanswered: self.in_flight,
            waits,
            paused: Duration::from_nanos(paused),
            counted: self.counts.now(),
            learned_rate: self.learned_rate(pairs, now),
            concurrency: self.concurrency(pairs, now),
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Whether requests are in flight, or permits kept.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight + self.held > 0
    }

    /// Gives up all requests that have not been sent.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = (Ticket, Request)> + use<> {
        self.queue.give_up()
    }

    /// Takes in a request that another endpoint has given up.
    pub(super) fn welcome(&mut self, ticket: Ticket, request: Request) {
        self.queue.welcome(ticket, request);
    }

    /// Takes over what is known of the endpoint from the policy before.
    pub(super) fn inherit(&mut self, old: &Self) {
        (self.in_flight, self.held) = (old.in_flight, old.held);
        self.refused_in_a_row = old.refused_in_a_row;
        self.counts = old.counts.clone();
    }

    /// Counts all that has units or permits of the endpoint's limits.
    pub(super) fn count_in(&self, pairs: &mut Pairs, now: u64) {
        let dispatched = self.queue.dispatched();
        self.limits.each(pairs, |pair| {
            let (in_flight, pending) = pair.counts();
            pair.recount(in_flight + self.in_flight, pending + dispatched, now);
        });
        let taken = self.in_flight + self.held;
        self.limits.each_pool(pairs, |pool| pool.count(taken, dispatched));
    }

    fn learned_rate(&self, pairs: &Pairs, now: u64) -> Option<LearnedRate> {
        let (interval, measured) = self.limits.learned_intervals(pairs, now)?;
        let [interval, measured] = [interval, measured].map(Duration::from_nanos);
        Some(LearnedRate { interval, measured })
    }

    /// The first request of that priority that waits to be dispatched.
    pub(super) fn first(&self, priority: Priority) -> Option<Ticket> {
        self.queue.first(priority)
    }

    /// Which requests wait to be dispatched.
    pub(super) fn waiting(&self) -> Each<bool> {
        self.queue.waits()
    }

    /// Whether no request waits for a point in time.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// Whether requests are held, and may be sent earlier or later because of another one.
    pub(super) fn has_held(&self) -> bool {
        self.queue.held() > 0
    }

    /// Whether requests have not been sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.queue.unsent() != [0, 0]
    }

    /// Whether the request waits to be dispatched or sent.
    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        matches!(self.queue.stage(ticket), Some(Stage::Waiting | Stage::Held))
    }

    /// The wakers of all requests that wait or are held.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.queue.wakers()
    }

    /// When unsent requests are due, by each of the limits.
    pub(super) fn times<'a>(&'a self, pairs: &'a Pairs) -> impl Iterator<Item = Times> + 'a {
        let ahead = self.queue.undispatched();
        self.limits.of(pairs).map(move |pair| {
            let [own, server, paused_until, _] = pair.due_times(ahead);
            [own, server, paused_until, pair.dispatch_at(), pair.opens(0)]
        })
    }

    /// When the next request may be dispatched, after `ahead` others.
    fn due(&self, pairs: &Pairs, ahead: u64) -> u64 {
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

    fn count_sent(&mut self, is_retry: bool) {
        self.in_flight += 1;
        self.counts.sent += 1;
        self.counts.retried += u64::from(is_retry);
    }
}

/// How long a ready request may keep its ready service, when others were sent just before it.
const HOLD: u64 = SECOND / 4;
