//! A policy that is evaluated beside the one in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::policy::{Class, Policy, PolicyError, Table};
use crate::principal::Principal;
use crate::quota::Quota;
use crate::store::{Answer, Bucket, Store};

/// How a [candidate](crate::Limiter::set_candidate) has judged one of its endpoints' requests,
/// beside the policy in force.
///
/// A caller who hammers gets each unit that comes back, by the one policy and by the other, but
/// they come at different moments: so a stricter candidate too admits requests that the policy in
/// force refuses. How many more would be refused is [`newly_limited`](Self::newly_limited) less
/// [`newly_allowed`](Self::newly_allowed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

pub(crate) struct Candidate {
    policy: Arc<Table>,
    /// One for each endpoint of the policy.
    trials: Vec<Trial>,
}

struct Trial {
    /// What its buckets are kept under, beside those that count.
    beside: Endpoint,
    /// How often both admit, only the policy in force does, only the candidate does, and neither
    /// does.
    counts: [AtomicU64; 4],
}

impl Candidate {
    pub(super) fn new(policy: Arc<Table>) -> Result<Self, PolicyError> {
        let trial = |class: &Class| {
            let beside = class.endpoint.beside();
            let beside = beside
                .ok_or_else(|| PolicyError::Name { name: class.endpoint.name().to_owned() })?;
            Ok(Trial { beside, counts: <[_; 4]>::default() })
        };
        let trials = policy.classes().iter().map(trial).collect::<Result<_, _>>()?;
        Ok(Self { policy, trials })
    }

    pub(super) fn policy(&self) -> Policy {
        Policy::from_table(Arc::clone(&self.policy))
    }

    /// Asks for a request by the candidate's rules. `None` if it would exempt the path.
    pub(super) fn ask<St: Store>(
        &self,
        store: &St,
        principal: &Principal,
        path: &str,
    ) -> Option<Answer<St::Check>> {
        let index = self.policy.class_index_of(path)?;
        let (endpoint, quota) = (self.trials[index].beside, self.policy.class(index).quota);
        Some(store.check(Bucket { principal, endpoint, quota }))
    }

    /// Counts what came of it, and gives the decision its endpoint's own name. Nothing comes of a
    /// request that is blocked, which would be so under the candidate too.
    pub(super) fn conclude(
        &self,
        decision: Decision,
        enforced: Option<Decision>,
    ) -> Option<Decision> {
        if enforced.is_some_and(|enforced| enforced.is_blocked()) {
            return None;
        }
        let index = self.trials.iter().position(|trial| trial.beside == decision.endpoint())?;
        if let Some(enforced) = enforced {
            let case =
                usize::from(!decision.is_allowed()) + 2 * usize::from(!enforced.is_allowed());
            self.trials[index].counts[case].fetch_add(1, Ordering::Relaxed);
        }
        Some(decision.of_endpoint(self.policy.class(index).endpoint))
    }

    pub(super) fn report(&self) -> Vec<CandidateReport> {
        let report = |(class, trial): (&Class, &Trial)| {
            let [allowed, newly_limited, newly_allowed, limited] =
                [0, 1, 2, 3].map(|case: usize| trial.counts[case].load(Ordering::Relaxed));
            let (endpoint, quota) = (class.endpoint, class.quota);
            CandidateReport { endpoint, quota, allowed, limited, newly_limited, newly_allowed }
        };
        self.policy.classes().iter().zip(&self.trials).map(report).collect()
    }
}
