//! Charges: what one request takes from its buckets, all or nothing.

mod decisions;
mod law;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use smallvec::SmallVec;

use super::decision::Decision;
use super::endpoint::Endpoint;
use super::gcra::Rate;
use super::principal::Principal;
use super::quota::Quota;

pub use decisions::{ChargeOutcome, Decisions};

pub use law::BucketState;

/// What one request takes from the buckets of one principal, all or nothing.
///
/// A charge has 1 to [`Charge::MAX_ENTRIES`] entries. Each entry names a bucket, the quota that the
/// bucket is measured by, and the cost: how many units the request takes from it. An entry is
/// *binding* unless it is made a [shadow](Entry::shadow) entry.
///
/// * If every binding bucket holds its cost, all binding buckets are charged. The shadow buckets
///   are charged too if all of them hold their costs.
/// * If a binding bucket does not hold its cost, or is blocked, no bucket is charged: the request
///   is refused.
/// * If there are shadow entries only, they are all charged or none is, and the request is admitted
///   either way.
///
/// [`ChargeOutcome`] names these cases, and [`Decisions`] holds what each limit says.
///
/// ```
/// use bolna_rate_limit::store::{Charge, ChargeOutcome, Entry, MemoryStore, Store};
/// use bolna_rate_limit::{Endpoint, Principal, Quota};
///
/// let requests = Entry::new(Endpoint::CALL, Quota::per_minute(500).build()?);
/// let rows = Entry::new(Endpoint::new("rows")?, Quota::per_minute(10_000).build()?);
/// let rows = rows.with_cost(9_000)?;
/// let caller = Principal::organization("org-4").expect("the id is not empty");
/// let entries = [requests, rows];
///
/// let store = MemoryStore::new();
/// let check = || store.check(Charge::new(&caller, &entries).expect("two buckets")).now();
/// let decisions = check().expect("the answer is there")?;
/// assert_eq!(decisions.outcome(), ChargeOutcome::Admitted);
///
/// // The rows do not suffice for a second request. So it takes no unit from `call` either.
/// let decisions = check().expect("the answer is there")?;
/// assert_eq!(decisions.outcome(), ChargeOutcome::Refused);
/// let [call, rows] = decisions.as_slice() else { panic!("one decision for each entry") };
/// assert!(call.is_allowed() && !rows.is_allowed());
/// assert_eq!(call.remaining(), 499);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    principal: &'a Principal,
    entries: &'a [Entry],
}

impl<'a> Charge<'a> {
    /// The most entries of a charge: 16.
    pub const MAX_ENTRIES: usize = 16;

    /// A charge of these buckets of that principal.
    ///
    /// # Errors
    /// If there is no entry, if there are more than [`MAX_ENTRIES`](Self::MAX_ENTRIES), or if two
    /// entries name the same bucket.
    pub fn new(principal: &'a Principal, entries: &'a [Entry]) -> Result<Self, ChargeError> {
        if !(1..=Self::MAX_ENTRIES).contains(&entries.len()) {
            return Err(ChargeError::Entries { count: entries.len() });
        }
        for (index, entry) in entries.iter().enumerate() {
            if entries[..index].iter().any(|other| other.endpoint == entry.endpoint) {
                return Err(ChargeError::SameBucket { endpoint: entry.endpoint });
            }
        }
        Ok(Self { principal, entries })
    }

    /// A charge of one bucket.
    #[must_use]
    #[inline]
    pub const fn of_one(principal: &'a Principal, entry: &'a Entry) -> Self {
        Self { principal, entries: std::slice::from_ref(entry) }
    }

    /// A charge whose entries are known to be valid.
    #[cfg(feature = "redis")]
    #[inline]
    pub(crate) const fn of(principal: &'a Principal, entries: &'a [Entry]) -> Self {
        Self { principal, entries }
    }

    /// The charge of the same principal with other entries, which name the same buckets.
    pub(crate) const fn with_entries<'b>(&self, entries: &'b [Entry]) -> Charge<'b>
    where
        'a: 'b,
    {
        Charge { principal: self.principal, entries }
    }

    /// The principal whose buckets are charged.
    #[must_use]
    #[inline]
    pub const fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// The entries: at least one, at most [`MAX_ENTRIES`](Self::MAX_ENTRIES).
    #[must_use]
    #[inline]
    pub const fn entries(&self) -> &'a [Entry] {
        self.entries
    }
}

/// A [`Charge`] that does not borrow, for checks that wait.
#[derive(Clone, Debug)]
pub(crate) struct OwnedCharge {
    principal: Principal,
    /// One fits without an allocation.
    entries: SmallVec<[Entry; 1]>,
}

impl OwnedCharge {
    pub(crate) fn of(charge: &Charge<'_>) -> Self {
        Self { principal: charge.principal.clone(), entries: charge.entries.into() }
    }

    pub(crate) fn borrow(&self) -> Charge<'_> {
        Charge { principal: &self.principal, entries: &self.entries }
    }
}

/// One bucket of a [`Charge`]: which one, how it is measured, and what it is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    endpoint: Endpoint,
    quota: Quota,
    /// What the quota is counted by, in nanoseconds for each unit.
    interval: u64,
    cost: NonZeroU32,
    binding: bool,
}

impl Entry {
    /// An entry for the bucket of `endpoint`, measured by `quota`. It is binding and costs one
    /// unit.
    #[must_use]
    pub const fn new(endpoint: Endpoint, quota: Quota) -> Self {
        Self::counted_by(endpoint, quota, quota.rate())
    }

