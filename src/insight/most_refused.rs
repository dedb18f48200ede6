//! Who is refused most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Observation, Observe, Outcome};
use crate::principal::Principal;

/// Counts refusals by principal, for an operator to see who is refused most: in bounded memory, and
/// only when somebody is refused.
///
/// It counts what the limiter says, enforced or not, so in shadow mode it tells who would be
/// refused. Whom an operator has [blocked](crate::Limiter::block) it does not count: that is known.
///
/// With more principals than it has places for, it keeps those who are refused most and gives the
/// place of the least refused to each newcomer ([Space-Saving](https://doi.org/10.1007/978-3-540-30570-5_27)): whoever has more than one in so many
/// refusals as there are places is never missing, and a count is too high by what
/// [`Refused::at_least`] shows at most.
///
/// ```
/// use std::sync::Arc;
/// use bolna_rate_limit::{BolnaRateLimitLayer, insight::MostRefused};
///
/// let refused = Arc::new(MostRefused::new(100));
/// let layer = BolnaRateLimitLayer::new().observe(Arc::clone(&refused));
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
    /// How many of them may have been another's.
    inherited: u64,
}

/// A principal and how often it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Who.
    pub principal: Principal,
    /// How often at most.
    pub refusals: u64,
    /// How often at least.
    pub at_least: u64,
}

impl MostRefused {
    /// Counts for that many principals, at least 1. Each takes some 150 bytes. A newcomer costs a
    /// look at all of them, so some hundreds are enough.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: places.max(1), by_candidate: false, counts: RwLock::default() }
    }

    /// Counts those instead whom the limiter admits and the
    /// [candidate](crate::Limiter::set_candidate) would have refused: who is worse off under
    /// the new limits.
    #[must_use]
    pub fn by_candidate(self) -> Self {
        Self { by_candidate: true, ..self }
    }

    /// Who was refused most since the start, or since [`clear`](Self::clear): at most that many,
    /// the most refused first.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<Refused> {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counts.iter().map(|(principal, count)| count.of(principal)).collect();
        drop(counts);
        all.sort_by_key(|refused| Reverse((refused.refusals, refused.at_least)));
        all.truncate(most);
        all
    }

    /// Forgets everybody.
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

impl Observe for MostRefused {
    fn decided(&self, observation: &Observation<'_>) {
        let refused = match observation.outcome {
            Outcome::Allowed(_) if self.by_candidate => {
                observation.candidate.is_some_and(|decision| !decision.is_allowed())
            }
            Outcome::Limited(_) => !self.by_candidate,
            _ => false,
        };
        if let Some(principal) = observation.principal.filter(|_| refused) {
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
