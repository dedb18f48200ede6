//! The state of one endpoint, as plain data. Times are nanoseconds since the pacer's origin.

use std::task::Waker;
use std::time::Duration;

use super::bucket::{Bucket, nanos};
use super::queue::{Fate, Queue, Turn};
use super::settings::Settings;
use crate::client::hints::{Memo, Standing};
use crate::client::usage::Usage;
use crate::values::{Endpoint, Quota};

/// How long a refusal pauses the endpoint if it has no valid time.
const PAUSE: u64 = SECOND;
/// The longest pause that the client chooses itself when refusals follow each other ...
const LONGEST_BACKOFF: u64 = 60 * SECOND;
/// ... and the longest that the server can ask for.
const LONGEST_PAUSE: u64 = 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// How long a unit is reserved for a dispatched request whose future is not polled. After that,
/// other requests may use the unit.
const LAPSE: u64 = SECOND / 4;

/// How long after its deadline a request is still dispatched, since a timer or a task may be late.
const LATENESS: u64 = SECOND;

/// How long a ready request may keep its ready service, when others were sent just before it.
const HOLD: u64 = SECOND / 4;

/// How long a quota that the server has reported is used, unless the server reports it again.
const BELIEF: u64 = 3600 * SECOND;

/// How late a timer may be without slowing down an even pace.
const EVEN_SLACK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct State {
    quota: Quota,
    settings: Settings,
    /// What this client may send by its policy, whatever the server reports.
    own: Bucket,
    /// The server's bucket as far as it is known. Other clients may take units from it too.
    server: Bucket,
    /// A cache for reading the server's fields.
    pub(super) memo: Memo,
    /// The quota that the server last reported, and when.
    told: Option<(Told, u64)>,
    paused_until: u64,
    /// How many refusals in a row were of requests sent after a pause.
    refused_in_a_row: u32,
    queue: Queue,
    in_flight: u64,
    /// The latest time at which the server's bucket is full, by all reports since the last moment
    /// without requests in flight.
    full_by: u64,
    /// When one more request would be due, for each of the three reasons to wait, at the last check
    /// of the deadlines. If one of these times is later now, waiting requests may miss their
    /// deadlines.
    judged: Turns,
    /// Whether there is a worker.
    pub(super) is_driven: bool,
    counts: Counts,
}

/// The burst, and the window in which it comes back, if that is known.
type Told = (u32, Option<Duration>);

/// The counters of an endpoint since the pacer was created.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
}

/// The times by the policy, by the server's bucket and by the pause.
type Turns = [u64; 3];

