//! A bounded number of counts, by the algorithm Space-Saving.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

use crate::values::{Endpoint, LimitName, Outcome, Principal, Scope};

/// The counts of at most a number of violations.
pub(super) struct Places {
    most: usize,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    /// The indices of the places, by the hashes of their violations.
    indices: HashTable<usize>,
}

struct Place {
    violation: Violation,
    refusals: AtomicU64,
    /// The part of the count that was taken over from the violation that had the place before.
    inherited: u64,
    /// The time of the first refusal since the violation has the place, in milliseconds.
    first: u64,
    last: AtomicU64,
}

/// A principal, and a limit that did not allow its requests.
#[derive(Clone)]
pub(super) struct Violation {
    pub(super) principal: Principal,
    pub(super) user: Option<Principal>,
    pub(super) limit: LimitName,
    pub(super) scope: Scope,
    pub(super) outcome: Outcome,
}

/// A [`Violation`] that borrows, to find one without a copy of its ids.
pub(super) struct Violated<'a> {
    pub(super) principal: &'a Principal,
    pub(super) user: Option<&'a Principal>,
    pub(super) limit: LimitName,
    pub(super) scope: Scope,
    pub(super) outcome: Outcome,
}

/// The last refusal of a violation.
#[derive(Clone, Copy)]
pub(super) struct Last {
    /// When it was, in milliseconds.
    pub(super) at: u64,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) enforced: bool,
}

/// What is known about a violation.
pub(super) struct Count {
    pub(super) violation: Violation,
    pub(super) refusals: u64,
    pub(super) inherited: u64,
    pub(super) first: u64,
    pub(super) last: Last,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, table: RwLock::default() }
    }

    /// Counts a refusal. If the violation has a place, this neither allocates nor takes the lock
    /// for writing.
    pub(super) fn count(&self, violated: &Violated<'_>, last: Last) {
        let hash = violated.hash();
        if let Some(place) = self.read().find(hash, violated) {
            return place.count(last);
        }
        let mut table = self.write();
        match table.find(hash, violated) {
            Some(place) => place.count(last),
            None => table.add(hash, violated, last, self.most),
        }
    }

    pub(super) fn find(&self, is_wanted: impl Fn(&Violation) -> bool) -> Vec<Count> {
        let table = self.read();
        let wanted = table.places.iter().filter(|place| is_wanted(&place.violation));
        wanted.map(Place::read).collect()
    }

    pub(super) fn clear(&self) {
        *self.write() = Table::default();
    }

    // Nothing in here panics while it holds the lock, so a poisoned lock does no harm.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&self, hash: u64, violated: &Violated<'_>) -> Option<&Place> {
        let is_same = |index: &usize| violated.is(&self.places[*index].violation);
        self.indices.find(hash, is_same).map(|index| &self.places[*index])
    }

    /// Gives a violation a place: a free one, or that of the violation with the fewest refusals,
    /// whose count it takes over.
    fn add(&mut self, hash: u64, violated: &Violated<'_>, last: Last, most: usize) {
        let Self { places, indices } = self;
        let index = if places.len() < most {
            if places.len() == places.capacity() {
                // Doubled, but never to more than the most.
                places.reserve_exact(places.len().max(4).min(most - places.len()));
            }
            places.push(Place::new(violated, 0, last));
            places.len() - 1
        } else {
            let refusals = |index: &usize| places[*index].refusals.load(Ordering::Relaxed);
            let Some(least) = (0..places.len()).min_by_key(refusals) else { return };
            let old = places[least].violation.borrow().hash();
            if let Ok(index) = indices.find_entry(old, |index| *index == least) {
                index.remove();
            }
            places[least] = Place::new(violated, refusals(&least), last);
            least
        };
        indices.insert_unique(hash, index, |index| places[*index].violation.borrow().hash());
    }
}

impl Place {
    /// A place with one refusal, and those that are inherited.
    fn new(violated: &Violated<'_>, inherited: u64, last: Last) -> Self {
        Self {
            violation: violated.to_owned(),
            refusals: AtomicU64::new(inherited + 1),
            inherited,
            first: last.at,
            last: AtomicU64::new(last.pack()),
        }
    }

