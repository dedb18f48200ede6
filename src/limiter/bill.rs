//! What a request is charged: the limits that apply to it, their costs, and which of them are
//! enforced.

use smallvec::SmallVec;

use super::active::Active;
use crate::policy::{Account, Charged, MOST_LIMITS, Policy, Rule};
use crate::store::{Charge, Entry};
use crate::values::{Costs, Endpoint, Enforced, Enforcement, Limit, Principal, Scope};

/// What a request is charged, and which of its limits are enforced.
pub(super) struct Bill {
    /// Limits of requests in flight come last; [`rates`](Self::rates) depends on it.
    pub(super) entries: SmallVec<[Entry; MOST_LIMITS]>,
    pub(super) enforced: Enforced,
    /// The user within the principal. There if an entry counts each user.
    pub(super) user: Option<Principal>,
    /// The shadow limit that can't hold its cost, if there is one. No shadow limit is charged then.
    pub(super) too_costly: Option<TooCostly>,
    /// Whether the path is charged to several endpoints.
    pub(super) of_several: bool,
}

/// The entries of rates. The entries must be sorted as in [`Bill::entries`].
pub(super) fn rates(entries: &[Entry]) -> &[Entry] {
    &entries[..entries.partition_point(|entry| !entry.is_concurrent())]
}

/// A cost that the bucket of a limit can never hold.
#[derive(Clone, Copy)]
pub(super) struct TooCostly {
    pub(super) limit: Limit,
    pub(super) cost: u32,
    /// Whether the limit is enforced on the principal, so that the request is refused.
    pub(super) is_enforced: bool,
}

/// Why a request is not charged.
pub(super) enum Unbillable {
    TooCostly(TooCostly),
    /// The path is charged to more limits than fit into one charge.
    TooAmbiguous,
}

/// What is asked about: a path, or an endpoint by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Path(&'a str),
    Endpoint(Endpoint),
}

impl Target<'_> {
    /// The rules of the policy by which the path or the endpoint is charged. [`Charged::Exempt`]
    /// also if the policy does not have the endpoint.
    #[inline]
    pub(super) fn charged(self, policy: &Policy) -> Charged {
        match self {
            Self::Path(path) => policy.charged(path),
            Self::Endpoint(endpoint) => {
                let index = policy.rules().iter().position(|rule| rule.endpoint() == endpoint);
                index.map_or(Charged::Exempt, Charged::One)
            }
        }
    }

    /// Whether it is a path that the policy exempts, or an endpoint that it does not have.
    pub(super) fn is_exempt(self, policy: &Policy) -> bool {
        match self {
            Self::Path(path) => policy.exempts(path),
            Self::Endpoint(endpoint) => policy.rule_of_endpoint(endpoint).is_none(),
        }
    }
}

/// The rules that one request is charged by. Nearly always it is one. They are several if the path
/// is charged to several endpoints.
pub(super) struct Rules<'a> {
    policy: &'a Policy,
    charged: &'a Charged,
}

impl<'a> Rules<'a> {
    pub(super) const fn new(policy: &'a Policy, charged: &'a Charged) -> Self {
        Self { policy, charged }
    }

    /// The endpoint that names the request. `None` if there is no rule.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.charged.first().map(|index| self.policy.rules()[index].endpoint())
    }

    const fn are_several(&self) -> bool {
        !matches!(self.charged, Charged::Exempt | Charged::One(_))
    }

    /// The rules, that of the endpoint that names the request first.
    fn iter(&self) -> impl Iterator<Item = &'a Rule> + use<'a> {
        let rules = self.policy.rules();
        let all = if matches!(self.charged, Charged::TooMany(_)) { rules } else { &[] };
        self.charged.indices().iter().map(|&index| &rules[index]).chain(all)
    }
}

/// What a request is charged to, and on which principals that is enforced. Each limit is there
/// once.
type Limits<'a> = SmallVec<[(&'a Entry, Enforcement); MOST_LIMITS]>;

