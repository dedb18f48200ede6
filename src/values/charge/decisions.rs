//! What becomes of a charge.

use super::super::decision::Decision;
use super::super::limit::LimitName;
use super::Entry;

/// What became of a [`Charge`](super::Charge).
///
/// ```
/// use bolna_rate_limit::store::{Charge, ChargeOutcome, Entry, MemoryStore, Store};
/// use bolna_rate_limit::values::LimitName;
/// use bolna_rate_limit::{Endpoint, Principal, Quota};
///
/// // The limit of a minute binds, and that of a day is only tried.
/// let minute = Entry::new(Endpoint::CALL, Quota::per_minute(500).build()?);
/// let day = Entry::new(LimitName::new("call-day")?, Quota::per_day(1).build()?).shadow();
/// let (entries, caller) = ([minute, day], Principal::user("u-17").expect("not empty"));
///
/// let store = MemoryStore::new();
/// let check = || store.check(Charge::new(&caller, &entries).expect("two buckets")).now();
/// let first = check().expect("the answer is there")?;
/// assert_eq!(first.outcome(), ChargeOutcome::AdmittedWithShadow);
/// let second = check().expect("the answer is there")?;
/// assert_eq!(second.outcome(), ChargeOutcome::Admitted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "all or nothing leaves three cases")]
pub enum ChargeOutcome {
    /// A binding bucket does not hold its cost or is blocked. No bucket was charged.
    Refused,
    /// The binding buckets were charged. The shadow buckets, if there are any, were not, since one
    /// of them does not hold its cost or is blocked.
    Admitted,
    /// All buckets were charged. The charge has at least one shadow entry.
    AdmittedWithShadow,
}

impl ChargeOutcome {
    /// All or nothing: what follows from whether all binding buckets hold their costs, and all
    /// shadow buckets, if there are any.
    #[inline]
    pub(crate) const fn of(binding_hold: bool, shadow_hold: bool, has_shadow: bool) -> Self {
        match (binding_hold, shadow_hold) {
            (false, _) => Self::Refused,
            (true, true) if has_shadow => Self::AdmittedWithShadow,
            (true, _) => Self::Admitted,
        }
    }

    /// Whether the request is admitted as far as the binding limits go.
    #[must_use]
    #[inline]
    pub const fn is_admitted(self) -> bool {
        !matches!(self, Self::Refused)
    }

    /// Whether the bucket of an entry was charged, which is binding or not.
    #[inline]
    pub(crate) const fn charges(self, is_binding: bool) -> bool {
        match self {
            Self::Refused => false,
            Self::Admitted => is_binding,
            Self::AdmittedWithShadow => true,
        }
    }
}

/// What a store has decided about a [`Charge`](super::Charge): the outcome, and what each limit
/// says, in the order of the entries.
///
/// A [decision](Decision) is [allowed](Decision::is_allowed) if its bucket holds the cost, even if
/// the charge as a whole is refused. Its numbers are those after the charge if the bucket was
/// charged, and otherwise those of the unchanged bucket. In the reply to a peek nothing was
/// charged, and the outcome is the one that a check would have had.
///
/// The [example of `Charge`](super::Charge) reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    outcome: ChargeOutcome,
    list: List,
}

/// Never empty. A single decision, which is the common case, needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    One([Decision; 1]),
    More(Box<[Decision]>),
}

impl Decisions {
    /// For stores: the decisions about a charge, one for each entry, in the order of the entries.
    ///
    /// # Panics
    /// If there is no decision.
    #[must_use]
    pub fn new(outcome: ChargeOutcome, decisions: impl IntoIterator<Item = Decision>) -> Self {
        let mut decisions = decisions.into_iter();
        let first = decisions.next().expect("a charge has at least one entry, and so one decision");
        let list = match decisions.next() {
            None => List::One([first]),
            Some(second) => List::More([first, second].into_iter().chain(decisions).collect()),
        };
        Self { outcome, list }
    }

    /// For stores: the decision about a charge of one binding bucket.
    #[must_use]
    #[inline]
    pub fn of_one(decision: Decision) -> Self {
        let allowed = decision.is_allowed();
        let outcome = if allowed { ChargeOutcome::Admitted } else { ChargeOutcome::Refused };
        Self { outcome, list: List::One([decision]) }
    }

    /// The decision about a charge of one shadow bucket.
    pub(crate) fn of_one_shadow(decision: Decision) -> Self {
        let allowed = decision.is_allowed();
        let outcome =
            if allowed { ChargeOutcome::AdmittedWithShadow } else { ChargeOutcome::Admitted };
        Self { outcome, list: List::One([decision]) }
    }

    /// Whether the outcome of a charge of one binding bucket is that of the decision.
    #[inline]
    pub(crate) fn agrees(&self) -> bool {
        matches!(&self.list, List::One([one]) if one.is_allowed() == self.outcome.is_admitted())
    }

    /// Whether the decisions are about the entries, and the outcome is the one that follows from
    /// them.
    pub(crate) fn agrees_with(&self, entries: &[Entry]) -> bool {
        let decisions = self.as_slice();
        let hold = |binding| {
            let of = entries.iter().zip(decisions).filter(|it| it.0.is_binding() == binding);
            of.fold(true, |hold, (_, decision)| hold & decision.is_allowed())
        };
        let has_shadow = entries.iter().any(|entry| !entry.is_binding());
        let outcome = ChargeOutcome::of(hold(true), hold(false), has_shadow);
        entries.len() == decisions.len() && outcome == self.outcome
    }

    pub(crate) fn into_slice(self) -> Box<[Decision]> {
        match self.list {
            List::One(one) => Box::new(one),
            List::More(more) => more,
        }
    }

    /// Whether every limit allows the request.
    #[must_use]
    #[inline]
    pub fn all_allow(&self) -> bool {
        self.as_slice().iter().all(Decision::is_allowed)
    }

    /// The same decisions under other names of the limits.
    pub(crate) fn renamed(mut self, name: impl Fn(LimitName) -> LimitName) -> Self {
        let list: &mut [Decision] = match &mut self.list {
            List::One(one) => one,
            List::More(more) => more,
        };
        for decision in list {
            *decision = decision.renamed(name(decision.name()));
        }
        self
    }

    /// What became of the charge.
    #[must_use]
    #[inline]
    pub const fn outcome(&self) -> ChargeOutcome {
        self.outcome
    }

    /// The decision about the first entry.
    #[must_use]
    #[inline]
    pub fn first(&self) -> &Decision {
        &self.as_slice()[0]
    }

    /// The decisions, one for each entry, in the order of the entries.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[Decision] {
        match &self.list {
            List::One(one) => one,
            List::More(more) => more,
        }
    }
}
