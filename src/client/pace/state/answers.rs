//! What the state of an endpoint learns from responses.

use std::time::Duration;

use super::super::bucket::nanos;
use super::super::pair::{LONGEST_PAUSE, Pair};
use super::{SECOND, State};
use crate::client::hints::Standings;

/// How long a refusal pauses the endpoint if it has no valid time.
const PAUSE: u64 = SECOND;

/// The longest pause that the client chooses itself when refusals follow each other.
const LONGEST_BACKOFF: u64 = 60 * SECOND;

impl State {
    /// A request that was sent will get no response.
    pub(in crate::client::pace) fn abandon(&mut self, pairs: &mut [Pair]) {
        self.land(pairs, |_| {});
    }

    /// A response that is not a refusal and reports usage.
    pub(in crate::client::pace) fn hear(
        &mut self,
        pairs: &mut [Pair],
        sent_at: u64,
        now: u64,
        standings: &Standings,
    ) {
        let mut reports = standings.limits.iter();
        let paused_until = self.land(pairs, |pair| {
            if let Some(standing) = reports.next().and_then(Option::as_ref) {
                pair.take_word(standing, sent_at, now);
            }
        });
        self.granted(sent_at, paused_until);
        if let Some(exhausted) = standings.others_exhausted {
            self.limits.own(pairs).wait_for(exhausted, now);
        }
        self.turns_may_be_sooner(pairs);
    }

    /// A response that is not a refusal and reports no usage.
    #[inline]
    pub(in crate::client::pace) fn hear_nothing(&mut self, pairs: &mut [Pair], sent_at: u64) {
        let paused_until = self.land(pairs, |_| {});
        self.granted(sent_at, paused_until);
    }

    /// A refusal: no request is sent before the time that it names, and after that requests are
    /// sent one by one. `spread` returns a random part to add, so that clients that were refused at
    /// one time do not come back at one time. Returns how long the pause still is.
    ///
    /// The units are not given back, although a server does not charge for a refusal: the policy
    /// limits all requests that are sent.
    pub(in crate::client::pace) fn refuse(
        &mut self,
        pairs: &mut [Pair],
        sent_at: u64,
        now: u64,
        wait: Option<Duration>,
        standings: Option<&Standings>,
        spread: impl FnOnce(u64) -> u64,
    ) -> u64 {
        let paused_until = self.limits.paused_until(pairs);
        self.in_flight -= 1;
        self.limits.each(pairs, Pair::land);
        self.counts.refused += 1;
        let wait = wait.map_or(PAUSE, nanos);
        let pause = if sent_at >= paused_until {
            self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
            let doublings = self.refused_in_a_row.saturating_sub(2).min(6);
            let backoff = if self.refused_in_a_row > 1 {
                (SECOND << doublings).min(LONGEST_BACKOFF)
            } else {
                0
            };
            let interval = self.limits.own(pairs).interval();
            wait.max(backoff).min(LONGEST_PAUSE).saturating_add(spread(interval.min(SECOND)))
        } else {
            wait.min(LONGEST_PAUSE)
        };
        self.limits.own(pairs).pause_until(now.saturating_add(pause));
        // The other endpoints that share an exhausted limit wait for it too.
        let mut further = standings.into_iter().flat_map(|standings| &standings.limits).skip(1);
        self.limits.further(pairs, |pair| {
            if let Some(standing) = further.next().and_then(Option::as_ref) {
                pair.take_word(standing, sent_at, now);
            }
        });
        self.limits.each(pairs, Pair::forget_if_idle);
        self.limits.paused_until(pairs).saturating_sub(now)
    }

    /// A request that was sent has its response, or will have none. `hear` is called with each of
    /// its limits. Returns until when they were paused before.
    #[inline]
    fn land(&mut self, pairs: &mut [Pair], mut hear: impl FnMut(&mut Pair)) -> u64 {
        self.in_flight -= 1;
        let mut paused_until = 0;
        self.limits.each(pairs, |pair| {
            paused_until = pair.paused_until.max(paused_until);
            pair.land();
            hear(pair);
            pair.forget_if_idle();
        });
        paused_until
    }

    /// An admitted request that was sent after the last pause ends the series of refusals.
    fn granted(&mut self, sent_at: u64, paused_until: u64) {
        if sent_at >= paused_until {
            self.refused_in_a_row = 0;
        }
    }
}
