//! Building a policy.

use super::error::{PathList, PolicyError};
use super::path::{Billing, PathTable};
use super::{Policy, Rule};
use crate::values::{Endpoint, Enforcement, Quota, QuotaBuilder};

/// Collects endpoints, quotas and paths; [`build`](Self::build) checks all of them.
///
/// # Paths
/// A template is a path as it is after decoding, segment by segment: a literal, `{name}` for any
/// one non-empty segment, or `{*name}` for the rest of the path, as in axum. A literal beats a
/// parameter, whatever the order, and the whole path must match. The order of the endpoints matters
/// for paths that are [spelled oddly](crate#paths-that-are-spelled-to-escape) only: such a path is
/// billed to the first endpoint that a server might route it to, so declare first what is most in
/// need of protection.
#[derive(Clone, Debug)]
#[must_use = "a policy builder does nothing until it is built"]
pub struct PolicyBuilder {
    endpoints: Vec<Draft>,
    default: Draft,
    exempt: Vec<String>,
    enforcement: Enforcement,
    /// Names that were to be changed and are not there.
    unknown: Vec<String>,
}

/// An endpoint as it was asked for, not yet checked.
#[derive(Clone, Debug)]
struct Draft {
    name: String,
    quota: QuotaBuilder,
    enforcement: Enforcement,
    paths: Vec<String>,
}

impl PolicyBuilder {
    pub(super) fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            default: Draft::new(Endpoint::DEFAULT.name(), Quota::per_minute(1000), Vec::new()),
            exempt: Vec::new(),
            enforcement: Enforcement::FULL,
            unknown: Vec::new(),
        }
    }

    pub(super) fn bolna() -> Self {
        Self::new()
            .endpoint("executions", Quota::per_minute(500), ["/v2/agent/{agent_id}/executions"])
            .endpoint("agent", Quota::per_minute(500), ["/v2/agent/{agent_id}"])
            .endpoint("call", Quota::per_minute(500), ["/call"])
            // The list endpoint: documented under "all other endpoints", not an agent whose id is
            // "all".
            .default_paths(["/v2/agent/all"])
    }

    /// Adds an endpoint with its quota and the path templates that draw on it.
    pub fn endpoint<P: Into<String>>(
        mut self,
        name: impl Into<String>,
        quota: impl Into<QuotaBuilder>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        self.endpoints.push(Draft::new(name, quota.into(), paths));
        self
    }

    /// Replaces the quota of an endpoint that is already there, `default` included.
    pub fn quota(self, name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        let quota = quota.into();
        self.change(name.into(), |endpoint| endpoint.quota = quota)
    }

    /// Replaces the path templates of an endpoint that is already there, `default` included.
    pub fn paths<P: Into<String>>(
        self,
        name: impl Into<String>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        self.change(name.into(), |endpoint| endpoint.paths = paths)
    }

    /// On which principals the quota of an endpoint is enforced, `default` included. On all unless
    /// it is set.
    ///
    /// With [`Enforcement::SHADOW`] no request is refused there, and what would have been refused
    /// is reported to [observers](crate::Limiter::observe).
    pub fn enforce(self, name: impl Into<String>, enforcement: Enforcement) -> Self {
        self.change(name.into(), |endpoint| endpoint.enforcement = enforcement)
    }

    /// On which principals any quota of the policy is enforced. Where an endpoint has a setting of
    /// its own, the lesser of both counts.
    ///
    /// It concerns this policy only. [`Limiter::set_enforcement`](crate::Limiter::set_enforcement)
    /// concerns the policies of accounts too.
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// The quota of every path that no endpoint claims. 1000 requests a minute unless it is set.
    pub fn default_quota(mut self, quota: impl Into<QuotaBuilder>) -> Self {
        self.default.quota = quota.into();
        self
    }

    /// Leaves paths to `default` that a template of an endpoint would match too.
    pub fn default_paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.default.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Lets paths through without counting them, with an account or without: health checks, say.
    ///
    /// A path is exempt only if every server would read it as one that is, so no odd spelling of
    /// another path becomes exempt. For an account with a policy of its own, only that policy's
    /// exemptions hold.
    pub fn exempt<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.exempt.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Checks everything and makes the policy.
    ///
    /// # Errors
    /// When a name, a quota or a path makes no sense, or two paths match the same requests. The
    /// error names the value, its place and the rule that it breaks.
    pub fn build(self) -> Result<Policy, PolicyError> {
        if let Some(name) = self.unknown.into_iter().next() {
            return Err(PolicyError::UnknownEndpoint { name });
        }
        let mut paths = PathTable::new(self.endpoints.len());
        let mut rules = Vec::<Rule>::with_capacity(self.endpoints.len() + 1);
        for (index, named) in self.endpoints.into_iter().enumerate() {
            let endpoint = match Endpoint::new(&named.name) {
                Ok(endpoint) => endpoint,
                Err(reason) => return Err(PolicyError::Name { reason }),
            };
            if endpoint == Endpoint::DEFAULT || rules.iter().any(|rule| rule.endpoint == endpoint) {
                return Err(PolicyError::DuplicateEndpoint { name: named.name });
            }
            if named.paths.is_empty() {
                return Err(PolicyError::NoPaths { name: named.name });
            }
            rules.push(named.rule(endpoint, self.enforcement)?);
            let list = PathList::Endpoint(endpoint);
            insert(&mut paths, named.paths, Billing::Endpoint(index), list)?;
        }
        let default = Billing::Endpoint(rules.len());
        let rule = self.default.rule(Endpoint::DEFAULT, self.enforcement);
        insert(&mut paths, self.default.paths, default, PathList::Endpoint(Endpoint::DEFAULT))?;
        insert(&mut paths, self.exempt, Billing::Exempt, PathList::Exempt)?;
        rules.push(rule?);
        Ok(Policy::new(paths, rules))
    }

    /// The quota of an endpoint as it is so far, `default` included.
    #[cfg(feature = "policy-file")]
    pub(super) fn quota_of(&self, name: &str) -> Option<QuotaBuilder> {
        let mut all = self.endpoints.iter().chain([&self.default]);
        all.find(|endpoint| endpoint.name == name).map(|endpoint| endpoint.quota)
    }

    fn change(mut self, name: String, change: impl FnOnce(&mut Draft)) -> Self {
        let named = |endpoint: &&mut Draft| endpoint.name == name;
        match self.endpoints.iter_mut().chain([&mut self.default]).find(named) {
            Some(endpoint) => change(endpoint),
            None => self.unknown.push(name),
        }
        self
    }
}

impl Draft {
    fn new(name: impl Into<String>, quota: QuotaBuilder, paths: Vec<String>) -> Self {
        Self { name: name.into(), quota, enforcement: Enforcement::FULL, paths }
    }

    fn rule(&self, endpoint: Endpoint, all: Enforcement) -> Result<Rule, PolicyError> {
        match self.quota.build() {
            Ok(quota) => Ok(Rule::new(endpoint, quota, self.enforcement.and(all))),
            Err(reason) => Err(PolicyError::Quota { endpoint, reason }),
        }
    }
}

fn insert(
    table: &mut PathTable,
    templates: Vec<String>,
    billing: Billing,
    list: PathList,
) -> Result<(), PolicyError> {
    templates.into_iter().enumerate().try_for_each(|(index, path)| {
        table.insert(&path, billing).map_err(|reason| PolicyError::Path {
            path,
            list,
            index,
            reason,
        })
    })
}
