//! The rate at which the server really admits requests, as refusals teach it. Times are nanoseconds
//! since the pacer's origin.
//!
//! When the server refuses a request, its bucket is empty, whatever its algorithm is. What it
//! admits until it is empty again is what came back in that time: this is the measured rate, as
//! TCP Westwood measures that of acknowledged segments. Other clients with the same key have their
//! own part of the rate, which they measure themselves.
//!
//! The measured rate is the plateau of CUBIC ([RFC 9438][9438], section 4.2), which also paces the
//! requests of the AWS SDKs in their adaptive mode: after a refusal the rate begins somewhat below
//! it, comes close to it quickly, stays near it for long, and then searches for more, faster and
//! faster. The differences to TCP are these.
//! * The rate begins at 0.85 of the plateau, not at 0.7: the plateau is measured, and is not the
//!   rate at which the loss came.
//! * The time to the plateau is relative to the policy's rate and to the measured one: the time of
//!   80 requests at the rate between the two (their geometric mean). So there is one refusal in
//!   many requests with any rate, and of several clients the one with more has more of them.
//! * If nothing is refused in twice that time, the measured rate is out of date, and the rate
//!   doubles in half of that time, as in TCP's slow start.
//!
//! [9438]: https://www.rfc-editor.org/rfc/rfc9438

use std::collections::VecDeque;
use std::time::Duration;

use super::bucket::Bucket;
use super::pair::BELIEF;
use crate::client::log::Measured;

const SECOND: u64 = 1_000_000_000;

/// At which part of the plateau the rate begins after a refusal.
const BEGINNING: f64 = 0.85;

/// The time to the plateau, in requests at the rate between the policy's and the measured one.
const REQUESTS_TO_PLATEAU: f64 = 80.0;

/// The time to the plateau is at least so many times that in which requests are answered: what the
/// server makes of a rate is known only then.
const ANSWERS_TO_PLATEAU: u64 = 8;

/// A measurement is based on so many admitted requests, if there were as many.
const ENOUGH: u64 = 10;

/// The longest pause that the client chooses itself when refusals follow each other.
const LONGEST_BACKOFF: u64 = 60 * SECOND;

/// The same while no rate is known and the silence is short. Other clients may have been faster
/// several times, and a client that comes ever more rarely would never be the first.
const LONGEST_BACKOFF_AT_FIRST: u64 = 2 * SECOND;

/// The same once the rate is known, in requests at that rate; but at least a quarter of a second.
const LONGEST_BACKOFF_IN_REQUESTS: u64 = 40;

/// The slowest rate that is learned is one request in this time, unless the policy has a slower
/// one. What a server names as a wait may be nonsense.
const LONGEST_INTERVAL: u64 = 60 * SECOND;

/// What refusals have taught about a limit.
#[derive(Debug)]
pub(super) struct Learned {
    longest_pause: u64,
    /// When requests can be sent at the learned rate; a bucket of requests, not of units.
    pace: Option<Pace>,
    /// The moments at which the server's bucket was known to have nothing left, or one unit.
    empty: VecDeque<Empty>,
    /// How many requests were admitted since the first refusal.
    admitted: u64,
    /// Since when nothing was admitted.
    silent_since: u64,
    /// When the last pause ends, and how many requests had been admitted until then.
    resumed: (u64, u64),
    last_refusal: u64,
    /// The time in which requests are answered, smoothed as in RFC 6298.
    answered_in: u64,
    /// The rate that was last measured, for the log.
    last_measured: Option<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Empty {
    at: u64,
    /// How many requests had been admitted until then.
    admitted: u64,
    /// Several requests in a row were refused, so that the server may have had a part of a unit.
    is_vague: bool,
}

#[derive(Debug)]
struct Pace {
    bucket: Bucket,
    /// The time between two requests at the plateau.
    plateau: u64,
    /// When the rate began to grow towards the plateau.
    since: u64,
    /// The time to the plateau.
    span: u64,
    /// How many requests the server admits at once after a pause.
    burst: u64,
}

impl Pace {
    /// The time between two requests now, of which the policy allows one in the time `least`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::float_arithmetic,
        reason = "times up to 100 days are exact, and the rate is an estimate"
    )]
    fn interval(&self, now: u64, least: u64) -> u64 {
        let x = now.saturating_sub(self.since) as f64 / self.span as f64 - 1.0;
        let cubic = 1.0 + (1.0 - BEGINNING) * x.min(1.0).powi(3);
        let faster = if x > 1.0 { cubic * (2.0 * (x - 1.0)).exp2() } else { cubic };
        ((self.plateau as f64 / faster) as u64).max(least)
    }

    fn update(&mut self, now: u64, least: u64) {
        self.bucket.pace(now, self.interval(now, least), self.burst);
    }
}

