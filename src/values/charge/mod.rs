//! Charges: the units that one request costs, which are taken from all of its buckets or none.

mod bucket;
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
use super::gcra::Rate;
use super::limit::{Limit, LimitName, Scope};
use super::principal::Principal;
use super::quota::Quota;

pub use bucket::Bucket;
pub use decisions::{ChargeOutcome, Decisions};

pub use law::BucketState;

pub(crate) use bucket::OwnedBucket;

/// What one request is charged: units from buckets of one principal, of a user within it, and of
/// everyone. They come from all of these buckets or from none.
///
/// A charge has 1 to [`Charge::MAX_ENTRIES`] entries. Each entry names a limit, which says which
/// bucket it is and how that is measured, and has a cost in units. An entry is *binding* unless it
/// is made a [shadow](Entry::shadow) entry.
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
/// use bolna_rate_limit::values::LimitName;
/// use bolna_rate_limit::{Endpoint, Principal, Quota};
///
/// let requests = Entry::new(Endpoint::CALL, Quota::per_minute(500).build()?);
/// let rows = Entry::new(LimitName::new("rows")?, Quota::per_minute(10_000).build()?);
/// let rows = rows.with_cost(9_000)?;
/// let caller = Principal::organization("org-4").expect("the id is not empty");
/// let entries = [requests, rows];
///
/// let store = MemoryStore::new();
/// let check = || store.check(Charge::new(&caller, &entries).expect("two buckets")).now();
/// let decisions = check().expect("the answer is there")?;
/// assert_eq!(decisions.outcome(), ChargeOutcome::Admitted);
///
/// // The rows do not suffice for a second request. So it is not charged to `call` either.
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
    /// The user within the principal. Set if an entry counts each user.
    user: Option<&'a Principal>,
    entries: &'a [Entry],
}

impl<'a> Charge<'a> {
    /// The most entries of a charge: 16.
    pub const MAX_ENTRIES: usize = 16;

    /// A charge of these buckets of that principal.
    ///
    /// # Errors
    /// If there is no entry, if there are more than [`MAX_ENTRIES`](Self::MAX_ENTRIES), if two
    /// entries name the same bucket, if only some of them count addresses, if an entry's limit is
    /// of [requests in flight](Quota::is_concurrent), which no store counts, or if it counts each
    /// [user](crate::values::Scope::User).
    pub fn new(principal: &'a Principal, entries: &'a [Entry]) -> Result<Self, ChargeError> {
        Self::checked(Self { principal, user: None, entries })
    }

    /// A charge of these buckets of that principal and of a user within it.
    ///
    /// # Errors
    /// As those of [`new`](Self::new), except that entries may count each user.
    pub fn with_user(
        principal: &'a Principal,
        user: &'a Principal,
        entries: &'a [Entry],
    ) -> Result<Self, ChargeError> {
        Self::checked(Self { principal, user: Some(user), entries })
    }

    fn checked(charge: Self) -> Result<Self, ChargeError> {
        let entries = charge.entries;
        if !(1..=Self::MAX_ENTRIES).contains(&entries.len()) {
            return Err(ChargeError::Entries { count: entries.len() });
        }
        for (index, entry) in entries.iter().enumerate() {
            let limit = entry.name;
            if (entry.scope == Scope::Address) != (entries[0].scope == Scope::Address) {
                return Err(ChargeError::Mixed { limit });
            }
            if entry.is_concurrent() {
                return Err(ChargeError::Concurrent { limit });
            }
            if entry.scope == Scope::User && charge.user.is_none() {
                return Err(ChargeError::NoUser { limit });
            }
            if entries[..index].iter().any(|other| charge.bucket(other) == charge.bucket(entry)) {
                return Err(ChargeError::SameBucket { limit });
            }
        }
        Ok(charge)
    }

    /// A charge of one bucket of that principal. Unless the entry's limit counts everyone, it is
    /// treated as one that counts the principal. A limit of requests in flight must not be charged
    /// to a store: it would count as one request a second.
    #[must_use]
    #[inline]
    pub const fn of_one(principal: &'a Principal, entry: &'a Entry) -> Self {
        Self { principal, user: None, entries: std::slice::from_ref(entry) }
    }

    /// A charge whose entries are known to be valid.
    #[inline]
    pub(crate) const fn of(
        principal: &'a Principal,
        user: Option<&'a Principal>,
        entries: &'a [Entry],
    ) -> Self {
        Self { principal, user, entries }
    }

