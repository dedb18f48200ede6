//! What the state of an endpoint learns from responses.

use std::time::Duration;

use http::StatusCode;

use super::super::bucket::nanos;
use super::super::learned::backoff;
use super::super::pair::Pair;
use super::super::pairs::Pairs;
use super::super::pool::Pool;
use super::{SECOND, State};
use crate::client::hints::{Concurrent, Standings};
use crate::client::log::{Event, Events, Measured};

/// How long a refusal by a limit of requests in flight holds, if it has no valid time.
const PAUSE: u64 = SECOND;

/// What a refusal says.
#[derive(Clone, Copy)]
pub(in crate::client::pace) struct Refusal<'a> {
    pub(in crate::client::pace) status: StatusCode,
    /// The wait that it names.
    pub(in crate::client::pace) named: Option<Duration>,
    pub(in crate::client::pace) standings: Option<&'a Standings>,
}

impl State {
    /// A request that was sent will get no response.
    pub(in crate::client::pace) fn abandon(&mut self, pairs: &mut Pairs, sent_at: u64) {
        self.land(pairs, sent_at, |_, _| {});
        self.limits.each_pool(pairs, Pool::release);
    }

    /// A request was sent that will get no response, and keeps its permits.
    pub(in crate::client::pace) fn outlive(&mut self, pairs: &mut Pairs, sent_at: u64) {
        self.land(pairs, sent_at, |_, _| {});
        self.held += 1;
    }

    /// A response that is not a refusal and reports usage. Returns whether there may be more or
    /// fewer permits now.
    pub(in crate::client::pace) fn hear(
        &mut self,
        pairs: &mut Pairs,
        sent_at: u64,
        now: u64,
        standings: &Standings,
    ) -> bool {
        let mut reports = standings.limits.iter();
        let paused_until = self.land(pairs, sent_at, |pair, events| {
            if let Some(standing) = reports.next().and_then(Option::as_ref) {
                pair.take_report(standing, sent_at, now, events);
            }
        });
        let is_learned =
            !standings.concurrent.is_empty() && self.learn(pairs, &standings.concurrent, now);
        let concurrent = &standings.concurrent;
        let is_more = self.granted(pairs, sent_at, paused_until, concurrent, || now);
        if let Some(exhausted) = standings.others_exhausted {
            self.limits.own(pairs).wait_for(exhausted, now);
        }
        self.note_pause(pairs, now, paused_until, None);
        self.remember_sooner(pairs);
        is_learned || is_more
    }

    /// A response that is not a refusal and reports no usage. Returns whether waiting requests may
    /// be due earlier now.
    #[inline]
    pub(in crate::client::pace) fn hear_nothing(
        &mut self,
        pairs: &mut Pairs,
        sent_at: u64,
        now: impl FnOnce() -> u64,
    ) -> bool {
        let paused_until = self.land(pairs, sent_at, |_, _| {});
        self.granted(pairs, sent_at, paused_until, &[], now)
    }

    /// A refusal: no request is sent before the time that it names, and after that one as a probe.
    /// `spread` returns a random part to add, so that clients that were refused at one time do not
    /// come back at one time. Returns how long the pause still is.
    ///
    /// The units are not given back, although a server does not charge for a refusal: the policy
    /// limits all requests that are sent. The permits are.
    ///
    /// If a limit of requests in flight is to blame, no more requests may be in flight until then
    /// than are now, and after that one more at a time.
    pub(in crate::client::pace) fn refuse(
        &mut self,
        pairs: &mut Pairs,
        sent_at: u64,
        now: u64,
        refusal: Refusal<'_>,
        spread: impl FnOnce(u64) -> u64,
    ) -> u64 {
        let Refusal { status, named, standings } = refusal;
        let concurrent = standings.map_or(&[][..], |standings| &standings.concurrent);
        let refused_until = self.limits.refused_until(pairs);
        let paused_until = self.limits.paused_until(pairs);
        self.in_flight -= 1;
        if !concurrent.is_empty() {
            self.learn(pairs, concurrent, now);
        }
        self.limits.each(pairs, |pair| pair.land(sent_at));
        self.limits.each_pool(pairs, Pool::release);
        self.counts.refused += 1;
        let longest = nanos(self.settings.max_pause);
        let wait = named.map(|wait| nanos(wait).min(longest));
        let is_concurrent = standings.is_some_and(Standings::blames_concurrent);
        let is_current = sent_at >= refused_until;
        if is_current {
            self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        }
        let standing = standings.and_then(|it| it.limits.first()?.as_ref());
        let own = self.limits.own(pairs);
        let measured = own.measured();
        let pause = match (is_current, is_concurrent) {
            (true, true) => wait.unwrap_or(PAUSE).max(backoff(self.refused_in_a_row, SECOND)),
            (true, false) => own.refused(sent_at, now, self.refused_in_a_row, wait, standing),
            (false, true) => wait.unwrap_or(PAUSE),
            (false, false) => own.refused_too(now, wait, standing),
        };
        // What the client waits longer for units than it was told to is a guess.
        let told = if is_concurrent { pause } else { wait.unwrap_or(SECOND) };
        let guessed = pause.saturating_sub(told) / 4;
        let spread = if is_current { spread(own.interval().min(SECOND).max(guessed)) } else { 0 };
        let until = now.saturating_add(pause.min(longest)).saturating_add(spread);
        // The own limit has no units until then, whatever is reported about it.
        let own = usize::from(!is_concurrent);
        let reports = standings.into_iter().flat_map(|standings| &standings.limits);
        let mut reports = reports.skip(own);
        let hear = |pair: &mut Pair, events: &mut Events| {
            if let Some(standing) = reports.next().and_then(Option::as_ref) {
                pair.take_report(standing, sent_at, now, events);
            }
        };
        if is_concurrent {
            self.limits.each_with_events(pairs, hear);
            self.limits.each_reported(pairs, concurrent, |pool, told| {
                if told.remaining == Some(0) {
                    pool.lower(until);
                }
            });
        } else {
            self.limits.own(pairs).pause_until(until);
            // The other endpoints that share an exhausted limit wait for it too.
            self.limits.further(pairs, hear);
        }
        self.limits.each(pairs, Pair::forget_if_idle);
        self.note_measured(pairs, now, measured);
        if is_concurrent && is_current {
            self.note_lowered(pairs, now, status, Duration::from_nanos(pause));
        }
        self.note_pause(pairs, now, paused_until, Some((status, named)));
        self.limits.paused_until(pairs).saturating_sub(now)
    }

