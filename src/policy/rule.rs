//! Rules: what a policy says about one endpoint.

use crate::values::{Endpoint, Enforcement, Quota, Rate};

/// What a policy says about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) endpoint: Endpoint,
    pub(crate) quota: Quota,
    /// The rate by which a store counts the quota.
    pub(crate) rate: Rate,
    /// On which principals the policy enforces the quota. The limiter or a layer may enforce less.
    pub(crate) enforcement: Enforcement,
}

impl Rule {
    pub(super) const fn new(endpoint: Endpoint, quota: Quota, enforcement: Enforcement) -> Self {
        Self { endpoint, quota, rate: quota.rate(), enforcement }
    }
}
