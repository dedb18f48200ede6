//! Which principals are refused most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Observation, Observer};
use crate::values::{Decision, Outcome, Principal};

/// Counts refusals by principal, for an operator to see which are refused most: in bounded memory,
/// and at no cost to requests that are allowed.
///
/// It counts what the limit says, enforced or not, so in shadow mode it shows which principals
/// would be refused. Principals that an operator has [blocked](crate::Limiter::block) are not
/// counted: these are known.
///
/// When there are more principals than places, it keeps those that are refused most, and gives the
/// place of the least refused to each new one ([Space-Saving]). With `n` places, a principal that
/// has more than one in `n` of all refusals is never missing. A count may be too high:
/// [`Refused::at_least`] shows by how much at most.
///
/// [Space-Saving]: https://doi.org/10.1007/978-3-540-30570-5_27
///
/// ```
/// use std::sync::Arc;
/// use bolna_rate_limit::{Limiter, observe::MostRefused};
///
/// let refused = Arc::new(MostRefused::new(100));
/// Limiter::default().observe(Arc::clone(&refused));
/// // Later, in an operator's handler:
/// for caller in refused.top(10) {
///     println!("{:?}: {}", caller.principal, caller.refusals);
/// }
/// ```
pub struct MostRefused {
    places: usize,
    by_candidate: bool,
    counts: RwLock<HashMap<Principal, Count>>,
}

struct Count {
    refusals: AtomicU64,
    /// How many of them may have been those of the principal that had the place before.
    inherited: u64,
}

/// A principal and how often it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Refused {
    /// The principal.
    pub principal: Principal,
    /// How often it was refused, at most.
    pub refusals: u64,
    /// How often it was refused, at least.
    pub at_least: u64,
}

impl MostRefused {
    /// Counts for that many principals, at least 1. Each takes some 150 bytes. A principal that has
    /// no place yet costs a look at all places, so some hundreds are enough.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: places.max(1), by_candidate: false, counts: RwLock::default() }
    }

    /// Counts instead the requests that the limit allows and the
    /// [candidate](crate::Limiter::set_candidate) would have refused: which principals are worse
    /// off under the new limits.
    #[must_use]
    pub fn by_candidate(self) -> Self {
        Self { by_candidate: true, ..self }
    }

    /// The principals that were refused most since the start, or since [`clear`](Self::clear): at
    /// most that many, the most refused first.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<Refused> {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counts.iter().map(|(principal, count)| count.of(principal)).collect();
        drop(counts);
        all.sort_by_key(|refused| Reverse((refused.refusals, refused.at_least)));
        all.truncate(most);
        all
    }

    /// Forgets all principals.
    pub fn clear(&self) {
        self.counts.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn count(&self, principal: &Principal) {
        let known = |counts: &HashMap<Principal, Count>| {
            counts
                .get(principal)
                .map(|count| count.refusals.fetch_add(1, Ordering::Relaxed))
                .is_some()
        };
        if known(&self.counts.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut counts = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        if known(&counts) {
            return;
        }
        let mut inherited = 0;
        if counts.len() >= self.places {
            let refusals = |count: &Count| count.refusals.load(Ordering::Relaxed);
            let least = counts
                .iter()
                .map(|(principal, count)| (refusals(count), principal))
                .min_by_key(|least| least.0);
            if let Some((refusals, least)) = least {
                let least = least.clone();
                counts.remove(&least);
                inherited = refusals;
            }
        }
        counts.insert(
            principal.clone(),
            Count { refusals: AtomicU64::new(inherited + 1), inherited },
        );
    }
}

impl Count {
    fn of(&self, principal: &Principal) -> Refused {
        let refusals = self.refusals.load(Ordering::Relaxed);
        Refused { principal: principal.clone(), refusals, at_least: refusals - self.inherited }
    }
}

impl Observer for MostRefused {
    fn on_decision(&self, observation: &Observation<'_>) {
        let Observation { principal: Some(principal), ruling, .. } = observation else { return };
        let counts = if self.by_candidate {
            let refuses = |candidate: &Decision| !candidate.is_allowed();
            ruling.is_allowed() && ruling.candidate().is_some_and(refuses)
        } else {
            ruling.outcome() == Outcome::Limited
        };
        if counts {
            self.count(principal);
        }
    }
}

impl fmt::Debug for MostRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ids do not belong in a log.
        f.debug_struct("MostRefused").field("places", &self.places).finish_non_exhaustive()
    }
}
