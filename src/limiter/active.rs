//! What is active: read once for each request, and replaced as a whole.

use std::sync::Arc;

use super::candidate::Candidate;
use crate::observe::Observers;
use crate::policy::Policy;
use crate::values::Enforcement;

/// The policy and the settings that decide. A request is decided by one of these, never by a
/// mixture of two.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) policy: Policy,
    /// On which principals anything is enforced, by whatever policy.
    pub(super) enforcement: Enforcement,
    pub(super) candidate: Option<Arc<Candidate>>,
    pub(super) observers: Option<Observers>,
}

impl Active {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, enforcement: Enforcement::FULL, candidate: None, observers: None }
    }

    /// A changed copy.
    pub(super) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// Whether there is nothing to do for a request but to decide about it.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.enforcement == Enforcement::FULL
            && self.candidate.is_none()
            && self.observers.is_none()
    }
}
