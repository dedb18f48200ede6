//! The pace of one endpoint, as plain data. Times are nanoseconds since the pacer's origin.

use std::task::Waker;
use std::time::Duration;

use super::bucket::{Bucket, nanos};
use super::queue::{Fate, Queue, Turn};
use super::settings::Settings;
use crate::client::hints::{Memo, Standing};
use crate::quota::Quota;

/// How long an endpoint is paused when it refuses without saying for how long.
const PAUSE: u64 = SECOND;
/// The longest that it is paused on its own account when it refuses again and again ...
const LONGEST_BACKOFF: u64 = 60 * SECOND;
/// ... and on the server's.
const LONGEST_PAUSE: u64 = 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// For how long a unit is kept for one that was let go and is not sent. Others need not wait for a future that nobody polls.
const LAPSE: u64 = SECOND / 4;

/// How late a timer may be without slowing an even pace down.
const EVEN_SLACK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct State {
    quota: Quota,
    /// What this client may send by its policy, whatever the server says.
    own: Bucket,
    /// What the server is believed to have, of which others may take too.
    server: Bucket,
    /// What helps to read the server's fields.
    pub(super) memo: Memo,
    /// The quota that the server last told.
    told: Option<(u32, Option<Duration>)>,
    paused_until: u64,
    /// How often in a row it was refused after a pause.
    refused_in_a_row: u32,
    queue: Queue,
    in_flight: u64,
    /// When the server's bucket is full at the latest, by all that has been said since nothing was in flight.
    full_by: u64,
    /// Whether a task lets those go who wait.
    pub(super) is_driven: bool,
    counts: Counts,
}

/// What an endpoint has seen from the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
}

/// How an endpoint stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    pub(super) remaining: u32,
    pub(super) wait: u64,
    pub(super) waiting: usize,
    pub(super) in_flight: u64,
    pub(super) paused: u64,
    pub(super) counts: Counts,
}

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

impl State {
    pub(super) fn new(quota: Quota, settings: &Settings) -> Self {
        let bucket = Bucket::new(quota, settings.jitter);
        Self {
            quota,
            own: if settings.is_even { bucket.even(EVEN_SLACK) } else { bucket },
            server: bucket,
            memo: Memo::default(),
            told: None,
            paused_until: 0,
            refused_in_a_row: 0,
            queue: Queue::default(),
            in_flight: 0,
            full_by: 0,
            is_driven: false,
            counts: Counts::default(),
        }
    }

    /// A request arrives; with the time by which it has to be sent again, if it has been refused before.
    pub(super) fn arrive(
        &mut self,
        now: u64,
        again: Option<u64>,
        settings: &Settings,
        woken: &mut Vec<Waker>,
    ) -> Arrival {
        self.lapse(now);
        if self.queue.is_empty() && self.due(0) <= now {
            self.take_and_send(now, again.is_some());
            return Arrival::Go;
        }
        let turn = if let Some(deadline) = again {
            let turn = self.queue.push(true, deadline);
            self.send_late_ones_away(now, woken);
            turn
        } else {
            let wait = self.due(self.queue.len() as u64).saturating_sub(now);
            let longest = nanos(settings.max_wait);
            if self.queue.len() >= settings.max_waiting || wait > longest {
                self.counts.unsent += 1;
                let is_full = self.queue.len() >= settings.max_waiting;
                return if is_full { Arrival::Full { wait } } else { Arrival::TooLong { wait } };
            }
            self.queue.push(false, now.saturating_add(longest))
        };
        Arrival::Wait(turn)
    }

    /// Lets all go whose turn has come. Says when to look again, if somebody waits.
    pub(super) fn turn(&mut self, now: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        self.lapse(now);
        while !self.queue.is_empty() {
            let due = self.due(0);
            if due > now {
                return Some(
                    self.queue.first_let_go().map_or(due, |at| due.min(at.saturating_add(LAPSE).max(now + 1))),
                );
            }
            self.own.take(now);
            self.server.take(now);
            woken.extend(self.queue.let_go(now));
        }
        None
    }

    /// What has become of a waiter, which is woken when that changes. One that has lapsed waits again, before the others.
    pub(super) fn look(&mut self, turn: Turn, waker: &mut Option<Waker>, deadline: u64) -> Fate {
        match self.queue.look(turn, waker) {
            Fate::Lapsed => {
                self.queue.push_back_in(turn, waker.take(), deadline);
                Fate::Waits
            }
            fate => fate,
        }
    }

    /// One that was let go is sent. Says whether it may be: if it comes late, it needs another unit.
    pub(super) fn send(&mut self, turn: Turn, now: u64, again: bool) -> bool {
        self.lapse(now);
        let pending = self.queue.pending();
        match self.queue.remove(turn).0 {
            // Refused meanwhile: nobody is sent in a pause.
            Fate::MayGo if self.paused_until > now => {
                self.give_back();
                return false;
            }
            Fate::MayGo => {
                self.own.send(now, pending);
                self.server.send(now, pending);
                self.count_sent(again);
            }
            _ if self.due(0) <= now => self.take_and_send(now, again),
            _ => return false,
        }
        true
    }

