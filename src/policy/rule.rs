//! Rules: what a policy says about one endpoint.

use smallvec::SmallVec;

use crate::values::{
    ChargeError, Endpoint, Enforcement, Entry, LimitName, NameError, Quota, Scope,
};

/// What a policy says about one endpoint: what a request is charged, and which of the limits are
/// enforced on which principals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    endpoint: Endpoint,
    /// What a request is charged: an entry for each limit, the endpoint's own first.
    entries: SmallVec<[Entry; 1]>,
    /// On which principals the policy enforces each limit. The limiter or a layer may enforce less.
    enforcement: SmallVec<[Enforcement; MOST_LIMITS]>,
}

/// The most limits of a rule.
pub(crate) const MOST_LIMITS: usize = 4;

impl Rule {
    /// A rule of these limits, of which there is at least one.
    pub(super) fn new(endpoint: Endpoint, limits: &[(Entry, Enforcement)]) -> Self {
        Self {
            endpoint,
            entries: limits.iter().map(|(entry, _)| *entry).collect(),
            enforcement: limits.iter().map(|(_, enforcement)| *enforcement).collect(),
        }
    }

    /// The same rule with other names of the limits.
    pub(crate) fn renamed(
        &self,
        name: impl Fn(LimitName) -> Result<LimitName, NameError>,
    ) -> Result<Self, NameError> {
        let renamed = |entry: &Entry| Ok(entry.renamed(name(entry.name())?));
        let entries = self.entries.iter().map(renamed).collect::<Result<_, _>>()?;
        Ok(Self { entries, ..self.clone() })
    }

    /// The same rule with another quota of the limit of that name, if it has one.
    ///
    /// # Errors
    /// If a request costs more than the burst of the quota.
    pub(super) fn with_quota(&self, name: LimitName, quota: Quota) -> Result<Self, ChargeError> {
        let changed = |entry: &Entry| {
            if entry.name() == name { entry.with_quota(quota) } else { Ok(*entry) }
        };
        let entries = self.entries.iter().map(changed).collect::<Result<_, _>>()?;
        Ok(Self { entries, ..self.clone() })
    }

    #[inline]
    pub(crate) const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The endpoint's own limit.
    #[inline]
    pub(crate) fn own(&self) -> &Entry {
        &self.entries[0]
    }

    /// The quota of the endpoint's own limit.
    pub(crate) fn quota(&self) -> Quota {
        self.own().quota()
    }

    /// On which principals the endpoint's own limit is enforced.
    #[inline]
    pub(crate) fn enforcement(&self) -> Enforcement {
        self.enforcement[0]
    }

    /// The only limit, if there is one.
    #[inline]
    pub(crate) fn only(&self) -> Option<&Entry> {
        match &self.entries[..] {
            [entry] => Some(entry),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The limits, and on which principals each of them is enforced.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&Entry, Enforcement)> {
        self.entries.iter().zip(self.enforcement.iter().copied())
    }

    /// The limits that are a single account's, and not everyone's.
    pub(crate) fn of_accounts(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.scope() != Scope::Everyone)
    }

    pub(crate) fn limit(&self, name: LimitName) -> Option<(&Entry, Enforcement)> {
        self.limits().find(|(entry, _)| entry.name() == name)
    }
}