/// What happens to a request that arrives.
pub(super) enum Arrival {
    /// It counts as sent.
    Go,
    Wait(Turn),
    Full {
        wait: u64,
    },
    TooLong {
        wait: u64,
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

impl State {
    pub(super) fn new(quota: Quota, settings: Settings) -> Self {
        let bucket = Bucket::new(quota, settings.jitter);
        Self {
            quota,
            settings,
            own: if settings.is_even { bucket.even(EVEN_SLACK) } else { bucket },
            server: bucket,
            memo: Memo::default(),
            told: None,
            paused_until: 0,
            refused_in_a_row: 0,
            queue: Queue::default(),
            in_flight: 0,
            full_by: 0,
            judged: Turns::default(),
            is_driven: false,
            counts: Counts::default(),
        }
    }

    /// A request arrives. `again` is the time by which a request that was refused before has to be
    /// sent again.
    pub(super) fn arrive(&mut self, now: u64, again: Option<u64>) -> Arrival {
        self.pass_time(now);
        if self.queue.is_empty() && self.due(0).max(self.opens(self.queue.ready())) <= now {
            for bucket in [&mut self.own, &mut self.server] {
                bucket.let_go(now);
                bucket.send(now);
            }
            self.count_sent(again.is_some());
            return Arrival::Go;
        }
        self.turns_may_be_sooner();
        if let Some(deadline) = again {
            // It goes before others, and may be too late itself: all deadlines are to be checked.
            self.judged = Turns::default();
            return Arrival::Wait(self.queue.push(true, deadline));
        }
        let wait = self.due(self.queue.ahead()).saturating_sub(now);
        let longest = nanos(self.settings.max_wait);
        let is_full = self.queue.unsent() >= self.settings.max_waiting;
        if is_full || wait > longest {
            self.counts.unsent += 1;
            return if is_full { Arrival::Full { wait } } else { Arrival::TooLong { wait } };
        }
        let is_judged = !self.is_later();
        let turn = self.queue.push(false, now.saturating_add(longest));
        if is_judged {
            self.judged = self.turns();
        }
        Arrival::Wait(turn)
    }

    /// Dispatches all requests that are due, and makes those expire that are due after their
    /// deadlines. Returns when to call this again, if requests wait.
    pub(super) fn turn(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        self.pass_time(now);
        // Requests that would have to stay ready for too long lapse.
        while self.queue.ready() > 0
            && !self.may_hold(now, self.queue.unaware() + self.queue.ready() - 1)
        {
            woken.extend(self.queue.lapse_last_ready());
            self.give_back();
            self.catch_up();
        }
        while self.queue.ready() > 0 && self.opens(self.queue.unaware()) <= now {
            woken.extend(self.queue.let_ready_go(now));
        }
        self.judge(now, woken);
        while let Some(deadline) = self.queue.first_deadline().filter(|_| self.due(0) <= now) {
            if deadline.saturating_add(LATENESS) < now {
                self.counts.unsent += 1;
                woken.extend(self.queue.send_first_away(0));
            } else {
                self.own.let_go(now);
                self.server.let_go(now);
                woken.extend(self.queue.let_go(now));
            }
        }
        self.judge(now, woken);
        if self.queue.is_idle() {
            return None;
        }
        let due = self.queue.first_deadline().map(|_| self.due(0));
        let opens = (self.queue.ready() > 0).then(|| self.opens(self.queue.unaware()));
        let lapses = self.queue.first_let_go().map(|at| at.saturating_add(LAPSE));
        let forgets = self.told.map(|(_, at)| at.saturating_add(BELIEF));
        let next = [due, opens, lapses, forgets].into_iter().flatten().min();
        Some(next.unwrap_or(u64::MAX).max(now + 1))
    }

    /// Makes requests expire that are due after their deadlines, if a request may be due later than
    /// at the last check.
    fn judge(&mut self, now: u64, woken: &mut Vec<Waker>) {
        if self.is_later() {
            let (own, server, paused_until) = (self.own, self.server, self.paused_until);
            let due = |ahead| due(&own, &server, paused_until, ahead);
            self.counts.unsent += self.queue.send_late_ones_away(now, due, woken);
        }
        self.judged = self.turns();
    }

    fn turns(&self) -> Turns {
        let ahead = self.queue.ahead();
        [self.own.due(ahead), self.server.due(ahead), self.paused_until]
    }

    fn is_later(&self) -> bool {
        self.turns().iter().zip(&self.judged).any(|(now, judged)| now > judged)
    }

    /// Remembers the times that are earlier now, because they may become later again.
    fn turns_may_be_sooner(&mut self) {
        let now = self.turns();
        self.judged.iter_mut().zip(now).for_each(|(judged, now)| *judged = now.min(*judged));
    }

    /// The state of a request; `waker` is woken when it changes. A lapsed request takes its old
    /// place in the queue again.
    pub(super) fn look(&mut self, turn: Turn, waker: &mut Option<Waker>, deadline: u64) -> Fate {
        let fate = self.queue.look(turn, waker);
        if fate == Fate::Lapsed {
            self.queue.come_back(turn, waker.take(), deadline);
            self.judged = Turns::default();
        }
        fate
    }

    /// A dispatched request, which is ready now, is sent, unless others were sent just before or a
    /// pause has begun.
    pub(super) fn send(
        &mut self,
        turn: Turn,
        now: u64,
        again: bool,
        waker: &mut Option<Waker>,
    ) -> Verdict {
        if !self.queue.may_go(turn) {
            return Verdict::Back;
        }
        let before = self.queue.ready_before(turn);
        if !self.may_hold(now, before) {
            *waker = self.queue.lapse(turn);
            self.give_back();
            self.catch_up();
            return Verdict::Back;
        }
        if self.opens(before) > now {
            self.queue.hold(turn, waker);
            return Verdict::Hold;
        }
        *waker = self.queue.remove(turn).1;
        self.own.send(now);
        self.server.send(now);
        self.count_sent(again);
        Verdict::Go
    }

    /// Whether requests are ready, and may be sent earlier or later because of another one.
    pub(super) fn has_ready(&self) -> bool {
        self.queue.ready() > 0
    }

    /// A request leaves the queue. Returns whether another one may be due earlier now, and the
    /// waker of the request.
    pub(super) fn leave(&mut self, turn: Turn) -> (bool, Option<Waker>) {
        let (fate, waker) = self.queue.remove(turn);
        if fate == Fate::MayGo {
            self.give_back();
        }
        self.turns_may_be_sooner();
        (matches!(fate, Fate::Waits | Fate::MayGo), waker)
    }

    /// Whether the request waits and there is no worker to dispatch it.
    pub(super) fn is_left_alone(&self, turn: Turn) -> bool {
        !self.is_driven && self.queue.waits(turn)
    }

    /// The wakers of all requests that wait or are held.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.queue.wakers().collect()
    }

    /// A request that was sent will get no response.
    pub(super) fn abandon(&mut self) {
        self.in_flight -= 1;
        self.forget_if_idle();
    }

    /// A response that is not a refusal and reports usage. Returns whether waiting requests may be
    /// due at another time now.
    pub(super) fn hear(&mut self, sent_at: u64, now: u64, standing: Standing) -> bool {
        self.in_flight -= 1;
        let is_after_pause = self.granted(sent_at);
        let times = |state: &Self| {
            (state.queue.unsent() > 0).then(|| (state.turns(), state.due(0), state.opens(0)))
        };
        let before = times(self);
        self.take_word(sent_at, now, standing, is_after_pause);
        self.forget_if_idle();
        self.turns_may_be_sooner();
        times(self) != before
    }

    /// A response that is not a refusal and reports no usage.
    pub(super) fn hear_nothing(&mut self, sent_at: u64) {
        self.granted(sent_at);
        self.abandon();
    }

    /// Returns whether an admitted request was sent after the last pause. If so, it ends the series
    /// of refusals.
    fn granted(&mut self, sent_at: u64) -> bool {
        let is_after_pause = sent_at >= self.paused_until;
        if is_after_pause {
            self.refused_in_a_row = 0;
        }
        is_after_pause
    }

    fn take_word(&mut self, sent_at: u64, now: u64, standing: Standing, lower: bool) {
        let mut is_news = false;
        if let Some(quota) = standing.quota {
            let is_known = self.told.is_some_and(|(told, _)| told == quota);
            self.told = Some((quota, now));
            if !is_known {
                let (burst, window) = quota;
                is_news = self.server.adopt(
                    burst,
                    window,
                    self.quota,
                    self.settings.jitter,
                    LONGEST_PAUSE,
                );
            }
        }
        // The server decided at some time between these two.
        let earliest = self.server.full_later_than(sent_at, standing.remaining);
        let latest = self.server.full_by(now, standing.remaining);
        let pending = self.queue.pending();
        if is_news {
            // Earlier reports were about a bucket with another quota.
            self.full_by = latest;
            self.judged = Turns::default();
            self.server.believe(latest, self.in_flight, pending);
        } else {
            self.full_by = self.full_by.max(latest);
            self.server.correct(earliest, self.full_by, self.in_flight, pending, lower);
        }
        // Whatever it reports, a request is sent in the end: only its response can correct the
        // report.
        self.server.due_by(now.saturating_add(LONGEST_PAUSE).max(self.own.due(0)));
        if let Some(exhausted) = standing.exhausted.map(nanos) {
            // A bucket that refills unit by unit reports when the next unit is back, which is no
            // reason to pause; a window that starts anew reports when it does.
            if exhausted > self.server.interval().div_ceil(SECOND).saturating_mul(SECOND) {
                self.pause_until(now.saturating_add(exhausted.min(LONGEST_PAUSE)));
            }
        }
    }

    /// A refusal: no request is sent before the time that it names, and after that requests are
    /// sent one by one. `spread` returns a random part to add, so that clients that were refused at
    /// one time do not come back at one time. Returns how long the pause still is.
    ///
    /// The unit is not given back, although a server does not charge for a refusal: the policy
    /// limits all requests that are sent.
    pub(super) fn refuse(
        &mut self,
        sent_at: u64,
        now: u64,
        wait: Option<Duration>,
        spread: impl FnOnce(u64) -> u64,
    ) -> u64 {
        self.in_flight -= 1;
        self.counts.refused += 1;
        let wait = wait.map_or(PAUSE, nanos);
        if sent_at >= self.paused_until {
            self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
            let doublings = self.refused_in_a_row.saturating_sub(2).min(6);
            let backoff = if self.refused_in_a_row > 1 {
                (SECOND << doublings).min(LONGEST_BACKOFF)
            } else {
                0
            };
            let pause = wait.max(backoff).min(LONGEST_PAUSE);
            self.pause_until(
                now.saturating_add(pause)
                    .saturating_add(spread(self.server.interval().min(SECOND))),
            );
        } else {
            self.pause_until(now.saturating_add(wait.min(LONGEST_PAUSE)));
        }
        self.forget_if_idle();
        self.paused_until.saturating_sub(now)
    }

    /// No request is sent before that time, dispatched ones included. After it, requests are sent
    /// one by one until a response reports that more units are left.
    fn pause_until(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
        self.server.empty_until(self.paused_until, self.queue.pending());
    }

    pub(super) fn usage(&self, endpoint: Endpoint, now: u64) -> Usage {
        let paused = self.paused_until.saturating_sub(now);
        let waiting = self.queue.unsent();
        let at_once = self.own.remaining(now).min(self.server.remaining(now));
        Usage {
            endpoint,
            quota: self.quota,
            remaining: if paused > 0 || waiting > 0 { 0 } else { at_once },
            waiting,
            in_flight: self.in_flight,
            wait: Duration::from_nanos(self.due(self.queue.ahead()).saturating_sub(now)),
            paused: Duration::from_nanos(paused),
            sent: self.counts.sent,
            retried: self.counts.retried,
            refused: self.counts.refused,
            unsent: self.counts.unsent,
        }
    }

    /// When the next request may be dispatched, after `ahead` others.
    fn due(&self, ahead: u64) -> u64 {
        due(&self.own, &self.server, self.paused_until, ahead)
    }

    /// When the next dispatched request may be sent, after `ahead` others.
    fn opens(&self, ahead: u64) -> u64 {
        self.own.opens(ahead).max(self.server.opens(ahead))
    }

    /// Whether a ready request stays ready until it may be sent, after `ahead` others.
    fn may_hold(&self, now: u64, ahead: u64) -> bool {
        self.paused_until <= now && self.opens(ahead) <= now.saturating_add(HOLD)
    }

    fn count_sent(&mut self, again: bool) {
        self.in_flight += 1;
        self.counts.sent += 1;
        self.counts.retried += u64::from(again);
    }

    fn give_back(&mut self) {
        let pending = self.queue.pending();
        self.own.give_back(pending);
        self.server.give_back(pending);
    }

    fn catch_up(&mut self) {
        let pending = self.queue.pending();
        self.own.catch_up(pending);
        self.server.catch_up(pending);
    }

    /// Gives the units back of dispatched requests that were not polled in time, and drops a quota
    /// that the server has not reported for too long.
    fn pass_time(&mut self, now: u64) {
        while self.queue.first_let_go().is_some_and(|at| at.saturating_add(LAPSE) <= now) {
            self.queue.lapse_first();
            self.give_back();
        }
        if self.told.is_some_and(|(_, at)| at.saturating_add(BELIEF) <= now) {
            self.told = None;
            self.server.forget(&self.own, self.quota, self.settings.jitter);
        }
    }

    /// `full_by` holds only for the requests that were in flight when it was reported.
    fn forget_if_idle(&mut self) {
        if self.in_flight == 0 {
            self.full_by = 0;
        }
    }
}

/// When the next request may be dispatched, after `ahead` others.
fn due(own: &Bucket, server: &Bucket, paused_until: u64, ahead: u64) -> u64 {
    own.due(ahead).max(server.due(ahead)).max(paused_until)
}
