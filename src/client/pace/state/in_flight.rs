//! How requests wait for permits, and give them back.

use super::super::error::Lack;
use super::super::pair::Pair;
use super::super::pairs::Pairs;
use super::super::permits::Claims;
use super::super::pool::Pool;
use super::super::queue::{Stage, Ticket};
use super::State;
use crate::client::hints::Concurrent;
use crate::client::log::Event;
use crate::client::usage::Concurrency;

impl State {
    /// Whether there are limits of requests in flight.
    #[inline]
    pub(in crate::client::pace) fn has_pools(&self) -> bool {
        self.limits.has_pools()
    }

    /// Whether a request may wait until another one is answered.
    pub(in crate::client::pace) fn may_wait_for_answers(&self, pairs: &mut Pairs) -> bool {
        self.has_pools() || self.limits.own(pairs).is_learning()
    }

    /// Whether there is a permit of each limit for a request that arrives.
    pub(super) fn has_room(&self, pairs: &mut Pairs, now: u64) -> bool {
        self.limits.each_pool(pairs, |pool| pool.pass_time(now));
        self.limits.has_room(pairs, now)
    }

    /// Whether the waiting request that comes next is due and there are permits for it besides
    /// those that are claimed. If it only lacks permits, claims them.
    ///
    /// If it was due before and lacked a permit then, it claims its permits also while it waits for
    /// a unit, for at most about the time in which one comes back. Otherwise it could wait for
    /// ever: endpoints that share a rate with it take the unit while it lacks a permit, and
    /// endpoints that share its permits take those while it lacks a unit.
    pub(in crate::client::pace) fn may_dispatch(
        &mut self,
        next: Ticket,
        pairs: &Pairs,
        now: u64,
        claims: &mut Claims,
    ) -> bool {
        let at = self.limits.dispatch_at(pairs);
        if !self.has_pools() {
            return at <= now;
        }
        let wait = at.saturating_sub(now);
        if wait > 0 {
            let still_waits = |ticket| self.queue.stage(ticket) == Some(Stage::Waiting);
            if self.passed_over.is_some_and(still_waits)
                && wait <= self.limits.longest_interval(pairs)
            {
                self.limits.reserve(pairs, now, claims);
            }
            return false;
        }
        let may = self.claim(pairs, now, claims);
        if !may {
            self.passed_over = Some(next);
        }
        may
    }

    /// Whether there is a permit of each limit besides those that are claimed.
    pub(in crate::client::pace) fn claim(
        &self,
        pairs: &Pairs,
        now: u64,
        claims: &mut Claims,
    ) -> bool {
        self.limits.claim(pairs, now, claims)
    }

    /// When the first waiting request, which waits for a permit or for the pace, is to be looked at
    /// again, if no permit is given back and no request is answered until then.
    pub(super) fn next_chance(&self, pairs: &Pairs, now: u64) -> u64 {
        let deadline = self.queue.next_deadline();
        let at = Some(self.limits.dispatch_at(pairs)).filter(|&at| at > now);
        let permit = self.limits.next(pairs, now);
        [deadline, at, permit].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// A request has got a response that is not a refusal. If there are limits of requests in
    /// flight, it keeps its permits, and this returns `true`.
    #[inline]
    pub(in crate::client::pace) fn hold(&mut self) -> bool {
        let holds = self.has_pools();
        self.held += u64::from(holds);
        holds
    }

    /// Takes permits without a request, whether there are any or not.
    pub(in crate::client::pace) fn occupy(&mut self, pairs: &mut Pairs) {
        self.held += 1;
        self.limits.each_pool(pairs, Pool::occupy);
    }

    /// Gives the permits back that `hold` has kept or `occupy` has taken.
    pub(in crate::client::pace) fn release(&mut self, pairs: &mut Pairs) {
        self.held -= 1;
        self.limits.each_pool(pairs, Pool::release);
    }

    /// A response reports limits of requests in flight. Returns whether there may be more or fewer
    /// permits now.
    pub(super) fn learn(&mut self, pairs: &mut Pairs, told: &[Concurrent], now: u64) -> bool {
        let known = self.names.concurrent.len();
        let other = told.get(known).copied().unwrap_or_default();
        if self.limits.pools.len() == known && other != Concurrent::default() {
            // This request is in flight, unless it was refused; that one gives its permit back.
            let taken = self.in_flight + self.held + 1;
            self.limits.pools.push(pairs.pools.len());
            pairs.pools.push(Pool::reported(taken, self.queue.dispatched()));
        }
        let mut is_news = false;
        let mut adopted = Vec::new();
        self.limits.each_reported(pairs, told, |pool, told| {
            if pool.take_report(told, now) {
                is_news = true;
                adopted.push((pool.name(), pool.most(now)));
            }
        });
        for (limit, most) in adopted {
            let endpoint = self.endpoint;
            pairs.events.add(now, Event::ConcurrencyAdopted { endpoint, limit, most });
        }
        is_news
    }

    /// A request was admitted. Returns until when a refusal held before, and whether there may be
    /// more permits now.
    pub(super) fn admitted(
        &self,
        pairs: &mut Pairs,
        sent_at: u64,
        told: &[Concurrent],
    ) -> (u64, bool) {
        let (mut refused_until, mut is_more) = (0, false);
        self.limits.each_reported(pairs, told, |pool, told| {
            refused_until = pool.lowered_until().max(refused_until);
            is_more |= pool.admitted(sent_at, told.remaining);
        });
        (refused_until, is_more)
    }

    /// What the first waiting request lacks, or one more request would.
    pub(super) fn lack(&self, pairs: &Pairs, now: u64) -> Lack {
        let fullest = self.limits.fullest(pairs, now);
        match fullest.filter(|pool| self.due(pairs, 0) <= now && !pool.has_room(now, 0)) {
            Some(pool) => pool.lack(now),
            None => self.lack_of_time(pairs, Pair::dispatch_at),
        }
    }

    /// The limit that takes the longest, until a refusal by it holds no more, or until the time at
    /// which a request is `due` by it.
    pub(super) fn lack_of_time(&self, pairs: &Pairs, due: impl Fn(&Pair) -> u64) -> Lack {
        let rates = self.limits.of(pairs).map(|pair| (due(pair), Some(pair.name)));
        let pools = self.limits.pools(pairs).map(|pool| (pool.paused_until(), pool.name()));
        let slowest = pools.chain(rates).max_by_key(|(due, _)| *due);
        Lack { limit: slowest.and_then(|(_, name)| name), in_flight: None }
    }

    /// Whether the first waiting request, which has its units, waits for a permit of that pool, and
    /// not for an answer or a learned pace.
    pub(super) fn lacks_permit(&self, pairs: &Pairs, pool: &Pool, now: u64) -> bool {
        // If there are permits, requests that came earlier claim them.
        !pool.has_room(now, 0) || self.limits.dispatch_at(pairs) <= now
    }

    pub(super) fn concurrency(&self, pairs: &Pairs, now: u64) -> Option<Concurrency> {
        let pool = self.limits.fullest(pairs, now)?;
        let waits = self.due(pairs, 0) <= now && self.lacks_permit(pairs, pool, now);
        Some(Concurrency {
            limit: pool.name(),
            most: pool.most(now),
            in_flight: pool.taken(),
            waiting: if waits { self.queue.waiting() } else { 0 },
        })
    }
}
