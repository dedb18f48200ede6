//! A policy that is evaluated beside the active one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::{Policy, PolicyError, Rule};
use crate::store::{Answer, Bucket, Store};
use crate::values::{Decision, Endpoint, Principal, Quota};

/// How a [candidate](crate::Limiter::set_candidate) has decided about requests to one of its
/// endpoints, beside the active policy.
///
/// A caller that sends more than its limit gets each unit that comes back, by the one policy and by
/// the other, but the units come back at different moments. So a stricter candidate, too, admits
/// requests that the active policy refuses. How many more would be refused is
/// [`newly_limited`](Self::newly_limited) less [`newly_allowed`](Self::newly_allowed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CandidateReport {
    /// The endpoint, in the candidate.
    pub endpoint: Endpoint,
    /// The quota that the candidate has for it.
    pub quota: Quota,
    /// Requests that both admit.
    pub allowed: u64,
    /// Requests that both refuse.
    pub limited: u64,
    /// Requests that only the candidate would have refused.
    pub newly_limited: u64,
    /// Requests that only the candidate would have admitted.
    pub newly_allowed: u64,
}

pub(super) struct Candidate {
    policy: Policy,
    /// One for each rule of the policy.
    trials: Vec<Trial>,
}

struct Trial {
    /// The name under which the store keeps its buckets.
    name: Endpoint,
    /// How often both admit, only the active policy does, only the candidate does, and neither
    /// does.
    counts: [AtomicU64; 4],
}

impl Candidate {
    pub(super) fn new(policy: Policy) -> Result<Self, PolicyError> {
        let trial = |rule: &Rule| match rule.endpoint.for_candidate() {
            Ok(name) => Ok(Trial { name, counts: <[_; 4]>::default() }),
            Err(reason) => Err(PolicyError::Name { reason }),
        };
        let trials = policy.rules().iter().map(trial).collect::<Result<_, _>>()?;
        Ok(Self { policy, trials })
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks the store by the candidate's rules. `None` if the candidate exempts the path.
    pub(super) fn check<St: Store>(
        &self,
        store: &St,
        principal: &Principal,
        path: &str,
    ) -> Option<Answer<St::Check>> {
        let index = self.policy.index_of(path)?;
        let Rule { quota, rate, .. } = self.policy.rules()[index];
        Some(store.check(Bucket::with_rate(principal, self.trials[index].name, quota, rate)))
    }

    /// Counts what came of it, and gives the decision its endpoint's own name. Nothing comes of a
    /// request that is blocked, since a block holds under any policy.
    pub(super) fn count(&self, decision: Decision, active: Option<&Decision>) -> Option<Decision> {
        if active.is_some_and(Decision::is_blocked) {
            return None;
        }
        let index = self.trials.iter().position(|trial| trial.name == decision.endpoint())?;
        if let Some(active) = active {
            let case = usize::from(!decision.is_allowed()) + 2 * usize::from(!active.is_allowed());
            self.trials[index].counts[case].fetch_add(1, Ordering::Relaxed);
        }
        Some(decision.of_endpoint(self.policy.rules()[index].endpoint))
    }

    pub(super) fn report(&self) -> Vec<CandidateReport> {
        let report = |(rule, trial): (&Rule, &Trial)| {
            let [allowed, newly_limited, newly_allowed, limited] =
                [0, 1, 2, 3].map(|case: usize| trial.counts[case].load(Ordering::Relaxed));
            let (endpoint, quota) = (rule.endpoint, rule.quota);
            CandidateReport { endpoint, quota, allowed, limited, newly_limited, newly_allowed }
        };
        self.policy.rules().iter().zip(&self.trials).map(report).collect()
    }
}
