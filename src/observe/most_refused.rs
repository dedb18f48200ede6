//! The principals that are refused most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Observation, Observer};
use crate::values::{Decisions, Outcome, Principal};

/// An observer that counts refusals by principal, to show an operator which principals are refused
/// most. Its memory is bounded, and requests that are allowed pay nothing for it.
///
/// It counts the requests that are over the limit, enforced or not. So in shadow mode it shows
/// which principals would be refused. Requests that are [blocked](crate::Limiter::block) are not
/// counted, because the operator knows them.
///
/// It has a fixed number of places. If there are more principals than places, a new principal takes
/// the place, and the count, of the one with the fewest refusals ([Space-Saving]). So
///
/// * with `n` places, a principal with more than one in `n` of all refusals is never missing;
/// * a count may be too high: the true number is between [`Refused::at_least`] and
///   [`Refused::refusals`].
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
    /// The part of the count that was taken over from the principal that had the place before.
    inherited: u64,
}

/// A principal and how often it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Refused {
    /// The principal.
    pub principal: Principal,
    /// The number of its refusals, at most.
    pub refusals: u64,
    /// The number of its refusals, at least.
    pub at_least: u64,
}

impl MostRefused {
    /// An observer with that number of places; 0 is treated as 1. A place takes some 150 bytes. The
    /// first refusal of a principal without a place looks at all places, so use some hundreds of
    /// them at most.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: places.max(1), by_candidate: false, counts: RwLock::default() }
    }

    /// Counts other requests instead: those that the limit allows and the
    /// [candidate](crate::Limiter::set_candidate) would have refused. This shows which principals
    /// would be worse off with the candidate.
    #[must_use]
    pub fn by_candidate(self) -> Self {
        Self { by_candidate: true, ..self }
    }

    /// The principals that were refused most since the start or since the last
    /// [`clear`](Self::clear): at most `most` of them, those with the most refusals first.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<Refused> {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counts.iter().map(|(principal, count)| count.of(principal)).collect();
        drop(counts);
        all.sort_by_key(|refused| Reverse((refused.refusals, refused.at_least)));
        all.truncate(most);
        all
    }

    /// Forgets all principals and starts again.
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
            let refuses = |candidate: &Decisions| !candidate.all_allow();
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
        // Without the principals: ids do not belong in a log.
        f.debug_struct("MostRefused").field("places", &self.places).finish_non_exhaustive()
    }
}