    /// The same charge with other entries, which name the same buckets or some of them.
    pub(crate) const fn with_entries<'b>(&self, entries: &'b [Entry]) -> Charge<'b>
    where
        'a: 'b,
    {
        Charge { principal: self.principal, user: self.user, entries }
    }

    /// The same charge, which names that user if it names none.
    pub(crate) fn or_user(self, user: Option<&'a Principal>) -> Self {
        Self { user: self.user.or(user), ..self }
    }

    /// The principal that is billed. Buckets of limits for everyone do not belong to it.
    #[must_use]
    #[inline]
    pub const fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// The user within the principal, if the charge names one.
    #[must_use]
    #[inline]
    pub const fn user(&self) -> Option<&'a Principal> {
        self.user
    }

    /// The entries: at least one, at most [`MAX_ENTRIES`](Self::MAX_ENTRIES).
    #[must_use]
    #[inline]
    pub const fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// The bucket of one of the entries.
    #[must_use]
    #[inline]
    pub fn bucket(&self, entry: &Entry) -> Bucket<'a> {
        match (entry.scope, self.user) {
            (Scope::User, Some(user)) => Bucket::of_user(self.principal, user, entry.name),
            (Scope::Everyone, _) => Bucket::of_everyone(entry.name),
            (Scope::Address, _) => Bucket::of_address(self.principal, entry.name),
            _ => Bucket::of_account(self.principal, entry.name),
        }
    }

    /// The buckets, in the order of the entries.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket<'a>> + use<'a> {
        let charge = *self;
        self.entries.iter().map(move |entry| charge.bucket(entry))
    }
}

/// A [`Charge`] that does not borrow, for checks that wait.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedCharge {
    principal: Principal,
    user: Option<Principal>,
    /// One fits without an allocation.
    entries: SmallVec<[Entry; 1]>,
}

impl OwnedCharge {
    pub(crate) fn of(charge: &Charge<'_>) -> Self {
        Self {
            principal: charge.principal.clone(),
            user: charge.user.cloned(),
            entries: charge.entries.into(),
        }
    }

    pub(crate) fn borrow(&self) -> Charge<'_> {
        Charge { principal: &self.principal, user: self.user.as_ref(), entries: &self.entries }
    }
}

/// One bucket of a [`Charge`]: its limit, and how many units the request costs there.
///
/// The [example of `Charge`](Charge) has two binding entries, and the
/// [example of `ChargeOutcome`](ChargeOutcome) a shadow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    name: LimitName,
    quota: Quota,
    /// What the quota is counted by, in nanoseconds for each unit.
    interval: u64,
    cost: NonZeroU32,
    scope: Scope,
    binding: bool,
}

impl Entry {
    /// An entry for the bucket of the limit of that name, measured by `quota`. It counts the
    /// principal, is binding, and costs one unit.
    #[must_use]
    pub fn new(name: impl Into<LimitName>, quota: Quota) -> Self {
        Self::of(Limit::new(name, quota))
    }

    /// An entry for the bucket of that limit. It is binding, and costs one unit.
    #[must_use]
    pub const fn of(limit: Limit) -> Self {
        Self::counted_by(limit, limit.quota().rate())
    }

    /// Sets the cost: the units that the request takes from the bucket, or that are given back to
    /// it.
    ///
    /// # Errors
    /// If the cost is 0, or more than the quota's [burst](Quota::burst): no bucket ever holds more
    /// units than that.
    pub const fn with_cost(self, units: u32) -> Result<Self, ChargeError> {
        let (limit, burst) = (self.name, self.quota.burst());
        match NonZeroU32::new(units) {
            Some(cost) if units <= burst => Ok(Self { cost, ..self }),
            _ => Err(ChargeError::Cost { limit, cost: units, burst }),
        }
    }

    /// Makes this a shadow entry: its bucket is charged if it holds the cost, and refuses nothing.
    #[must_use]
    pub const fn shadow(self) -> Self {
        Self { binding: false, ..self }
    }

    /// The bucket of that limit, whose quota a store counts by `rate`: the quota's own, or a slower
    /// one. Binding, with a cost of one unit.
    #[inline]
    pub(crate) const fn counted_by(limit: Limit, rate: Rate) -> Self {
        Self {
            name: limit.name(),
            quota: limit.quota(),
            interval: rate.interval(),
            cost: NonZeroU32::MIN,
            scope: limit.scope(),
            binding: true,
        }
    }

    /// The entry, counted by another rate of the same burst.
    pub(crate) const fn counted_in(self, rate: Rate) -> Self {
        Self { interval: rate.interval(), ..self }
    }

    /// The same entry with a burst so large that a store finds no debt of the bucket impossible,
    /// and so corrects none. For refunds and settlements of units that another quota has charged: a
    /// store that corrected the bucket by that quota could give away a day's debt for one unit.
    pub(crate) fn without_correction(self) -> Self {
        let room = Quota::MAX_REFILL_TIME.as_nanos() / 2 / u128::from(self.interval);
        let room = u32::try_from(room).unwrap_or(u32::MAX).max(self.quota.burst());
        Self { quota: self.quota.with_burst(room), ..self }
    }

