//! The builder of policies.

use std::collections::BTreeMap;
use std::iter;

use super::error::{PathList, PolicyError};
use super::path::{Billing, PathTableBuilder};
use super::{Policy, Rule};
use crate::values::{Endpoint, Enforcement, NameError, Quota, QuotaBuilder};

/// Builds a [`Policy`]. Nothing is checked before [`build`](Self::build).
///
/// ```
/// use bolna_rate_limit::{Policy, Quota};
///
/// let policy = Policy::builder()
///     .endpoint("search", Quota::per_second(5).burst(20), ["/search", "/{collection}/search"])
///     .endpoint("files", Quota::per_minute(60), ["/files/{*path}"])
///     .default_quota(Quota::per_minute(600))
///     .exempt(["/healthz"])
///     .build()?;
/// assert_eq!(policy.endpoints().count(), 3);
///
/// let error = Policy::bolna().quota("calls", Quota::per_minute(9)).build().unwrap_err();
/// assert!(error.to_string().starts_with("endpoint name \"calls\": there is no such endpoint"));
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
///
/// # Paths
/// A path template describes paths as they are after decoding. As in axum, each of its segments is
///
/// * a literal,
/// * `{name}`, which matches any one segment that is not empty, or
/// * as the last segment, `{*name}`, which matches the rest of the path, if that is not empty.
///
/// A template has at most 256 segments, and must match the whole path. At each segment a literal
/// beats `{name}`, which beats `{*name}`, whatever the order of the templates.
///
/// The order of the endpoints matters only for paths that are
/// [spelled oddly](crate#paths-that-are-spelled-to-escape): such a path is charged to the first
/// endpoint that a server might route it to. So declare the endpoint first that needs protection
/// most.
#[derive(Clone, Debug)]
#[must_use = "a policy builder does nothing until it is built"]
pub struct PolicyBuilder {
    endpoints: Vec<EndpointDraft>,
    /// The index of the first endpoint with each name.
    indices: BTreeMap<String, usize>,
    default: EndpointDraft,
    exempt: Vec<String>,
    enforcement: Enforcement,
    /// The names of endpoints that were to be changed and do not exist.
    unknown: Vec<String>,
}

/// An endpoint that has not been checked yet.
#[derive(Clone, Debug)]
struct EndpointDraft {
    name: String,
    quota: QuotaBuilder,
    enforcement: Enforcement,
    paths: Vec<String>,
}

