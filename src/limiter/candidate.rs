//! The candidate: a policy that is evaluated beside the active one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::{Policy, PolicyError, Rule};
use crate::store::{Answer, Charge, Entry, Store};
use crate::values::{Decision, Endpoint, Principal, Quota};

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
    /// The candidate's quota for the endpoint.
    pub quota: Quota,
    /// The number of requests that both policies allow.
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
    /// What a request is charged. Its endpoint is the one under which the store keeps the
    /// candidate's buckets.
    entry: Entry,
    /// The number of requests that both policies allow, that only the active one does, that only
    /// the candidate does, and that neither does.
    counts: [AtomicU64; 4],
}

impl Candidate {
    pub(super) fn new(policy: Policy) -> Result<Self, PolicyError> {
        let trial = |rule: &Rule| match rule.endpoint().for_candidate() {
            Ok(name) => {
                let entry = Entry::counted_by(name, rule.quota(), rule.entry.rate());
                Ok(Trial { entry, counts: <[_; 4]>::default() })
            }
            Err(reason) => Err(PolicyError::Name { reason }),
        };
        let trials = policy.rules().iter().map(trial).collect::<Result<_, _>>()?;
        Ok(Self { policy, trials })
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Charges the candidate's bucket for a request. `None` if the candidate exempts the path.
    pub(super) fn check<St: Store>(
        &self,
        store: &St,
        principal: &Principal,
        path: &str,
    ) -> Option<Answer<St::Check>> {
        let index = self.policy.index_of(path)?;
        Some(store.check(Charge::of_one(principal, &self.trials[index].entry)))
    }

    /// Counts the candidate's decision, and returns it under the endpoint's own name. `None` if the
    /// request is blocked, since a block holds under any policy.
    pub(super) fn count(&self, decision: Decision, active: Option<&Decision>) -> Option<Decision> {
        if active.is_some_and(Decision::is_blocked) {
            return None;
        }
        let index =
            self.trials.iter().position(|trial| trial.entry.endpoint() == decision.endpoint())?;
        if let Some(active) = active {
            let case = usize::from(!decision.is_allowed()) + 2 * usize::from(!active.is_allowed());
            self.trials[index].counts[case].fetch_add(1, Ordering::Relaxed);
        }
        Some(decision.of_endpoint(self.policy.rules()[index].endpoint()))
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
