//! An endpoint's limits of requests in flight.

use smallvec::SmallVec;

use super::limits::Limits;
use super::pair::Pair;
use super::pairs::Pairs;
use super::pool::Pool;
use crate::client::hints::Concurrent;

/// How many permits of each pool of a group are claimed by requests that came earlier.
pub(super) type Claims = SmallVec<[u64; 8]>;

/// Each step of a request is one of all its limits: it takes its units and its permits together, or
/// neither.
impl Limits {
    pub(super) fn pools<'a>(&'a self, pairs: &'a Pairs) -> impl Iterator<Item = &'a Pool> {
        self.pools.iter().map(|&pool| &pairs.pools[pool])
    }

    pub(super) fn each_pool(&self, pairs: &mut Pairs, mut change: impl FnMut(&mut Pool)) {
        self.pools.iter().for_each(|&pool| change(&mut pairs.pools[pool]));
    }

    /// Whether there are limits of requests in flight.
    #[inline]
    pub(super) fn has_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Whether there is a permit of each of the limits.
    pub(super) fn has_room(&self, pairs: &Pairs, now: u64) -> bool {
        self.pools(pairs).all(|pool| pool.has_room(now, 0))
    }

    /// Whether there is a permit of each of the limits besides those that are claimed. If not,
    /// claims one of each limit up to the first that has none.
    ///
    /// Otherwise a request that needs permits of two limits could wait for ever, because later ones
    /// take those of one limit while it waits for the other. But a permit of a limit is not
    /// reserved while one of a limit before it in the policy is missing: the own limit of an
    /// endpoint comes before those that it shares, which all its calls that last could block.
    pub(super) fn claim(&self, pairs: &Pairs, now: u64, claims: &mut Claims) -> bool {
        claims.resize(pairs.pools.len(), 0);
        let lacks = |&pool: &usize| !pairs.pools[pool].has_room(now, claims[pool]);
        let Some(missing) = self.pools.iter().position(lacks) else { return true };
        self.pools[..=missing].iter().for_each(|&pool| claims[pool] += 1);
        false
    }

    /// Claims a permit of each of the limits, or one of each up to the first that has none.
    pub(super) fn reserve(&self, pairs: &Pairs, now: u64, claims: &mut Claims) {
        if self.claim(pairs, now, claims) {
            self.pools.iter().for_each(|&pool| claims[pool] += 1);
        }
    }

    /// The longest time in which a unit of one of the rates comes back.
    pub(super) fn longest_interval(&self, pairs: &Pairs) -> u64 {
        self.of(pairs).map(Pair::interval).max().unwrap_or(0)
    }

    /// Whether a dispatched request may still be sent.
    #[inline]
    pub(super) fn may_send(&self, pairs: &Pairs, now: u64) -> bool {
        self.pools(pairs).all(|pool| pool.may_send(now))
    }

    /// The pool with the fewest permits left.
    pub(super) fn fullest<'a>(&'a self, pairs: &'a Pairs, now: u64) -> Option<&'a Pool> {
        self.pools(pairs)
            .filter(|pool| pool.most(now) < u64::MAX)
            .min_by_key(|pool| pool.remaining(now))
    }

    /// When there will be more permits, if none is given back until then.
    pub(super) fn next(&self, pairs: &Pairs, now: u64) -> Option<u64> {
        self.pools(pairs).filter_map(|pool| pool.next(now)).min()
    }

    /// Until when a refusal holds.
    pub(super) fn refused_until(&self, pairs: &Pairs) -> u64 {
        let lowered = self.pools(pairs).map(Pool::lowered_until);
        lowered.fold(self.paused_until(pairs), u64::max)
    }

    /// A request is dispatched.
    pub(super) fn dispatch(&self, pairs: &mut Pairs, now: u64) {
        self.each(pairs, |pair| pair.dispatch(now));
        self.each_pool(pairs, Pool::dispatch);
    }

    /// A dispatched request is sent.
    pub(super) fn send(&self, pairs: &mut Pairs, now: u64) {
        self.each(pairs, |pair| pair.send(now));
        self.each_pool(pairs, Pool::send);
    }

    /// A request is dispatched and sent at once.
    #[inline]
    pub(super) fn pass(&self, pairs: &mut Pairs, now: u64) {
        self.each(pairs, |pair| pair.pass(now));
        self.each_pool(pairs, Pool::occupy);
    }

    /// A dispatched request is not sent now.
    pub(super) fn give_back(&self, pairs: &mut Pairs) {
        self.each(pairs, Pair::give_back);
        self.each_pool(pairs, Pool::give_back);
    }

    /// A dispatched request can't be sent in time.
    pub(super) fn lapse(&self, pairs: &mut Pairs) {
        self.each(pairs, Pair::lapse);
        self.each_pool(pairs, Pool::give_back);
    }

    /// What a response reports, for each of the pools.
    pub(super) fn each_reported(
        &self,
        pairs: &mut Pairs,
        told: &[Concurrent],
        mut change: impl FnMut(&mut Pool, Concurrent),
    ) {
        let told = told.iter().copied().chain(std::iter::repeat(Concurrent::default()));
        for (&pool, told) in self.pools.iter().zip(told) {
            change(&mut pairs.pools[pool], told);
        }
    }
}
