//! Building a policy.

use std::sync::Arc;

use super::error::PolicyError;
use super::{Class, Policy, Table};
use crate::endpoint::Endpoint;
use crate::enforcement::Enforcement;
use crate::path::{Billing, PathTable};
use crate::quota::{Quota, QuotaBuilder};

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
    pub(super) endpoints: Vec<Named>,
    pub(super) default_quota: QuotaBuilder,
    pub(super) default_paths: Vec<String>,
    exempt: Vec<String>,
    enforcement: Enforcement,
    pub(super) default_enforcement: Enforcement,
    /// Names that were to be changed and are not there.
    stray: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) quota: QuotaBuilder,
    pub(super) enforcement: Enforcement,
    pub(super) paths: Vec<String>,
}

/// A mistake in a builder, and where it is.
pub(super) struct Fault {
    pub(super) error: PolicyError,
    #[cfg_attr(not(feature = "policy-file"), expect(dead_code, reason = "only files ask"))]
    pub(super) place: Place,
}

/// The part of a builder that a mistake is in. The first number is the index of an endpoint, the
/// default's being the last.
#[cfg_attr(not(feature = "policy-file"), expect(dead_code, reason = "only files ask"))]
pub(super) enum Place {
    Name(usize),
    Quota(usize),
    Paths(usize),
    Path(usize, usize),
    Exempt(usize),
}

impl PolicyBuilder {
    pub(super) fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            default_quota: Quota::per_minute(1000),
            default_paths: Vec::new(),
            exempt: Vec::new(),
            enforcement: Enforcement::FULL,
            default_enforcement: Enforcement::FULL,
            stray: Vec::new(),
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
        let (name, quota) = (name.into(), quota.into());
        self.endpoints.push(Named { name, quota, enforcement: Enforcement::FULL, paths });
        self
    }

    /// Replaces the quota of an endpoint that is already there, `default` included.
    pub fn quota(mut self, name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        let name = name.into();
        if name == Endpoint::DEFAULT.name() {
            return self.default_quota(quota);
        }
        match self.endpoints.iter_mut().find(|endpoint| endpoint.name == name) {
            Some(endpoint) => endpoint.quota = quota.into(),
            None => self.stray.push(name),
        }
        self
    }

    /// On whom the quota of an endpoint is enforced, `default` included. On everybody unless it is
    /// set.
    ///
    /// With [`Enforcement::SHADOW`] nobody is refused there, and what would have been refused is
    /// reported to [observers](crate::Limiter::observe).
    pub fn enforce(mut self, name: impl Into<String>, enforcement: Enforcement) -> Self {
        let name = name.into();
        if name == Endpoint::DEFAULT.name() {
            self.default_enforcement = enforcement;
            return self;
        }
        match self.endpoints.iter_mut().find(|endpoint| endpoint.name == name) {
            Some(endpoint) => endpoint.enforcement = enforcement,
            None => self.stray.push(name),
        }
        self
    }

    /// On whom any quota of the policy is enforced: where an endpoint has a setting of its own, the
    /// lesser of both counts.
    ///
    /// It concerns this policy only. [`Limiter::set_enforcement`](crate::Limiter::set_enforcement)
    /// concerns the policies of accounts too.
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// The quota of every path that no endpoint claims. 1000 requests a minute unless it is set.
    pub fn default_quota(mut self, quota: impl Into<QuotaBuilder>) -> Self {
        self.default_quota = quota.into();
        self
    }

    /// Leaves paths to `default` that a template of an endpoint would match too.
    pub fn default_paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.default_paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Lets paths through without counting them, whoever calls or if nobody does: health checks,
    /// say.
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
    /// error names the value and the rule.
    pub fn build(&self) -> Result<Policy, PolicyError> {
        if let Some(name) = self.stray.first() {
            return Err(PolicyError::UnknownEndpoint { name: name.clone() });
        }
        self.assemble().map_err(|fault| fault.error)
    }

    /// [`build`](Self::build), which says where the mistake is.
    pub(super) fn assemble(&self) -> Result<Policy, Fault> {
        let mut paths = PathTable::new(self.endpoints.len());
        let mut classes = Vec::<Class>::with_capacity(self.endpoints.len() + 1);
        for (index, Named { name, quota, enforcement, paths: templates }) in
            self.endpoints.iter().enumerate()
        {
            let at = |place| move |error| Fault { error, place };
            let endpoint =
                Endpoint::new(name).ok_or_else(|| PolicyError::Name { name: name.clone() });
            let endpoint = endpoint.map_err(at(Place::Name(index)))?;
            if endpoint == Endpoint::DEFAULT
                || classes.iter().any(|class| class.endpoint == endpoint)
            {
                return Err(at(Place::Name(index))(PolicyError::DuplicateEndpoint {
                    name: name.clone(),
                }));
            }
            if templates.is_empty() {
                return Err(at(Place::Paths(index))(PolicyError::NoPaths { name: name.clone() }));
            }
            let enforcement = enforcement.and(self.enforcement);
            classes.push(class(endpoint, *quota, enforcement).map_err(at(Place::Quota(index)))?);
            insert(&mut paths, templates, Billing::Endpoint(index), |path| {
                Place::Path(index, path)
            })?;
        }
        let last = classes.len();
        insert(&mut paths, &self.default_paths, Billing::Endpoint(last), |path| {
            Place::Path(last, path)
        })?;
        insert(&mut paths, &self.exempt, Billing::Exempt, Place::Exempt)?;
        let default_enforcement = self.default_enforcement.and(self.enforcement);
        let default = class(Endpoint::DEFAULT, self.default_quota, default_enforcement);
        classes.push(default.map_err(|error| Fault { error, place: Place::Quota(last) })?);
        Ok(Policy { table: Arc::new(Table::new(paths, classes)) })
    }
}

fn class(
    endpoint: Endpoint,
    quota: QuotaBuilder,
    enforcement: Enforcement,
) -> Result<Class, PolicyError> {
    let class = |quota| Class::new(endpoint, quota, enforcement);
    quota.build().map(class).map_err(|reason| PolicyError::Quota { endpoint, reason })
}

fn insert(
    table: &mut PathTable,
    templates: &[String],
    billing: Billing,
    place: impl Fn(usize) -> Place,
) -> Result<(), Fault> {
    templates.iter().enumerate().try_for_each(|(index, template)| {
        table.insert(template, billing).map_err(|error| Fault {
            error: PolicyError::Path { path: template.clone(), rule: error.to_string() },
            place: place(index),
        })
    })
}