    /// The same entry for the bucket of another limit of the same quota.
    pub(crate) const fn renamed(self, name: LimitName) -> Self {
        Self { name, ..self }
    }

    /// The same entry for a limit of another quota.
    ///
    /// # Errors
    /// If the cost is more than the burst of the quota.
    pub(crate) fn with_quota(self, quota: Quota) -> Result<Self, ChargeError> {
        let entry = Self::of(Limit::of(self.name, self.scope, quota)).with_cost(self.cost.get())?;
        Ok(Self { binding: self.binding, ..entry })
    }

    /// The name of the limit.
    #[must_use]
    #[inline]
    pub const fn name(&self) -> LimitName {
        self.name
    }

    /// The limit: its name, its scope, and its quota.
    #[must_use]
    #[inline]
    pub const fn limit(&self) -> Limit {
        Limit::of(self.name, self.scope, self.quota)
    }

    /// Which requests the limit counts together.
    #[must_use]
    #[inline]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The quota that the bucket is measured by.
    #[must_use]
    #[inline]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// Whether the limit is of requests in flight.
    #[inline]
    pub(crate) const fn is_concurrent(&self) -> bool {
        self.quota.is_concurrent()
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
        Decision::allowed(self.limit(), debt).of_cost(self.cost)
    }

    /// For stores: the bucket does not hold the cost, and is full again after `debt`. A smaller
    /// debt, with which it would hold the cost, is raised to the smallest with which it does not.
    #[must_use]
    pub const fn limited(&self, debt: Duration) -> Decision {
        Decision::limited_at(self.limit(), self.cost, debt)
    }

    /// For stores: the bucket is blocked. `wait` is the time until a request can be allowed: until
    /// the end of the block, or longer if the bucket does not hold the cost by then. A zero `wait`
    /// is treated as 1 ns.
    #[must_use]
    pub const fn blocked(&self, wait: Duration) -> Decision {
        Decision::blocked_at(self.limit(), self.cost, wait)
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
        Decision::from_nanos(self.limit(), self.rate(), allowed, debt).of_cost(self.cost)
    }

    /// [`blocked`](Self::blocked), from a store that has counted by the rate; `wait` is in
    /// nanoseconds.
    pub(crate) const fn decide_blocked(&self, wait: u64) -> Decision {
        Decision::blocked_by(self.limit(), self.rate(), self.cost, wait)
    }
}

/// Why a [`Charge`] or an [`Entry`] is not valid.
///
/// ```
/// use bolna_rate_limit::store::Entry;
/// use bolna_rate_limit::{Endpoint, Quota};
///
/// let entry = Entry::new(Endpoint::CALL, Quota::per_minute(500).burst(50).build()?);
/// let error = entry.with_cost(60).unwrap_err();
/// let text = "a cost of 60 for limit call: it must be from 1 to the burst, 50";
/// assert!(error.to_string().starts_with(text));
/// # Ok::<(), bolna_rate_limit::values::QuotaError>(())
/// ```
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
        /// The limit that both name.
        limit: LimitName,
    },
    /// The limit of an entry counts each user, and the charge names no user.
    #[non_exhaustive]
    NoUser {
        /// The limit.
        limit: LimitName,
    },
    /// The limit of an entry is of requests in flight, which no store counts.
    #[non_exhaustive]
    Concurrent {
        /// The limit.
        limit: LimitName,
    },
    /// Some entries count addresses and others do not.
    #[non_exhaustive]
    Mixed {
        /// The first limit that differs from that of the first entry.
        limit: LimitName,
    },
    /// The cost is 0, or more than the bucket can hold.
    #[non_exhaustive]
    Cost {
        /// The limit.
        limit: LimitName,
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
            Self::SameBucket { limit } => write!(
                f,
                "a charge names the bucket of limit {limit} twice: add up the costs in one entry"
            ),
            Self::NoUser { limit } => write!(
                f,
                "limit {limit} counts each user, and the charge names no user: make it with \
                 `Charge::with_user`, or leave the limit out"
            ),
            Self::Concurrent { limit } => write!(
                f,
                "limit {limit} is of requests in flight, which the limiter counts and not the \
                 store: leave it out of the charge"
            ),
            Self::Mixed { limit } => write!(
                f,
                "limit {limit}: a charge must not have some limits that count addresses and others \
                 that do not; make two charges of it"
            ),
            Self::Cost { limit, cost, burst } => write!(
                f,
                "a cost of {cost} for limit {limit}: it must be from 1 to the burst, \
                 {burst}, since the bucket never holds more units"
            ),
        }
    }
}

impl Error for ChargeError {}
