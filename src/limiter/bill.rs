//! What a request is charged: the limits that apply to it, their costs, and which of them are
//! enforced.

use smallvec::SmallVec;

use super::active::Active;
use crate::policy::{Account, MOST_LIMITS, Policy, Rule};
use crate::store::{Charge, Entry};
use crate::values::{Costs, Endpoint, Enforced, Enforcement, Limit, Principal, Scope};

/// What a request is charged, and which of its limits are enforced.
pub(super) struct Bill {
    pub(super) entries: SmallVec<[Entry; MOST_LIMITS]>,
    pub(super) enforced: Enforced,
    /// The user within the principal. There if an entry counts each user.
    pub(super) user: Option<Principal>,
    /// The shadow limit that can't hold its cost, if there is one. No shadow limit is charged then.
    pub(super) too_costly: Option<TooCostly>,
}

/// A cost that the bucket of a limit can never hold.
#[derive(Clone, Copy)]
pub(super) struct TooCostly {
    pub(super) limit: Limit,
    pub(super) cost: u32,
    /// Whether the limit is enforced on the principal, so that the request is refused.
    pub(super) is_enforced: bool,
}

/// What is asked about: a path, or an endpoint by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Path(&'a str),
    Endpoint(Endpoint),
}

impl Target<'_> {
    /// The rule by that policy. `None` if the path is exempt, or if the policy does not have the
    /// endpoint.
    #[inline]
    pub(super) fn rule(self, policy: &Policy) -> Option<&Rule> {
        match self {
            Self::Path(path) => policy.rule_of(path),
            Self::Endpoint(endpoint) => policy.rule_of_endpoint(endpoint),
        }
    }

    /// Whether it is a path that the policy exempts, or an endpoint that it does not have.
    pub(super) fn is_exempt(self, policy: &Policy) -> bool {
        match self {
            Self::Path(path) => policy.exempts(path),
            Self::Endpoint(endpoint) => policy.rule_of_endpoint(endpoint).is_none(),
        }
    }

    /// The index of that rule among the policy's.
    pub(super) fn index(self, policy: &Policy) -> Option<usize> {
        match self {
            Self::Path(path) => policy.index_of(path),
            Self::Endpoint(endpoint) => {
                policy.rules().iter().position(|rule| rule.endpoint() == endpoint)
            }
        }
    }
}

impl Bill {
    /// The charge of these entries. The bill is of that principal and has an entry.
    pub(super) fn charge<'a>(&'a self, principal: &'a Principal) -> Charge<'a> {
        Charge::of(principal, self.user.as_ref(), &self.entries)
    }

    /// If some limits are enforced and others are not, turns the others into shadow entries. If
    /// none is enforced, all stay binding: the request is admitted anyway.
    fn mark_shadow(&mut self) {
        let is_mixed = (0..self.entries.len()).any(|index| self.enforced.has(index))
            && (0..self.entries.len()).any(|index| !self.enforced.has(index));
        if is_mixed {
            for (index, entry) in self.entries.iter_mut().enumerate() {
                if !self.enforced.has(index) {
                    *entry = entry.shadow();
                }
            }
        }
    }
}

impl Active {
    /// What a request of `account`, which is billed to `principal`, is charged by a rule: by that
    /// of the account's own policy if it `has_own`, and then by the active policy's limits for
    /// everyone too. `enforcement` is that of the layer.
    ///
    /// # Errors
    /// If the cost is more than the bucket of an enforced limit can hold, or than that of the only
    /// limits that there are.
    pub(super) fn bill(
        &self,
        account: &Account,
        principal: &Principal,
        rule: &Rule,
        target: Target<'_>,
        costs: Option<&Costs>,
        enforcement: Enforcement,
    ) -> Result<Bill, TooCostly> {
        let has_own = account.policy().is_some();
        let everyones = has_own.then(|| target.rule(&self.policy)).flatten();
        let is_everyones = |entry: &Entry| entry.scope() == Scope::Everyone;
        let limits = rule.limits().filter(|(entry, _)| !has_own || !is_everyones(entry));
        let everyones = everyones.into_iter().flat_map(Rule::limits);
        let limits = limits.chain(everyones.filter(|(entry, _)| is_everyones(entry)));

        let enforcement = enforcement.and(self.enforcement);
        let mut user = None;
        let (mut entries, mut enforced) = (SmallVec::new(), Enforced::NONE);
        let mut too_costly = None;
        for (entry, its) in limits {
            if entry.scope() == Scope::User {
                user = user.or_else(|| account.user_principal());
                if user.is_none() {
                    continue;
                }
            }
            let is_enforced = enforcement.and(its).applies_to(principal);
            let cost = costs.map_or(entry.cost(), |costs| costs.units(entry));
            match entry.with_cost(cost) {
                Ok(entry) => {
                    if is_enforced {
                        enforced.set(entries.len());
                    }
                    entries.push(entry);
                }
                Err(_) => {
                    let error = TooCostly { limit: entry.limit(), cost, is_enforced };
                    if is_enforced {
                        return Err(error);
                    }
                    too_costly = Some(error);
                }
            }
        }
        if let Some(error) = too_costly {
            // A shadow limit that can't hold its cost: none of the shadow limits is charged.
            let kept: SmallVec<[Entry; MOST_LIMITS]> = entries
                .iter()
                .enumerate()
                .filter(|it| enforced.has(it.0))
                .map(|it| *it.1)
                .collect();
            if kept.is_empty() {
                return Err(error);
            }
            return Ok(Bill { entries: kept, enforced: Enforced::ALL, user, too_costly });
        }
        let mut bill = Bill { entries, enforced, user, too_costly };
        bill.mark_shadow();
        Ok(bill)
    }
}