    /// A waiter gives its place up. Says whether somebody else may have become due by it, and hands its waker back.
    pub(super) fn leave(&mut self, turn: Turn) -> (bool, Option<Waker>) {
        let (fate, waker) = self.queue.remove(turn);
        if fate == Fate::MayGo {
            self.give_back();
        }
        (matches!(fate, Fate::Waits | Fate::MayGo), waker)
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

    /// A response that is no refusal, and says how the endpoint stands. Says whether somebody may have become due by it.
    pub(super) fn hear(
        &mut self,
        sent_at: u64,
        now: u64,
        standing: Standing,
        settings: &Settings,
        woken: &mut Vec<Waker>,
    ) -> bool {
        self.in_flight -= 1;
        let is_after_pause = self.granted(sent_at);
        let due = self.due(0);
        self.take_word(sent_at, now, standing, is_after_pause, settings);
        self.forget_if_idle();
        let new = self.due(0);
        if new > due {
            self.send_late_ones_away(now, woken);
        }
        new < due
    }

    /// A response that is no refusal, and says no more than that.
    pub(super) fn hear_nothing(&mut self, sent_at: u64) {
        self.granted(sent_at);
        self.abandon();
    }

    /// Says whether a request that was granted had been sent after the last pause, which ends the series of refusals.
    fn granted(&mut self, sent_at: u64) -> bool {
        let is_after_pause = sent_at >= self.paused_until;
        if is_after_pause {
            self.refused_in_a_row = 0;
        }
        is_after_pause
    }

    fn take_word(&mut self, sent_at: u64, now: u64, standing: Standing, lower: bool, settings: &Settings) {
        let mut is_news = false;
        if let Some((burst, window)) = standing.quota.filter(|_| standing.quota != self.told) {
            self.told = standing.quota;
            is_news = self.server.adopt(burst, window, self.quota, settings.jitter);
        }
        // The server has decided at some time between these two.
        let earliest = self.server.full_later_than(sent_at, standing.remaining);
        self.full_by = self.full_by.max(self.server.full_by(now, standing.remaining));
        let uncounted = self.in_flight.saturating_add(self.queue.pending());
        if is_news {
            // What was said before was of another bucket.
            self.full_by = self.server.full_by(now, standing.remaining);
            self.server.believe(self.full_by, uncounted);
        } else {
            self.server.correct(earliest, self.full_by, uncounted, lower);
        }
        // Whatever it says, it is asked again: only a response can correct it.
        self.server.due_by(now.saturating_add(LONGEST_PAUSE).max(self.own.due(uncounted)));
        if let Some(exhausted) = standing.exhausted.map(nanos) {
            // Units that come back one by one are told the next of; a limit that starts anew says when.
            if exhausted > self.server.interval().div_ceil(SECOND).saturating_mul(SECOND) {
                self.paused_until = self.paused_until.max(now.saturating_add(exhausted.min(LONGEST_PAUSE)));
            }
        }
    }

    /// A refusal: nobody is sent before the time that it names, and then one by one. `spread` is added, so that those whom it
    /// was told at one time do not come back at one time. Says how long it is until then.
    pub(super) fn refuse(
        &mut self,
        sent_at: u64,
        now: u64,
        wait: Option<Duration>,
        spread: impl FnOnce(u64) -> u64,
        woken: &mut Vec<Waker>,
    ) -> u64 {
        self.in_flight -= 1;
        self.counts.refused += 1;
        // It costs nothing there.
        self.own.was_refused();
        let wait = wait.map_or(PAUSE, nanos);
        if sent_at >= self.paused_until {
            self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
            let doublings = self.refused_in_a_row.saturating_sub(2).min(6);
            let backoff = if self.refused_in_a_row > 1 { (SECOND << doublings).min(LONGEST_BACKOFF) } else { 0 };
            let pause = wait.max(backoff).min(LONGEST_PAUSE);
            self.paused_until = now.saturating_add(pause).saturating_add(spread(self.server.interval().min(SECOND)));
        } else {
            self.paused_until = self.paused_until.max(now.saturating_add(wait.min(LONGEST_PAUSE)));
        }
        self.server.empty_until(self.paused_until, self.queue.pending());
        self.forget_if_idle();
        self.send_late_ones_away(now, woken);
        self.paused_until.saturating_sub(now)
    }

    pub(super) fn glance(&self, now: u64) -> Glance {
        let paused = self.paused_until.saturating_sub(now);
        let waiting = self.queue.len();
        let at_once = self.own.remaining(now).min(self.server.remaining(now));
        let remaining = if paused > 0 || waiting > 0 { 0 } else { at_once };
        let wait = self.due(waiting as u64).saturating_sub(now);
        Glance { remaining, wait, waiting, in_flight: self.in_flight, paused, counts: self.counts }
    }

    fn due(&self, ahead: u64) -> u64 {
        due(&self.own, &self.server, self.paused_until, ahead)
    }

    fn take_and_send(&mut self, now: u64, again: bool) {
        let pending = self.queue.pending() + 1;
        for bucket in [&mut self.own, &mut self.server] {
            bucket.take(now);
            bucket.send(now, pending);
        }
        self.count_sent(again);
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

    /// Takes the units back of those who were let go and do not go.
    fn lapse(&mut self, now: u64) {
        while self.queue.first_let_go().is_some_and(|at| at.saturating_add(LAPSE) <= now) {
            self.queue.lapse();
            self.give_back();
        }
    }

    /// What was said of the server's bucket holds for what was in flight then.
    fn forget_if_idle(&mut self) {
        if self.in_flight == 0 {
            self.full_by = 0;
        }
    }

    fn send_late_ones_away(&mut self, now: u64, woken: &mut Vec<Waker>) {
        let (own, server, paused_until) = (self.own, self.server, self.paused_until);
        let due = |ahead| due(&own, &server, paused_until, ahead);
        self.counts.unsent += self.queue.send_late_ones_away(now, due, woken);
    }
}

/// When the next request may be sent, after so many others.
fn due(own: &Bucket, server: &Bucket, paused_until: u64, ahead: u64) -> u64 {
    own.due(ahead).max(server.due(ahead)).max(paused_until)
}
