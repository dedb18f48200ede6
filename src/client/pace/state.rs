//! The pace of one endpoint, as plain data. Times are nanoseconds since the pacer's origin.

use std::task::Waker;
use std::time::Duration;

use super::bucket::{Bucket, nanos};
use super::queue::{Fate, Queue, Turn};
use super::settings::Settings;
use crate::client::hints::{Memo, Standing};
use crate::client::usage::Usage;
use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// How long an endpoint is paused when it refuses without saying for how long.
const PAUSE: u64 = SECOND;
/// The longest that it is paused on its own account when it refuses again and again ...
const LONGEST_BACKOFF: u64 = 60 * SECOND;
/// ... and on the server's.
const LONGEST_PAUSE: u64 = 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// For how long a unit is kept for one that was let go and does not look. Others need not wait for
/// a future that nobody polls.
const LAPSE: u64 = SECOND / 4;

/// How late a timer or a task may be without a request's being sent away for it.
const LATENESS: u64 = SECOND;

/// For how long one that is ready keeps so what it has of the service, when others have been sent
/// just before it.
const HOLD: u64 = SECOND / 4;

/// For how long a quota is believed that the server has told, unless it tells it again.
const BELIEF: u64 = 3600 * SECOND;

/// How late a timer may be without slowing an even pace down.
const EVEN_SLACK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct State {
    quota: Quota,
    settings: Settings,
    /// What this client may send by its policy, whatever the server says.
    own: Bucket,
    /// What the server is believed to have, of which others may take too.
    server: Bucket,
    /// What helps to read the server's fields.
    pub(super) memo: Memo,
    /// The quota that the server last told, and when.
    told: Option<(Told, u64)>,
    paused_until: u64,
    /// How often in a row it was refused after a pause.
    refused_in_a_row: u32,
    queue: Queue,
    in_flight: u64,
    /// When the server's bucket is full at the latest, by all that has been said since nothing was
    /// in flight.
    full_by: u64,
    /// When one who came last would have its turn, by each of what says so, as far as those before
    /// it have been looked at. If one of these times becomes later, so may theirs.
    judged: Turns,
    /// Whether a task lets those go who wait.
    pub(super) is_driven: bool,
    counts: Counts,
}

/// A burst, and the time in which it comes back.
type Told = (u32, Option<Duration>);

/// What an endpoint has seen from the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
}

/// By the policy, by the server's bucket and by the pause.
type Turns = [u64; 3];

/// What becomes of a request when it arrives.
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

/// What becomes of a request that was let go and is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts as sent.
    Go,
    /// It stays ready, and is woken in a moment.
    Hold,
    /// It has to come back.
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

    /// A request arrives; with the time by which it has to be sent again, if it has been refused
    /// before.
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
            // It goes before others, and may be too late itself.
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

    /// Lets all go whose turn has come, and sends those away whose turn comes too late. Says when
    /// to look again, if somebody waits.
    pub(super) fn turn(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        self.pass_time(now);
        // Those who would have to stay ready for too long come back.
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

    /// Sends those away whose turn comes too late, if it has become later since this was last
    /// asked.
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

    /// What is sooner now may become later again.
    fn turns_may_be_sooner(&mut self) {
        let now = self.turns();
        self.judged.iter_mut().zip(now).for_each(|(judged, now)| *judged = now.min(*judged));
    }

    /// What has become of a waiter, which is woken when that changes. One that has lapsed waits
    /// again, before the others.
    pub(super) fn look(&mut self, turn: Turn, waker: &mut Option<Waker>, deadline: u64) -> Fate {
        let fate = self.queue.look(turn, waker);
        if fate == Fate::Lapsed {
            self.queue.come_back(turn, waker.take(), deadline);
            self.judged = Turns::default();
        }
        fate
    }

    /// One that was let go, and is ready now, is sent, unless others were sent just before or a
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

    /// Whether others are ready, and may be sent earlier or later by what has become of one.
    pub(super) fn has_ready(&self) -> bool {
        self.queue.ready() > 0
    }

    /// A waiter gives its place up. Says whether somebody else may have become due by it, and hands
    /// its waker back.
    pub(super) fn leave(&mut self, turn: Turn) -> (bool, Option<Waker>) {
        let (fate, waker) = self.queue.remove(turn);
        if fate == Fate::MayGo {
            self.give_back();
        }
        self.turns_may_be_sooner();
        (matches!(fate, Fate::Waits | Fate::MayGo), waker)
    }

    /// Whether one waits whom nobody will let go.
    pub(super) fn is_left_alone(&self, turn: Turn) -> bool {
        !self.is_driven && self.queue.waits(turn)
    }

    /// Everybody who waits, to be woken.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.queue.wakers().collect()
    }

    /// A request that was sent at that time will get no response.
    pub(super) fn abandon(&mut self) {
        self.in_flight -= 1;
        self.forget_if_idle();
    }

    /// A response that is no refusal, and says how the endpoint stands. Says whether anybody's turn
    /// may come at another time by it.
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

    /// A response that is no refusal, and says no more than that.
    pub(super) fn hear_nothing(&mut self, sent_at: u64) {
        self.granted(sent_at);
        self.abandon();
    }

    /// Says whether a request that was granted had been sent after the last pause, which ends the
    /// series of refusals.
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
        // The server has decided at some time between these two.
        let earliest = self.server.full_later_than(sent_at, standing.remaining);
        let latest = self.server.full_by(now, standing.remaining);
        let pending = self.queue.pending();
        if is_news {
            // What was said before was of another bucket.
            self.full_by = latest;
            self.judged = Turns::default();
            self.server.believe(latest, self.in_flight, pending);
        } else {
            self.full_by = self.full_by.max(latest);
            self.server.correct(earliest, self.full_by, self.in_flight, pending, lower);
        }
        // Whatever it says, it is asked again: only a response can correct it.
        self.server.due_by(now.saturating_add(LONGEST_PAUSE).max(self.own.due(0)));
        if let Some(exhausted) = standing.exhausted.map(nanos) {
            // Units that come back one by one are told the next of; a limit that starts anew says
            // when.
            if exhausted > self.server.interval().div_ceil(SECOND).saturating_mul(SECOND) {
                self.pause_until(now.saturating_add(exhausted.min(LONGEST_PAUSE)));
            }
        }
    }

    /// A refusal: nobody is sent before the time that it names, and then one by one. `spread` is
    /// added, so that those whom it was told at one time do not come back at one time. Says how
    /// long it is until then.
    ///
    /// The unit is not given back, though a refusal costs nothing on the server: the policy holds
    /// for whatever is sent.
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

    /// Nobody is sent until then, those neither who were let go, and then one by one, until a
    /// response says that more are left.
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

    /// When the next request may be let go, after so many others.
    fn due(&self, ahead: u64) -> u64 {
        due(&self.own, &self.server, self.paused_until, ahead)
    }

    /// When the next request may be sent that has been let go, after so many others.
    fn opens(&self, ahead: u64) -> u64 {
        self.own.opens(ahead).max(self.server.opens(ahead))
    }

    /// Whether one that is ready stays so until it may be sent, after so many others.
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

    /// Takes the units back of those who were let go and do not go, and forgets what the server has
    /// not said for long.
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

    /// What was said of the server's bucket holds for what was in flight then.
    fn forget_if_idle(&mut self) {
        if self.in_flight == 0 {
            self.full_by = 0;
        }
    }
}

/// When the next request may be let go, after so many others.
fn due(own: &Bucket, server: &Bucket, paused_until: u64, ahead: u64) -> u64 {
    own.due(ahead).max(server.due(ahead)).max(paused_until)
}
