//! What is known of limits, by their names: while a policy is replaced, of all; and otherwise of
//! those that are not in the policy, for a policy that has them again.

use std::collections::HashMap;

use super::pair::{BELIEF, Pair};
use super::pairs::Pairs;
use super::pool::Pool;
use super::state::State;
use crate::client::log::{Events, Pending};
use crate::values::{Endpoint, LimitName};

#[derive(Debug, Default)]
pub(super) struct Known {
    rates: HashMap<LimitName, Pair>,
    pools: HashMap<LimitName, Pool>,
    /// The limits of requests in flight that only the server knows.
    reported: HashMap<Endpoint, Pool>,
    /// How many refusals in a row the endpoints got that are gone, and when they left the policy.
    refused_in_a_row: HashMap<Endpoint, (u32, u64)>,
}

impl Known {
    /// Adds the limits of a group that gives them up.
    pub(super) fn add_limits(&mut self, states: &[State], pairs: Pairs) {
        let mut pools: Vec<_> = pairs.pools.into_iter().map(Some).collect();
        for state in states {
            for index in &state.limits.pools {
                if let Some(pool) = pools[*index].take_if(|pool| pool.name().is_none()) {
                    self.reported.insert(state.endpoint(), pool);
                }
            }
        }
        self.rates.extend(pairs.rates.into_iter().map(|pair| (pair.name, pair)));
        let named = pools.into_iter().flatten().filter_map(|pool| Some((pool.name()?, pool)));
        self.pools.extend(named);
    }

    /// Hands down what is known of these limits.
    pub(super) fn inherit_limits(&mut self, pairs: &mut Pairs, now: u64) {
        for pair in &mut pairs.rates {
            if let Some(old) = self.rates.remove(&pair.name) {
                pair.inherit(old, now);
            }
        }
        for pool in &mut pairs.pools {
            if let Some(old) = pool.name().and_then(|name| self.pools.remove(&name)) {
                pool.inherit(&old);
            }
        }
    }

    pub(super) fn reported(&mut self, endpoint: Endpoint) -> Option<Pool> {
        self.reported.remove(&endpoint)
    }

    /// An endpoint leaves the policy after so many refusals in a row.
    pub(super) fn add_refusals(&mut self, endpoint: Endpoint, in_a_row: u32, now: u64) {
        if in_a_row > 0 {
            self.refused_in_a_row.insert(endpoint, (in_a_row, now));
        }
    }

    pub(super) fn refused_in_a_row(&mut self, endpoint: Endpoint) -> u32 {
        self.refused_in_a_row.remove(&endpoint).map_or(0, |(in_a_row, _)| in_a_row)
    }

    /// Drops what would make no difference any more, so that policies with ever new names take no
    /// more memory than what was sent and answered lately.
    pub(super) fn pass_time(&mut self, now: u64) {
        let matters = |pool: &mut Pool| {
            pool.pass_time(now);
            pool.next(now).is_some()
        };
        self.rates.retain(|_, pair| pair.matters_until() > now);
        self.pools.retain(|_, pool| matters(pool));
        self.reported.retain(|_, pool| matters(pool));
        self.refused_in_a_row.retain(|_, (_, at)| now < at.saturating_add(BELIEF));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let Self { rates, pools, reported, refused_in_a_row } = self;
        rates.len() + pools.len() + reported.len() + refused_in_a_row.len()
    }

    /// No pause holds any more. If it `forgets`, nothing is left of what responses have taught.
    pub(super) fn resume(&mut self, forgets: bool, now: u64) -> Pending {
        let mut events = Events::default();
        self.refused_in_a_row.clear();
        for pair in self.rates.values_mut() {
            if forgets {
                pair.unlearn(now, &mut events);
            } else {
                pair.resume(now);
            }
        }
        for pool in self.pools.values_mut().chain(self.reported.values_mut()) {
            if forgets {
                pool.unlearn();
            } else {
                pool.resume(now);
            }
        }
        events.drain()
    }
}
