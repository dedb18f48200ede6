//! The active policy and settings, which are read once for each request and replaced as a whole.

use std::sync::Arc;

use super::candidate::Candidate;
use crate::observe::Observers;
use crate::policy::Policy;
use crate::values::Enforcement;

/// The policy and the settings that decide now. A request is decided by one value of this type,
/// never by a mixture of two.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) policy: Policy,
    /// On which principals limits are enforced, whatever the policy.
    pub(super) enforcement: Enforcement,
    pub(super) candidate: Option<Arc<Candidate>>,
    pub(super) observers: Option<Observers>,
}

impl Active {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            enforcement: Enforcement::FULL,
            candidate: None,
            observers: Observers::at_start(),
        }
    }

    /// A changed copy.
    pub(super) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// Whether a request only has to be decided about: full enforcement, no candidate, no
    /// observers.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.enforcement == Enforcement::FULL
            && self.candidate.is_none()
            && self.observers.is_none()
    }
}