    /// Sets the cost: the units that the request takes from the bucket, or that are given back to
    /// it.
    ///
    /// # Errors
    /// If the cost is 0, or more than the quota's [burst](Quota::burst): no bucket ever holds more
    /// units than that.
    pub const fn with_cost(self, units: u32) -> Result<Self, ChargeError> {
        let (endpoint, burst) = (self.endpoint, self.quota.burst());
        match NonZeroU32::new(units) {
            Some(cost) if units <= burst => Ok(Self { cost, ..self }),
            _ => Err(ChargeError::Cost { endpoint, cost: units, burst }),
        }
    }

    /// Makes this a shadow entry: its bucket is charged if it holds the cost, and refuses nothing.
    #[must_use]
    pub const fn shadow(self) -> Self {
        Self { binding: false, ..self }
    }

    /// The bucket of that endpoint, measured by that quota, which a store counts by `rate`: the
    /// quota's own, or a slower one. Binding, with a cost of one unit.
    #[inline]
    pub(crate) const fn counted_by(endpoint: Endpoint, quota: Quota, rate: Rate) -> Self {
        let interval = rate.interval();
        Self { endpoint, quota, interval, cost: NonZeroU32::MIN, binding: true }
    }

    /// The entry, counted by another rate of the same burst.
    pub(crate) const fn counted_in(self, rate: Rate) -> Self {
        Self { interval: rate.interval(), ..self }
    }

    /// The endpoint whose bucket it is.
    #[must_use]
    #[inline]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The quota that the bucket is measured by.
    #[must_use]
    #[inline]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// The cost in units: 1 unless it was [set](Self::with_cost). From 1 to the quota's burst.
    #[must_use]
    #[inline]
    pub const fn cost(&self) -> u32 {
        self.cost.get()
    }

    /// Whether the request is refused if the bucket does not hold the cost.
    #[must_use]
    #[inline]
    pub const fn is_binding(&self) -> bool {
        self.binding
    }

    /// For stores: the limit allows the request, and the bucket is full again after `debt`. The
    /// debt includes the cost if the bucket was charged.
    #[must_use]
    pub const fn allowed(&self, debt: Duration) -> Decision {
        Decision::allowed(self.endpoint, self.quota, debt).of_cost(self.cost)
    }

    /// For stores: the bucket does not hold the cost, and is full again after `debt`. A smaller
    /// debt, with which it would hold the cost, is raised to the smallest with which it does not.
    #[must_use]
    pub const fn limited(&self, debt: Duration) -> Decision {
        Decision::limited_at(self.endpoint, self.quota, self.cost, debt)
    }

    /// For stores: the bucket is blocked. `wait` is the time until a request can be allowed: until
    /// the end of the block, or longer if the bucket does not hold the cost by then. A zero `wait`
    /// is treated as 1 ns.
    #[must_use]
    pub const fn blocked(&self, wait: Duration) -> Decision {
        Decision::blocked_at(self.endpoint, self.quota, self.cost, wait)
    }

    /// What the quota is counted by.
    #[inline]
    pub(crate) const fn rate(&self) -> Rate {
        Rate::of(self.quota, self.interval)
    }

    /// The largest debt, in nanoseconds, with which the bucket holds the cost.
    #[inline]
    pub(crate) const fn tolerance(&self) -> u64 {
        self.rate().refill() - self.time()
    }

    /// The time in which the units of the cost come back, in nanoseconds.
    #[inline]
    pub(crate) const fn time(&self) -> u64 {
        self.rate().time_of(self.cost.get())
    }

    pub(crate) const fn cost_units(&self) -> NonZeroU32 {
        self.cost
    }

    /// [`allowed`](Self::allowed) or [`limited`](Self::limited), from a store that has counted by
    /// the rate, and whose `allowed` and `debt`, in nanoseconds, agree.
    #[inline]
    pub(crate) const fn decide(&self, allowed: bool, debt: u64) -> Decision {
        Decision::from_nanos(self.endpoint, self.quota, self.rate(), allowed, debt)
            .of_cost(self.cost)
    }

    /// [`blocked`](Self::blocked), from a store that has counted by the rate; `wait` is in
    /// nanoseconds.
    pub(crate) const fn decide_blocked(&self, wait: u64) -> Decision {
        Decision::blocked_by(self.endpoint, self.quota, self.rate(), self.cost, wait)
    }
}

/// Why a [`Charge`] or an [`Entry`] is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChargeError {
    /// There are no entries, or more than [`Charge::MAX_ENTRIES`].
    #[non_exhaustive]
    Entries {
        /// How many there are.
        count: usize,
    },
    /// Two entries name the same bucket.
    #[non_exhaustive]
    SameBucket {
        /// The endpoint that both name.
        endpoint: Endpoint,
    },
    /// The cost is 0, or more than the bucket can hold.
    #[non_exhaustive]
    Cost {
        /// The endpoint of the bucket.
        endpoint: Endpoint,
        /// The cost.
        cost: u32,
        /// The most units that the bucket can hold.
        burst: u32,
    },
}

impl fmt::Display for ChargeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { count } => {
                write!(f, "a charge of {count} buckets: it must have 1 to {}", Charge::MAX_ENTRIES)
            }
            Self::SameBucket { endpoint } => write!(
                f,
                "a charge names the bucket of endpoint {endpoint} twice: add up the costs in one \
                 entry"
            ),
            Self::Cost { endpoint, cost, burst } => write!(
                f,
                "a cost of {cost} for endpoint {endpoint}: it must be from 1 to the burst, \
                 {burst}, since the bucket never holds more units"
            ),
        }
    }
}

impl Error for ChargeError {}
