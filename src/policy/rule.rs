//! What a policy says about one endpoint.

use crate::values::{Endpoint, Enforcement, Quota, Rate};

/// What a policy says about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) endpoint: Endpoint,
    pub(crate) quota: Quota,
    /// What a store counts the quota by.
    pub(crate) rate: Rate,
    /// On which principals, as far as the policy is concerned.
    pub(crate) enforcement: Enforcement,
}

impl Rule {
    pub(super) const fn new(endpoint: Endpoint, quota: Quota, enforcement: Enforcement) -> Self {
        Self { endpoint, quota, rate: quota.rate(), enforcement }
    }
}