/// The pause after the last one of several refusals in a row: none after the first one, then
/// `first`, and twice as long after each further one.
pub(super) fn backoff(in_a_row: u32, first: u64) -> u64 {
    let doublings = in_a_row.saturating_sub(2).min(32);
    if in_a_row > 1 { first.saturating_mul(1 << doublings).min(LONGEST_BACKOFF) } else { 0 }
}

impl Learned {
    /// No pause is longer than `longest_pause`.
    pub(super) fn new(longest_pause: u64) -> Self {
        let (empty, silent_since, resumed) = (VecDeque::new(), 0, (0, 0));
        Self {
            longest_pause,
            pace: None,
            empty,
            admitted: 0,
            silent_since,
            resumed,
            last_refusal: 0,
            answered_in: 0,
            last_measured: None,
        }
    }

    /// The pace, if the rate is known.
    pub(super) fn pace(&self) -> Option<&Bucket> {
        self.pace.as_ref().map(|pace| &pace.bucket)
    }

    /// The time between two requests, now and at the plateau, if the rate was measured.
    pub(super) fn intervals(&self) -> Option<(u64, u64)> {
        self.pace.as_ref().map(|pace| (pace.bucket.interval(), pace.plateau))
    }

    pub(super) fn pace_mut(&mut self) -> Option<&mut Bucket> {
        self.pace.as_mut().map(|pace| &mut pace.bucket)
    }

    /// When what was learned may not be true any more, if no request is refused until then.
    pub(super) fn forgets_at(&self) -> u64 {
        self.last_refusal.saturating_add(BELIEF)
    }

    /// No pause holds any more, whatever the server has named.
    pub(super) fn resume(&mut self, now: u64) {
        self.empty.iter_mut().for_each(|empty| empty.at = empty.at.min(now));
        self.resumed.0 = self.resumed.0.min(now);
        if let Some(pace) = &mut self.pace {
            pace.since = pace.since.min(now);
        }
    }

    /// A request was answered.
    fn answered(&mut self, sent_at: u64, now: u64) {
        let sample = now.saturating_sub(sent_at);
        let before = if self.answered_in == 0 { sample } else { self.answered_in };
        self.answered_in = before - before / 8 + sample / 8;
    }

    /// A request was admitted.
    pub(super) fn admitted(&mut self, sent_at: u64, now: u64, least: u64) {
        self.admitted += 1;
        self.answered(sent_at, now);
        if let Some(pace) = &mut self.pace {
            pace.update(now, least);
        }
    }

    /// One more request was refused that had been sent before the last refusal was known, and the
    /// server names a time to wait, or not. Returns the time to wait.
    pub(super) fn refused_too(&mut self, now: u64, named: Option<u64>) -> u64 {
        let pause = named.unwrap_or(if self.pace.is_some() { 0 } else { SECOND });
        let pause = pause.min(self.longest_pause);
        let resume = now.saturating_add(pause);
        if let Some(empty) = self.empty.back_mut() {
            empty.at = empty.at.max(resume);
            empty.admitted = self.admitted;
        }
        self.resumed = (self.resumed.0.max(resume), self.admitted);
        pause
    }

    /// A request was refused, the last one of `in_a_row`. The server names a time to wait, or not.
    /// Returns the time to wait.
    pub(super) fn refused(
        &mut self,
        sent_at: u64,
        now: u64,
        in_a_row: u32,
        named: Option<u64>,
        least: u64,
        pending: u64,
    ) -> u64 {
        self.last_refusal = now;
        self.answered(sent_at, now);
        let interval = self.pace.as_ref().map_or(least, |pace| pace.interval(now, least));
        let is_news = self.empty.back().is_none_or(|empty| self.admitted > empty.admitted);
        if is_news {
            self.silent_since = now;
        }
        let pause = self.pause(now, in_a_row, named, least).min(self.longest_pause);
        let resume = now.saturating_add(pause);
        if is_news {
            if let Some(measured) = self.measured(resume) {
                self.adopt(now, resume, measured, interval, least, pending);
                self.note(measured);
            }
            self.empty.push_back(Empty { at: resume, admitted: self.admitted, is_vague: false });
        } else {
            if let Some(empty) = self.empty.back_mut() {
                (empty.at, empty.is_vague) = (resume, true);
            }
            if let Some(pace) = &mut self.pace {
                pace.since = resume;
                pace.update(now, least);
            }
        }
        while self.empty.get(1).is_some_and(|next| self.admitted - next.admitted >= ENOUGH) {
            self.empty.pop_front();
        }
        self.resumed = (resume, self.admitted);
        pause
    }

