//! The candidate: a policy that is evaluated beside the active one.

use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::decide::{Asked, Request};
use crate::policy::{Account, Policy, PolicyError, Rule};
use crate::store::{Answer, Charge, Decisions, Entry, Store};
use crate::values::{Decision, Endpoint, LimitName, Quota, Scope};

/// How a [candidate](crate::Limiter::set_candidate) has decided about the requests to one of its
/// endpoints, compared with the active policy.
///
/// Even a stricter candidate allows some requests that the active policy limits: if a caller sends
/// more than both limits, each policy allows a request whenever a unit has come back, and their
/// units come back at different moments. So the number of requests that the candidate would refuse
/// in addition is [`newly_limited`](Self::newly_limited) minus
/// [`newly_allowed`](Self::newly_allowed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CandidateReport {
    /// The endpoint of the candidate.
    pub endpoint: Endpoint,
    /// The quota of the endpoint's own limit in the candidate.
    pub quota: Quota,
    /// The number of requests that both policies allow: all limits of both.
    pub allowed: u64,
    /// The number of requests that both policies limit.
    pub limited: u64,
    /// The number of requests that the candidate limits and the active policy allows.
    pub newly_limited: u64,
    /// The number of requests that the candidate allows and the active policy limits.
    pub newly_allowed: u64,
}

pub(super) struct Candidate {
    policy: Policy,
    /// One for each rule of the policy.
    trials: Vec<Trial>,
}

struct Trial {
    /// The rule under the names by which the store keeps the candidate's buckets.
    rule: Rule,
    /// The number of requests that both policies allow, that only the active one does, that only
    /// the candidate does, and that neither does.
    counts: [AtomicU64; 4],
}

impl Candidate {
    pub(super) fn new(policy: Policy) -> Result<Self, PolicyError> {
        let trial = |rule: &Rule| match rule.renamed(LimitName::for_candidate) {
            Ok(rule) => Ok(Trial { rule, counts: <[_; 4]>::default() }),
            Err(reason) => Err(PolicyError::Name { reason }),
        };
        let trials = policy.rules().iter().map(trial).collect::<Result<_, _>>()?;
        Ok(Self { policy, trials })
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Charges the candidate's buckets for a request, by the same costs. `None` if the candidate
    /// exempts the path.
    pub(super) fn check<St: Store>(
        &self,
        store: &St,
        account: &Account,
        request: &Request<'_>,
        asked: &Asked<'_>,
    ) -> Option<Answer<St::Check>> {
        let index = asked.target.index(&self.policy)?;
        let principal = request.charge.principal();
        let rule = &self.trials[index].rule;
        if let (Some(entry), None) = (rule.only(), asked.costs) {
            return Some(store.check(Charge::of_one(principal, entry)));
        }
        let user = request.charge.user().cloned().or_else(|| account.user_principal());
        let own = &self.policy.rules()[index];
        let applies = |entry: &&Entry| entry.scope() != Scope::User || user.is_some();
        let charged = |(entry, own): (&Entry, &Entry)| {
            let cost = asked.costs.map_or(own.cost(), |costs| costs.units(own));
            // A cost above the burst is not valid. A request of the whole burst is nearly always
            // limited, as one that costs more would be.
            entry.with_cost(cost.min(entry.quota().burst())).unwrap_or(*entry)
        };
        let entries = rule.entries().iter().zip(own.entries());
        let entries: SmallVec<[Entry; 4]> =
            entries.filter(|(entry, _)| applies(entry)).map(charged).collect();
        Some(store.check(Charge::of(principal, user.as_ref(), &entries)))
    }

    /// Counts the candidate's decisions, and returns them under the limits' own names. `None` if
    /// the request is blocked, since a block holds under any policy.
    pub(super) fn count(
        &self,
        decisions: Decisions,
        active: Option<&Decisions>,
    ) -> Option<Decisions> {
        if active.is_some_and(|active| active.as_slice().iter().any(Decision::is_blocked)) {
            return None;
        }
        // A store that contradicts itself must not spoil the comparison.
        if decisions.outcome().is_admitted() != decisions.all_allow() {
            return None;
        }
        let name = decisions.first().name();
        let index = self.trials.iter().position(|trial| trial.rule.own().name() == name)?;
        let trial = &self.trials[index];
        if let Some(active) = active {
            let case = usize::from(!decisions.all_allow()) + 2 * usize::from(!active.all_allow());
            trial.counts[case].fetch_add(1, Ordering::Relaxed);
        }
        let names = trial.rule.entries().iter().zip(self.policy.rules()[index].entries());
        Some(decisions.renamed(|name| {
            let known = names.clone().find(|(trial, _)| trial.name() == name);
            known.map_or(name, |(_, own)| own.name())
        }))
    }

    pub(super) fn report(&self) -> Vec<CandidateReport> {
        let report = |(rule, trial): (&Rule, &Trial)| {
            let [allowed, newly_limited, newly_allowed, limited] =
                [0, 1, 2, 3].map(|case: usize| trial.counts[case].load(Ordering::Relaxed));
            let (endpoint, quota) = (rule.endpoint(), rule.quota());
            CandidateReport { endpoint, quota, allowed, limited, newly_limited, newly_allowed }
        };
        self.policy.rules().iter().zip(&self.trials).map(report).collect()
    }
}