impl PolicyBuilder {
    pub(super) fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            indices: BTreeMap::new(),
            default: EndpointDraft::new(
                Endpoint::DEFAULT.name(),
                Quota::per_minute(1000),
                Vec::new(),
            ),
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
            // This path lists agents. It belongs to "all other endpoints" in Bolna's documentation,
            // and is not an agent whose id is "all".
            .default_paths(["/v2/agent/all"])
    }

    /// Adds an endpoint with its quota and its [path templates](Self#paths), of which it needs at
    /// least one. It is enforced on all principals unless [`enforce`](Self::enforce) changes that.
    pub fn endpoint<P: Into<String>>(
        mut self,
        name: impl Into<String>,
        quota: impl Into<QuotaBuilder>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        let endpoint = EndpointDraft::new(name, quota.into(), paths);
        self.indices.entry(endpoint.name.clone()).or_insert(self.endpoints.len());
        self.endpoints.push(endpoint);
        self
    }

    /// Replaces the quota of an existing endpoint, which can be `default`.
    pub fn quota(self, name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        let quota = quota.into();
        self.change(name.into(), |endpoint| endpoint.quota = quota)
    }

    /// Replaces the path templates of an existing endpoint, which can be `default`.
    pub fn paths<P: Into<String>>(
        self,
        name: impl Into<String>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        self.change(name.into(), |endpoint| endpoint.paths = paths)
    }

    /// Sets on which principals the quota of an existing endpoint, which can be `default`, is
    /// enforced. Defaults to all of them.
    ///
    /// With [`Enforcement::SHADOW`] the quota refuses no request. Requests over the limit are
    /// reported to [observers](crate::Limiter::observe) all the same.
    pub fn enforce(self, name: impl Into<String>, enforcement: Enforcement) -> Self {
        self.change(name.into(), |endpoint| endpoint.enforcement = enforcement)
    }

    /// Sets on which principals the quotas of this policy are enforced. Defaults to all of them. If
    /// an endpoint has a [setting of its own](Self::enforce), the lesser of the two applies.
    ///
    /// This concerns this policy only.
    /// [`Limiter::set_enforcement`](crate::Limiter::set_enforcement) concerns the policies of
    /// accounts too.
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// Sets the quota of `default`, to which all paths are charged that no endpoint claims.
    /// Defaults to 1000 requests a minute.
    pub fn default_quota(mut self, quota: impl Into<QuotaBuilder>) -> Self {
        self.default.quota = quota.into();
        self
    }

    /// Adds path templates to `default`, for paths that a wider template of an endpoint would
    /// match.
    pub fn default_paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.default.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Adds paths that are exempt, for example health checks: requests to them are admitted without
    /// being counted, with an account or without.
    ///
    /// A path is exempt only if every server would read it as an exempt one, so no odd spelling of
    /// another path is exempt. An account with a policy of its own has that policy's exempt paths
    /// only.
    pub fn exempt<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.exempt.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Checks all settings and makes the policy.
    ///
    /// # Errors
    /// If
    ///
    /// * the name of an endpoint is not valid, is used twice, or is `default`;
    /// * a setting is for an endpoint that does not exist;
    /// * an endpoint has no paths;
    /// * a quota is not [valid](QuotaBuilder::build);
    /// * a path template is not valid, or two templates match the same paths;
    /// * the process would have more than [`Endpoint::MAX`] names of endpoints.
    ///
    /// The error holds the value, its place and the rule that it breaks. A policy that can't be
    /// built stores no endpoint name.
    pub fn build(self) -> Result<Policy, PolicyError> {
        if let Some(name) = self.unknown.into_iter().next() {
            return Err(PolicyError::UnknownEndpoint { name });
        }
        let all = self.enforcement;
        let mut paths = PathTableBuilder::new();
        let mut terms = Vec::with_capacity(self.endpoints.len() + 1);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            Endpoint::check(&endpoint.name).map_err(of_name)?;
            let is_taken = self.indices.get(&endpoint.name) != Some(&index);
            if is_taken || endpoint.name == Endpoint::DEFAULT.name() {
                return Err(PolicyError::DuplicateEndpoint { name: endpoint.name.clone() });
            }
            if endpoint.paths.is_empty() {
                return Err(PolicyError::NoPaths { name: endpoint.name.clone() });
            }
            terms.push(endpoint.terms(all)?);
            endpoint.insert_paths(&mut paths, index)?;
        }
        self.default.insert_paths(&mut paths, terms.len())?;
        insert(&mut paths, &self.exempt, Billing::Exempt, || PathList::Exempt)?;
        terms.push(self.default.terms(all)?);
        // Names are never freed. So they are made only now that nothing else can fail.
        let names: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        let endpoints = Endpoint::all(&names).map_err(of_name)?;
        let endpoints = endpoints.into_iter().chain(iter::once(Endpoint::DEFAULT));
        let rules = endpoints.zip(terms);
        Ok(Policy::new(
            paths.build(names.len()),
            rules.map(|(endpoint, (quota, on))| Rule::new(endpoint, quota, on)).collect(),
        ))
    }

    /// The quota that an endpoint, which can be `default`, has so far.
    #[cfg(feature = "policy-file")]
    pub(super) fn quota_of(&self, name: &str) -> Option<QuotaBuilder> {
        match self.indices.get(name) {
            Some(index) => Some(self.endpoints[*index].quota),
            None => (name == self.default.name).then_some(self.default.quota),
        }
    }

    fn change(mut self, name: String, change: impl FnOnce(&mut EndpointDraft)) -> Self {
        match self.indices.get(&name) {
            Some(index) => change(&mut self.endpoints[*index]),
            None if name == self.default.name => change(&mut self.default),
            None => self.unknown.push(name),
        }
        self
    }
}

impl EndpointDraft {
    fn new(name: impl Into<String>, quota: QuotaBuilder, paths: Vec<String>) -> Self {
        Self { name: name.into(), quota, enforcement: Enforcement::FULL, paths }
    }

    /// The quota, and on which principals it is enforced.
    fn terms(&self, all: Enforcement) -> Result<(Quota, Enforcement), PolicyError> {
        match self.quota.build() {
            Ok(quota) => Ok((quota, self.enforcement.and(all))),
            Err(reason) => Err(PolicyError::Quota { endpoint: self.name.clone(), reason }),
        }
    }

    fn insert_paths<'a>(
        &'a self,
        table: &mut PathTableBuilder<'a>,
        index: usize,
    ) -> Result<(), PolicyError> {
        let list = || PathList::Endpoint(self.name.clone());
        insert(table, &self.paths, Billing::Endpoint(index), list)
    }
}

fn insert<'a>(
    table: &mut PathTableBuilder<'a>,
    templates: &'a [String],
    billing: Billing,
    list: impl Fn() -> PathList,
) -> Result<(), PolicyError> {
    templates.iter().enumerate().try_for_each(|(index, path)| {
        table.insert(path, billing).map_err(|reason| PolicyError::Path {
            path: path.clone(),
            list: list(),
            index,
            reason,
        })
    })
}

fn of_name(reason: NameError) -> PolicyError {
    PolicyError::Name { reason }
}