    fn count(&self, last: Last) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        // A thread that was held up must not set the time back.
        let last = last.pack();
        let is_later = |known| (known >> Last::BITS <= last >> Last::BITS).then_some(last);
        let _ = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_later);
    }

    fn read(&self) -> Count {
        Count {
            violation: self.violation.clone(),
            refusals: self.refusals.load(Ordering::Relaxed),
            inherited: self.inherited,
            first: self.first,
            last: Last::unpack(self.last.load(Ordering::Relaxed)),
        }
    }
}

impl Violation {
    fn borrow(&self) -> Violated<'_> {
        let Self { principal, user, limit, scope, outcome } = self;
        let (user, limit, scope, outcome) = (user.as_ref(), *limit, *scope, *outcome);
        Violated { principal, user, limit, scope, outcome }
    }
}

impl Violated<'_> {
    fn is(&self, violation: &Violation) -> bool {
        (self.limit, self.scope, self.outcome)
            == (violation.limit, violation.scope, violation.outcome)
            && self.principal == &violation.principal
            && self.user == violation.user.as_ref()
    }

    /// The fingerprints are keyed hashes, so no caller can choose ids that collide. What is told
    /// apart by the scope or the outcome alone is rare and need not have different hashes.
    fn hash(&self) -> u64 {
        let [principal, _] = self.principal.id().fingerprint();
        let user = self.user.map_or(0, |user| user.id().fingerprint()[1]);
        // The golden ratio: it spreads the few bits of the number over all.
        principal ^ user ^ u64::from(self.limit.number() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn to_owned(&self) -> Violation {
        let Self { principal, user, limit, scope, outcome } = *self;
        Violation { principal: principal.clone(), user: user.cloned(), limit, scope, outcome }
    }
}

impl Last {
    /// The bits below those of the time.
    const BITS: u32 = 16;
    const ENFORCED: u64 = 1 << 15;
    /// More than the number of any endpoint.
    const NO_ENDPOINT: u16 = 0x7fff;

    /// One word, so that all of it is of the same refusal. The time has room for 8,900 years.
    fn pack(self) -> u64 {
        let number = |endpoint| LimitName::from(endpoint).number();
        let endpoint = u64::from(self.endpoint.map_or(Self::NO_ENDPOINT, number));
        let at = self.at.min(u64::MAX >> Self::BITS);
        at << Self::BITS | if self.enforced { Self::ENFORCED } else { 0 } | endpoint
    }

    fn unpack(last: u64) -> Self {
        let number = u16::try_from(last & (Self::ENFORCED - 1)).unwrap_or(Self::NO_ENDPOINT);
        Self {
            at: last >> Self::BITS,
            endpoint: Endpoint::numbered(number),
            enforced: last & Self::ENFORCED != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_is_read_as_it_was_written() {
        let own = Endpoint::new("most-refused-last").expect("a valid name");
        for endpoint in [None, Some(Endpoint::EXECUTIONS), Some(Endpoint::DEFAULT), Some(own)] {
            for (at, enforced) in [(0, true), (3_600_000, false), (u64::MAX >> 16, true)] {
                let read = Last::unpack(Last { at, endpoint, enforced }.pack());
                assert_eq!((read.at, read.endpoint, read.enforced), (at, endpoint, enforced));
            }
        }
        let late = Last { at: u64::MAX, endpoint: None, enforced: false };
        assert_eq!(Last::unpack(late.pack()).at, u64::MAX >> 16);
    }

    #[test]
    fn the_number_of_no_endpoint_is_beyond_those_of_endpoints() {
        assert!(usize::from(Last::NO_ENDPOINT) >= Endpoint::MAX);
    }

    #[test]
    fn places_that_change_hands_leave_nothing_behind() {
        let places = Places::new(3);
        for number in 0..1_000 {
            let principal = Principal::user(number).expect("not empty");
            let (limit, scope) = (LimitName::from(Endpoint::CALL), Scope::Account);
            let outcome = Outcome::Limited;
            let violated = Violated { principal: &principal, user: None, limit, scope, outcome };
            places.count(&violated, Last { at: number, endpoint: None, enforced: true });
        }
        let table = places.read();
        assert_eq!((table.places.len(), table.places.capacity(), table.indices.len()), (3, 3, 3));
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_place_takes_176_bytes() {
        assert_eq!(size_of::<Place>(), 176);
    }
}