    /// No pause holds any more, of the endpoint itself or of one of its limits.
    pub(in crate::client::pace) fn resume(&mut self, pairs: &mut Pairs, now: u64) {
        self.note_resumed(pairs, now);
        self.refused_in_a_row = 0;
        self.limits.each(pairs, |pair| pair.resume(now));
        self.limits.each_pool(pairs, |pool| pool.resume(now));
        self.remember_sooner(pairs);
    }

    /// The same, and all is forgotten that responses have taught.
    pub(in crate::client::pace) fn unlearn(&mut self, pairs: &mut Pairs, now: u64) {
        self.note_resumed(pairs, now);
        self.refused_in_a_row = 0;
        self.limits.each_with_events(pairs, |pair, events| pair.unlearn(now, events));
        self.limits.each_pool(pairs, Pool::unlearn);
        self.remember_sooner(pairs);
    }

    /// Counts a pause that has begun with a response, and logs it; again if it turns out to last
    /// more than twice as long. The endpoint was paused until the time `before` before it. A
    /// refusal has a status, and may name a wait.
    fn note_pause(
        &mut self,
        pairs: &mut Pairs,
        now: u64,
        before: u64,
        refusal: Option<(StatusCode, Option<Duration>)>,
    ) {
        let until = self.limits.paused_until(pairs);
        if until <= now {
            return;
        }
        let begins = before <= now;
        self.counts.pauses += u64::from(begins);
        let (from, last) = self.logged_pause;
        let from = if begins { now } else { from };
        if !begins && until - from <= (last - from).saturating_mul(2) {
            return;
        }
        self.logged_pause = (from, until);
        let event = Event::Paused {
            endpoint: self.endpoint,
            wait: Duration::from_nanos(until - now),
            status: refusal.map(|(status, _)| status),
            named: refusal.and_then(|(_, named)| named),
            in_a_row: self.refused_in_a_row,
        };
        pairs.events.add(now, event);
    }

    /// Logs that a pause is ended by hand.
    fn note_resumed(&mut self, pairs: &mut Pairs, now: u64) {
        let left = self.limits.paused_until(pairs).saturating_sub(now);
        if left > 0 {
            self.logged_pause = (0, 0);
            let (endpoint, early) = (self.endpoint, Duration::from_nanos(left));
            pairs.events.add(now, Event::Resumed { endpoint, early });
        }
    }

    /// Logs that no more requests may be in flight, unless none may be sent at all.
    fn note_lowered(&self, pairs: &mut Pairs, now: u64, status: StatusCode, wait: Duration) {
        let most = self.limits.fullest(pairs, now).map(|pool| pool.most(now));
        let Some(most) = most.filter(|_| self.limits.paused_until(pairs) <= now) else { return };
        let (endpoint, in_a_row) = (self.endpoint, self.refused_in_a_row);
        pairs.events.add(now, Event::Lowered { endpoint, status, most, wait, in_a_row });
    }

    /// Logs what a refusal has taught about the own limit, in place of what was known `before`.
    fn note_measured(&self, pairs: &mut Pairs, now: u64, before: Option<Measured>) {
        let own = self.limits.own(pairs);
        let (limit, after) = (own.name, own.measured());
        match after {
            Some(rate) if after != before => {
                pairs.events.add(now, Event::Learned { limit, rate, is_first: before.is_none() });
            }
            None if before.is_some() => pairs.events.add(now, Event::NotStricter { limit }),
            _ => {}
        }
    }

    /// A request that was sent at that time has its response, or will have none. `hear` is called
    /// with each of its limits. Returns until when they were paused before.
    #[inline]
    fn land(
        &mut self,
        pairs: &mut Pairs,
        sent_at: u64,
        mut hear: impl FnMut(&mut Pair, &mut Events),
    ) -> u64 {
        self.in_flight -= 1;
        let mut paused_until = 0;
        self.limits.each_with_events(pairs, |pair, events| {
            paused_until = pair.paused_until.max(paused_until);
            pair.land(sent_at);
            hear(pair, events);
            pair.forget_if_idle();
        });
        paused_until
    }

    /// An admitted request that was sent after the last pause ends the series of refusals. Returns
    /// whether waiting requests may be due earlier now.
    #[inline]
    fn granted(
        &mut self,
        pairs: &mut Pairs,
        sent_at: u64,
        paused_until: u64,
        concurrent: &[Concurrent],
        now: impl FnOnce() -> u64,
    ) -> bool {
        let (refused_until, is_more) =
            if self.has_pools() { self.admitted(pairs, sent_at, concurrent) } else { (0, false) };
        let is_current = sent_at >= paused_until.max(refused_until);
        if is_current {
            self.refused_in_a_row = 0;
        }
        let own = self.limits.own(pairs);
        if !own.is_learning() {
            return is_more;
        }
        own.admitted(sent_at, now, is_current);
        self.queue.waiting() > 0 || is_more
    }
}