/// Adds a limit. It is left out if it is there already, since endpoints can share a limit, and if
/// it counts each user and the account names no user.
///
/// # Errors
/// If a charge has no room for it. The first such limit ends the search, so that a policy of
/// thousands of limits costs no more time.
fn add<'a>(
    (entry, enforcement): (&'a Entry, Enforcement),
    limits: &mut Limits<'a>,
    user: &mut Option<Principal>,
    account: &Account,
) -> Result<(), Unbillable> {
    if entry.scope() == Scope::User && user.is_none() {
        *user = account.user_principal();
        if user.is_none() {
            return Ok(());
        }
    }
    let bucket = |entry: &Entry| (entry.name(), entry.scope());
    if limits.iter().any(|(known, _)| bucket(known) == bucket(entry)) {
        return Ok(());
    }
    if limits.len() == Charge::MAX_ENTRIES {
        return Err(Unbillable::TooAmbiguous);
    }
    limits.push((entry, enforcement));
    Ok(())
}

impl Bill {
    /// The charge of these entries. The bill is of that principal and has an entry.
    pub(super) fn charge<'a>(&'a self, principal: &'a Principal) -> Charge<'a> {
        Charge::of(principal, self.user.as_ref(), &self.entries)
    }

    /// Takes entries off the bill.
    #[cold]
    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let (mut entries, mut enforced) = (SmallVec::new(), Enforced::NONE);
        for (index, entry) in self.entries.iter().enumerate().filter(|it| keep(it.1)) {
            if self.enforced.has(index) {
                enforced.set(entries.len());
            }
            entries.push(*entry);
        }
        (self.entries, self.enforced) = (entries, enforced);
    }

    /// The entries that the store is asked about: those of rates.
    pub(super) fn rates(&self) -> &[Entry] {
        rates(&self.entries)
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
    /// What a request of `account`, which is billed to `principal`, is charged by these rules: by
    /// those of the account's own policy if it has one, and then by the active policy's limits for
    /// everyone too. `enforcement` is that of the layer.
    ///
    /// # Errors
    /// If there are more limits than a charge can have entries, or if the cost is more than the
    /// bucket of an enforced limit can hold, or than that of the only limits that there are.
    pub(super) fn bill(
        &self,
        account: &Account,
        principal: &Principal,
        rules: &Rules<'_>,
        target: Target<'_>,
        costs: Option<&Costs>,
        enforcement: Enforcement,
    ) -> Result<Bill, Unbillable> {
        let charged;
        let (mut limits, mut user) = (Limits::new(), None);
        let mut add = |limit| add(limit, &mut limits, &mut user, account);
        let is_everyones = |entry: &Entry| entry.scope() == Scope::Everyone;
        let has_own = account.policy().is_some();
        let mut own = rules.iter().flat_map(Rule::limits);
        let mut of_several = rules.are_several();
        if has_own {
            own.filter(|(entry, _)| !is_everyones(entry)).try_for_each(&mut add)?;
            if self.policy.has_everyones() {
                charged = target.charged(&self.policy);
                let rules = Rules::new(&self.policy, &charged);
                of_several |= rules.are_several();
                let all = rules.iter().flat_map(Rule::limits);
                all.filter(|(entry, _)| is_everyones(entry)).try_for_each(add)?;
            }
        } else {
            own.try_for_each(add)?;
        }

        if limits.iter().any(|(entry, _)| entry.is_concurrent()) {
            limits.sort_by_key(|(entry, _)| entry.is_concurrent());
        }
        let enforcement = enforcement.and(self.enforcement);
        let (mut entries, mut enforced) = (SmallVec::new(), Enforced::NONE);
        let mut too_costly = None;
        for (entry, its) in limits {
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
                        return Err(Unbillable::TooCostly(error));
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
                return Err(Unbillable::TooCostly(error));
            }
            let (entries, enforced) = (kept, Enforced::ALL);
            return Ok(Bill { entries, enforced, user, too_costly, of_several });
        }
        let mut bill = Bill { entries, enforced, user, too_costly, of_several };
        bill.mark_shadow();
        Ok(bill)
    }
}