    fn note(&mut self, (interval, time): (u64, u64)) {
        let requests = self.admitted - self.empty.front().map_or(0, |first| first.admitted);
        self.last_measured = self.intervals().map(|(begins, plateau)| {
            let [interval, plateau, begins, time] =
                [interval, plateau, begins, time].map(Duration::from_nanos);
            Measured { interval, plateau, begins, requests, time }
        });
    }

    /// The rate that was last measured, if requests are sent by it.
    pub(super) fn last_measured(&self) -> Option<Measured> {
        self.last_measured
    }

    /// How long to wait after a refusal: as long as the server says, or else until a unit is back;
    /// and longer when refusals follow each other, since then the server does not say the truth, or
    /// other clients are faster.
    fn pause(&self, now: u64, in_a_row: u32, named: Option<u64>, least: u64) -> u64 {
        let silence = now.saturating_sub(self.silent_since);
        let Some(Pace { plateau, .. }) = self.pace else {
            let longest = LONGEST_BACKOFF_AT_FIRST.max(silence / 4);
            return named.unwrap_or(SECOND).max(backoff(in_a_row, SECOND).min(longest));
        };
        let first = plateau.max(least.saturating_mul(10)).min(SECOND);
        // A rate at which nothing is admitted for long is wrong.
        let longest = plateau.saturating_mul(LONGEST_BACKOFF_IN_REQUESTS).max(SECOND / 4);
        let longest = longest.max(silence / 8);
        named.unwrap_or(plateau.min(SECOND)).max(backoff(in_a_row, first).min(longest))
    }

    /// The time in which the server has admitted one request, on average, since the first of the
    /// moments when it had none left, and the whole time.
    fn measured(&self, resume: u64) -> Option<(u64, u64)> {
        let first = self.empty.front()?;
        let halves = 2 * (self.admitted - first.admitted) - u64::from(first.is_vague);
        let time = resume.saturating_sub(first.at).max(1);
        Some((time.saturating_mul(2).div_ceil(halves).max(1), time))
    }

    /// Adopts a measured rate, or, if requests were sent faster, one between the two: the server
    /// may have admitted more if it had been asked evenly.
    fn adopt(
        &mut self,
        now: u64,
        resume: u64,
        (measured, time): (u64, u64),
        interval: u64,
        least: u64,
        pending: u64,
    ) {
        if measured <= least.saturating_add(least / 20) {
            // The server is not stricter than the policy.
            self.pace = None;
            return;
        }
        let between = |one: u64, other: u64| {
            u64::try_from((u128::from(one) * u128::from(other)).isqrt()).unwrap_or(u64::MAX)
        };
        let plateau = if measured <= interval {
            measured
        } else {
            between(measured, interval).min(interval.saturating_mul(2))
        };
        let plateau = plateau.min(LONGEST_INTERVAL).max(least);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::float_arithmetic,
            reason = "an estimate"
        )]
        let requests = (between(least, plateau) as f64 * REQUESTS_TO_PLATEAU) as u64;
        // After a short measurement, the rate is soon measured again.
        let span = requests.min(time.max(plateau.saturating_mul(3)));
        let span = span.max(self.answered_in.saturating_mul(ANSWERS_TO_PLATEAU)).max(1);
        let paced = now.saturating_sub(self.resumed.0) / plateau;
        let at_once = (self.admitted - self.resumed.1).saturating_sub(paced);
        let pace = self.pace.get_or_insert_with(|| {
            let bucket = Bucket::of_requests(plateau);
            Pace { bucket, plateau, since: now, span, burst: 1 }
        });
        pace.burst = at_once.max(pace.burst / 2).max(1);
        // A pause costs as much as it is long, but for what the server saves up for it.
        let pause = resume.saturating_sub(now).min(SECOND);
        let lost = pause.saturating_sub(pace.burst.saturating_mul(plateau));
        (pace.plateau, pace.since) = (plateau, resume);
        pace.span = span.max(lost.saturating_mul(8));
        pace.update(now, least);
        // What comes back from now on can be sent at once after the pause, up to the burst.
        pace.bucket.empty_at(now, pending);
    }
}
