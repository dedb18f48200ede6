//! The builder of policies.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{PathList, PolicyError};
use super::limit::{LimitBuilder, QuotaDraft};
use super::path::{Billing, Overlaps, PathTableBuilder, Spelling, Spellings};
use super::rule::MOST_LIMITS;
use super::{Policy, Rule};
use crate::values::{
    Endpoint, Enforcement, Entry, Limit, LimitName, NameError, Quota, QuotaBuilder, Scope,
};

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
/// assert!(error.to_string().starts_with("name \"calls\": there is no such endpoint"));
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
/// A segment has at most 255 bytes. The order of the endpoints does not matter: a path that is
/// [spelled oddly](crate::guide::security) is charged to every endpoint that a server might take it
/// for.
#[derive(Clone, Debug)]
#[must_use = "a policy builder does nothing until it is built"]
pub struct PolicyBuilder {
    endpoints: Vec<EndpointDraft>,
    /// The index of the first endpoint with each name.
    indices: BTreeMap<String, usize>,
    default: EndpointDraft,
    /// Limits that several endpoints share, each with the names of these endpoints.
    shared: Vec<(LimitBuilder, Vec<String>)>,
    unidentified: Option<LimitBuilder>,
    exempt: Vec<String>,
    prefixes: Vec<String>,
    spellings: Spellings,
    enforcement: Enforcement,
    /// The names of endpoints and limits that were to be changed and do not exist.
    unknown: Vec<String>,
}

/// An endpoint that has not been checked yet.
#[derive(Clone, Debug)]
struct EndpointDraft {
    /// Its own limit, which has its name.
    own: LimitBuilder,
    also: Vec<LimitBuilder>,
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
            shared: Vec::new(),
            unidentified: None,
            exempt: Vec::new(),
            prefixes: Vec::new(),
            spellings: Spellings::ALL,
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

    /// Adds an endpoint with its quota, which must be a rate, and its
    /// [path templates](Self#paths), of which it needs at least one. It is enforced on all
    /// principals unless [`enforce`](Self::enforce) changes that.
    pub fn endpoint<P: Into<String>>(
        mut self,
        name: impl Into<String>,
        quota: impl Into<QuotaBuilder>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        let endpoint = EndpointDraft::new(name, quota.into(), paths);
        self.indices.entry(endpoint.own.name.clone()).or_insert(self.endpoints.len());
        self.endpoints.push(endpoint);
        self
    }

    /// Adds a further limit to an existing endpoint, which can be `default`. An endpoint has at
    /// most four limits, its own included. Their names must differ from those of all other limits
    /// and endpoints of the policy.
    ///
    /// A request to the endpoint is charged to all of its limits, or to none if one of them refuses
    /// it.
    pub fn also(self, endpoint: impl Into<String>, limit: LimitBuilder) -> Self {
        self.change_endpoint(endpoint.into(), |endpoint| endpoint.also.push(limit))
    }

    /// Adds one limit to several existing endpoints: their requests are counted together.
    ///
    /// ```
    /// use bolna_rate_limit::policy::LimitBuilder;
    /// use bolna_rate_limit::{Policy, Quota};
    ///
    /// let day = LimitBuilder::account("day", Quota::per_day(100_000));
    /// let policy = Policy::bolna().shared(day, ["call", "agent", "default"]).build()?;
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn shared<E: Into<String>>(
        mut self,
        limit: LimitBuilder,
        endpoints: impl IntoIterator<Item = E>,
    ) -> Self {
        self.shared.push((limit, endpoints.into_iter().map(Into::into).collect()));
        self
    }

    /// Lets no user spend more than a share of its organization's limit: adds a limit that counts
    /// each user to an existing endpoint. Its name is that of the endpoint and `-user`.
    ///
    /// Its quota is `percent`, from 1 to 100, of the quota that the endpoint's own limit has when
    /// the policy is built. Limit and burst are rounded down, but are at least 1.
    ///
    /// ```
    /// use bolna_rate_limit::{Endpoint, Policy};
    ///
    /// let policy = Policy::bolna().user_share("call", 20).build()?;
    /// let limits: Vec<_> = policy.limits_of(Endpoint::CALL).map(|it| it.to_string()).collect();
    /// assert_eq!(limits[1], "call-user, 100 requests per minute for each user");
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn user_share(self, endpoint: impl Into<String>, percent: u8) -> Self {
        let endpoint = endpoint.into();
        let name = format!("{endpoint}-user");
        self.also(endpoint, LimitBuilder::new(name, Scope::User, QuotaDraft::Share(percent)))
    }

    /// Limits how many requests to an existing endpoint an account may have in flight. Adds a limit
    /// named `<endpoint>-concurrent`, with the quota [`Quota::concurrent`].
    ///
    /// A request is in flight from its admission until the body of its response has ended or was
    /// dropped, and for as long as an [`Admission`](crate::limiter::Admission) of it is kept, such
    /// as by the task that serves an upgraded connection. If the limit refuses a request, no other
    /// limit is charged for it. The refusal names a wait of 1 s, since it is not known when a
    /// request will end. In shadow mode, a request above the limit takes no place, so the count
    /// never exceeds the limit.
    ///
    /// Besides its rates, a voice API limits how many calls an account has at once. This limit
    /// counts requests to `/call`, and a request ends with its response, usually long before the
    /// phone call ends. To count phone calls, keep the `Admission` in the task that serves the
    /// call.
    ///
    /// For other names and scopes, give [`also`](Self::also) or [`shared`](Self::shared) a limit
    /// with such a quota:
    ///
    /// ```
    /// use bolna_rate_limit::policy::LimitBuilder;
    /// use bolna_rate_limit::{Policy, Quota};
    ///
    /// let policy = Policy::bolna()
    ///     // At most 10 requests to /call in flight for each account, and 3 for each of its users.
    ///     .concurrent("call", 10)
    ///     .also("call", LimitBuilder::user("call-user-concurrent", Quota::concurrent(3)))
    ///     // At most 1,000 requests in flight for the service behind the limiter.
    ///     .shared(LimitBuilder::everyone("all-concurrent", Quota::concurrent(1000)), [
    ///         "call", "agent", "executions", "default",
    ///     ])
    ///     .build()?;
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    ///
    /// A request takes its place before the store is asked. So with a store that does not answer at
    /// once, a request that a rate will refuse counts as in flight until the store has answered. If
    /// there is a limit for everyone, set one for each account too. Otherwise one account can fill
    /// the limit for everyone with requests that are about to be refused.
    ///
    /// # Several replicas
    /// The limiter counts the requests in flight in its own process, whatever its store. If N
    /// processes share the store, each of them allows its share: one Nth of the limit, rounded
    /// down, but at least one request, or the cost of one. So all of them together allow no more
    /// than the limit, unless it is too small for one request each. A caller whose requests all
    /// reach one replica has one Nth of the limit. Header fields, refusals and
    /// [`usage`](crate::Limiter::usage) name the share, not the whole limit.
    ///
    /// [`Capabilities::replicas`](crate::store::Capabilities::replicas) says how many processes
    /// there are: for a `RedisStore`, the number of expected replicas.
    pub fn concurrent(self, endpoint: impl Into<String>, limit: u32) -> Self {
        let endpoint = endpoint.into();
        let limit =
            LimitBuilder::account(format!("{endpoint}-concurrent"), Quota::concurrent(limit));
        self.also(endpoint, limit)
    }

    /// Limits the requests that have no account, for each network address. The limit has the name
    /// `unidentified`. By default there is none.
    ///
    /// Over the limit a request is refused with 429. Within it,
    /// [`on_unidentified`](crate::BolnaRateLimitLayer::on_unidentified) decides. So keys and tokens
    /// can't be guessed at full speed. Exempt paths are not counted.
    ///
    /// The layer has to know the addresses: see
    /// [`client_address`](crate::BolnaRateLimitLayer::client_address). Without it, all requests
    /// without an account share one bucket. The policy of a single account has no effect on this.
    /// The quota must be a rate.
    pub fn unidentified_quota(mut self, quota: impl Into<QuotaBuilder>) -> Self {
        let quota = QuotaDraft::Quota(quota.into());
        match &mut self.unidentified {
            Some(limit) => limit.quota = quota,
            none => {
                let name = UNIDENTIFIED.to_owned();
                *none = Some(LimitBuilder::new(name, Scope::Address, quota));
            }
        }
        self
    }

    /// Replaces the quota of an existing limit: that of an endpoint, which can be `default`, or of
    /// a further limit. That of an endpoint must be a rate, and not of
    /// [requests in flight](Quota::concurrent).
    pub fn quota(self, name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        let quota = quota.into();
        self.change(name.into(), |limit| limit.quota = QuotaDraft::Quota(quota))
    }

    /// Sets how many units of an existing limit a request costs: from 1, which is the default, to
    /// the quota's burst. In a limit of requests in flight, the cost is the number of places that a
    /// request takes. The request itself can have
    /// [another cost](crate::BolnaRateLimitLayer::cost).
    pub fn cost(self, name: impl Into<String>, units: u32) -> Self {
        self.change(name.into(), |limit| limit.cost = units)
    }

    /// Replaces the path templates of an existing endpoint, which can be `default`.
    pub fn paths<P: Into<String>>(
        self,
        name: impl Into<String>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        self.change_endpoint(name.into(), |endpoint| endpoint.paths = paths)
    }

    /// Sets on which principals an existing limit is enforced: that of an endpoint, which can be
    /// `default`, or a further limit. Defaults to all of them.
    ///
    /// With [`Enforcement::SHADOW`] the limit refuses no request. Requests over the limit are
    /// reported to [observers](crate::Limiter::observe) all the same.
    pub fn enforce(self, name: impl Into<String>, enforcement: Enforcement) -> Self {
        self.change(name.into(), |limit| limit.enforcement = enforcement)
    }

    /// Sets on which principals the limits of this policy are enforced. Defaults to all of them. If
    /// a limit has a [setting of its own](Self::enforce), the lesser of the two applies.
    ///
    /// This concerns this policy only.
    /// [`Limiter::set_enforcement`](crate::Limiter::set_enforcement) concerns the policies of
    /// accounts too.
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// Sets the quota of `default`, to which all paths are charged that no endpoint claims. It must
    /// be a rate. Defaults to 1000 requests a minute.
    pub fn default_quota(mut self, quota: impl Into<QuotaBuilder>) -> Self {
        self.default.own.quota = QuotaDraft::Quota(quota.into());
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
    /// A path is exempt only if
    ///
    /// * it matches as it is written, its slash at the end included: with `/healthz`, `/healthz/`
    ///   is not exempt;
    /// * every server would read it as an exempt path, so no odd spelling of another path is
    ///   exempt;
    /// * nothing in it is malformed: no escape without two digits, no bytes that are not valid
    ///   UTF-8, no encoded zero byte, tab or line break.
    ///
    /// An account with a policy of its own has that policy's exempt paths only.
    pub fn exempt<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.exempt.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Adds a prefix that the application strips before it routes, such as the `root_path` of
    /// FastAPI: with `/api`, the path `/api/call` is charged as `/call` is. Paths without the
    /// prefix are charged as before. The prefix is a [path template](Self#paths) without `{*name}`.
    ///
    /// * It is stripped once, and no other prefix after it: `/api/api/call` is charged as a path
    ///   `/api/call` of the application.
    /// * It beats wider templates: `/api/call` is charged as `/call` is, even if there is a
    ///   template `/{a}/{b}`.
    /// * A template that begins with the prefix beats it: the paths of a template `/api/own` are
    ///   charged to the endpoint of that template.
    ///
    /// Without this, `/api/call` is charged to `default`, although the application takes it for
    /// `/call`: the limiter can't know the prefix. A prefix that a proxy in front of the limiter
    /// strips need not be named: the limiter never sees it.
    ///
    /// ```
    /// use bolna_rate_limit::{Endpoint, Policy};
    ///
    /// let policy = Policy::bolna().stripped_prefix("/api").build()?;
    /// assert_eq!(policy.endpoints_of("/api/call"), [Endpoint::CALL]);
    /// assert_eq!(policy.endpoints_of("/call"), [Endpoint::CALL]);
    /// assert_eq!(policy.endpoints_of("/api/api/call"), [Endpoint::DEFAULT]);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn stripped_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefixes.push(prefix.into());
        self
    }

    /// Does not read these [kinds of spelling](Spelling), so that paths which are spelled so are
    /// charged to fewer endpoints. By default every kind is read. Further calls ignore further
    /// kinds, and a kind that is ignored can't be switched on again.
    ///
    /// Do this only if you know that no server behind the limiter reads them, and none will. Then
    /// it spares honest callers: if the application has ids such as `all.json` beside a literal
    /// `all`, and has no format suffixes, ignore [`Spelling::FormatSuffix`]. If you are wrong,
    /// callers escape the limit: behind Express, without [`Spelling::Capitals`], `/Call` reaches
    /// the handler of `/call` and is charged to `default`.
    ///
    /// ```
    /// use bolna_rate_limit::policy::Spelling;
    /// use bolna_rate_limit::{Endpoint, Policy};
    ///
    /// let policy = Policy::bolna().ignore_spellings([Spelling::FormatSuffix]).build()?;
    /// assert_eq!(policy.endpoints_of("/v2/agent/all.json"), [Endpoint::AGENT]);
    /// let policy = Policy::bolna().build()?;
    /// assert_eq!(policy.endpoints_of("/v2/agent/all.json"), [Endpoint::AGENT, Endpoint::DEFAULT]);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn ignore_spellings(mut self, kinds: impl IntoIterator<Item = Spelling>) -> Self {
        self.spellings = kinds.into_iter().fold(self.spellings, Spellings::without);
        self
    }

    /// Checks all settings and makes the policy.
    ///
    /// # Errors
    /// If
    ///
    /// * the name of an endpoint or a limit is not valid, is used twice, or is `default`;
    /// * a setting is for an endpoint or a limit that does not exist;
    /// * an endpoint has no paths, or more than four limits;
    /// * a quota is not [valid](QuotaBuilder::build), or a cost is 0 or above the burst;
    /// * a share is not from 1 to 100 percent, or a shared limit has no endpoint;
    /// * a path template or a prefix is not valid, or two templates match the same paths;
    /// * literals and parameters alternate in the path templates in too many ways. It takes about
    ///   twenty long templates, each with a literal where the others have parameters;
    /// * the process would have more than [`Endpoint::MAX`] names of endpoints and limits.
    ///
    /// The error holds the value, its place and the rule that it breaks. A policy that can't be
    /// built stores no name.
    pub fn build(self) -> Result<Policy, PolicyError> {
        if let Some(name) = self.unknown.first() {
            return Err(PolicyError::UnknownEndpoint { name: name.clone() });
        }
        let mut paths = PathTableBuilder::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let name = &endpoint.own.name;
            Endpoint::check(name).map_err(|reason| PolicyError::Name { reason })?;
            if self.indices.get(name) != Some(&index) || name == Endpoint::DEFAULT.name() {
                return Err(PolicyError::DuplicateEndpoint { name: name.clone() });
            }
            if endpoint.paths.is_empty() {
                return Err(PolicyError::NoPaths { name: name.clone() });
            }
            endpoint.own.rate(endpoint)?;
            endpoint.insert_paths(&mut paths, index)?;
        }
        self.default.own.rate(&self.default)?;
        if let Some(limit) = &self.unidentified {
            limit.rate(&self.default)?;
        }
        self.default.insert_paths(&mut paths, self.endpoints.len())?;
        insert(&mut paths, &self.exempt, Billing::Exempt, || PathList::Exempt)?;
        for (index, prefix) in self.prefixes.iter().enumerate() {
            paths.insert_prefix(prefix).map_err(|reason| {
                let (path, list) = (prefix.clone(), PathList::Prefix);
                PolicyError::Path { path, list, index, reason }
            })?;
        }
        let paths = paths.build(self.endpoints.len(), self.spellings);
        let paths = paths.map_err(|Overlaps| PolicyError::TooManyOverlaps)?;
        let terms = self.terms(&self.shared_by_endpoint()?)?;
        let unidentified = self.unidentified.as_ref().map(|it| it.terms(&self.default));
        let unidentified = unidentified.transpose()?;
        // Names are never freed. So they are made only now that nothing else can fail.
        let texts: Vec<_> = self.names()?.into_iter().collect();
        let names = LimitName::all(&texts).map_err(|reason| self.of_name(reason))?;
        let names: BTreeMap<_, _> = texts.into_iter().zip(names).collect();
        let all = self.enforcement;
        let rule = |limits: &[Terms<'_>]| {
            let limits = limits.iter().map(|it| it.limit(names[it.draft.name.as_str()], all));
            let limits = limits.collect::<Result<Vec<_>, _>>()?;
            Ok(Rule::new(limits[0].0.name().endpoint(), &limits))
        };
        let rules = terms.iter().map(|limits| rule(limits)).collect::<Result<_, _>>()?;
        let unidentified = unidentified.map(|limit| rule(&[limit])).transpose()?;
        Ok(Policy::new(paths, rules, unidentified))
    }

    /// The limits that the endpoints share: those of each endpoint, `default` last.
    fn shared_by_endpoint(&self) -> Result<Vec<Vec<&LimitBuilder>>, PolicyError> {
        let mut shared = vec![Vec::new(); self.endpoints.len() + 1];
        for (limit, endpoints) in &self.shared {
            if endpoints.is_empty() {
                return Err(PolicyError::UnusedLimit { name: limit.name.clone() });
            }
            for name in endpoints {
                let index = match self.indices.get(name) {
                    Some(index) => *index,
                    None if name == Endpoint::DEFAULT.name() => self.endpoints.len(),
                    None => return Err(PolicyError::UnknownEndpoint { name: name.clone() }),
                };
                // An endpoint that is named twice has the limit once. It is then the last one.
                let of_endpoint: &mut Vec<&LimitBuilder> = &mut shared[index];
                if !of_endpoint.last().is_some_and(|known| std::ptr::eq(*known, limit)) {
                    of_endpoint.push(limit);
                }
            }
        }
        Ok(shared)
    }

    /// The names of all limits, each once.
    fn names(&self) -> Result<BTreeSet<&str>, PolicyError> {
        let endpoints = || self.endpoints.iter().chain([&self.default]);
        let mut names: BTreeSet<_> = endpoints().map(|it| it.own.name.as_str()).collect();
        let further = endpoints().flat_map(|endpoint| &endpoint.also);
        let further = further.chain(self.shared.iter().map(|(limit, _)| limit));
        for limit in further.chain(&self.unidentified) {
            Endpoint::check(&limit.name).map_err(|reason| PolicyError::LimitName { reason })?;
            if !names.insert(&limit.name) {
                return Err(PolicyError::DuplicateLimit { name: limit.name.clone() });
            }
        }
        Ok(names)
    }

    /// The error of a valid name that the process has no room for.
    fn of_name(&self, reason: NameError) -> PolicyError {
        if self.indices.contains_key(reason.name()) {
            PolicyError::Name { reason }
        } else {
            PolicyError::LimitName { reason }
        }
    }

    /// The limits of each endpoint, `default` last.
    fn terms<'a>(
        &'a self,
        shared: &[Vec<&'a LimitBuilder>],
    ) -> Result<Vec<Vec<Terms<'a>>>, PolicyError> {
        let of_endpoint = |(endpoint, shared): (&'a EndpointDraft, &Vec<&'a LimitBuilder>)| {
            let limits = [&endpoint.own].into_iter().chain(&endpoint.also);
            let limits: Vec<_> = limits.chain(shared.iter().copied()).collect();
            if limits.len() > MOST_LIMITS {
                let (name, count) = (endpoint.own.name.clone(), limits.len());
                return Err(PolicyError::TooManyLimits { endpoint: name, count });
            }
            limits.into_iter().map(|limit| limit.terms(endpoint)).collect()
        };
        self.endpoints.iter().chain([&self.default]).zip(shared).map(of_endpoint).collect()
    }

    /// The names of the endpoints so far, `default` last.
    #[cfg(feature = "policy-file")]
    pub(super) fn endpoint_names(&self) -> Vec<&str> {
        self.endpoints.iter().chain([&self.default]).map(|it| it.own.name.as_str()).collect()
    }

    /// The quota that an endpoint, which can be `default`, has so far.
    #[cfg(feature = "policy-file")]
    pub(super) fn quota_of(&self, endpoint: &str) -> Option<QuotaBuilder> {
        let endpoint = match self.indices.get(endpoint) {
            Some(index) => &self.endpoints[*index],
            None if endpoint == self.default.own.name => &self.default,
            None => return None,
        };
        match endpoint.own.quota {
            QuotaDraft::Quota(quota) => Some(quota),
            QuotaDraft::Share(_) => None,
        }
    }

    fn change_endpoint(mut self, name: String, change: impl FnOnce(&mut EndpointDraft)) -> Self {
        match self.indices.get(&name) {
            Some(index) => change(&mut self.endpoints[*index]),
            None if name == self.default.own.name => change(&mut self.default),
            None => self.unknown.push(name),
        }
        self
    }

    /// Changes a limit.
    fn change(mut self, name: String, change: impl FnOnce(&mut LimitBuilder)) -> Self {
        if self.indices.contains_key(&name) || name == self.default.own.name {
            return self.change_endpoint(name, |endpoint| change(&mut endpoint.own));
        }
        let found = self.further().find(|limit| limit.name == name).map(change);
        if found.is_none() {
            self.unknown.push(name);
        }
        self
    }

    /// All limits but the endpoints' own.
    fn further(&mut self) -> impl Iterator<Item = &mut LimitBuilder> {
        let also = self.endpoints.iter_mut().chain([&mut self.default]);
        let shared = self.shared.iter_mut().map(|(limit, _)| limit);
        also.flat_map(|endpoint| &mut endpoint.also).chain(shared).chain(&mut self.unidentified)
    }
}

/// The name of the limit of requests without an account.
pub(super) const UNIDENTIFIED: &str = "unidentified";

impl EndpointDraft {
    fn new(name: impl Into<String>, quota: QuotaBuilder, paths: Vec<String>) -> Self {
        let own = LimitBuilder::new(name.into(), Scope::Account, QuotaDraft::Quota(quota));
        Self { own, also: Vec::new(), paths }
    }

    fn insert_paths<'a>(
        &'a self,
        table: &mut PathTableBuilder<'a>,
        index: usize,
    ) -> Result<(), PolicyError> {
        let list = || PathList::Endpoint(self.own.name.clone());
        insert(table, &self.paths, Billing::Endpoint(index), list)
    }
}

/// A limit whose quota and cost are valid.
struct Terms<'a> {
    draft: &'a LimitBuilder,
    quota: Quota,
}

impl Terms<'_> {
    fn limit(
        &self,
        name: LimitName,
        all: Enforcement,
    ) -> Result<(Entry, Enforcement), PolicyError> {
        let Self { draft, quota } = self;
        let entry = Entry::of(Limit::new(name, *quota).with_scope(draft.scope));
        let entry = entry.with_cost(draft.cost).map_err(|_| self.of_cost())?;
        Ok((entry, draft.enforcement.and(all)))
    }

    fn of_cost(&self) -> PolicyError {
        let Self { draft, quota } = self;
        let (limit, cost, burst) = (draft.name.clone(), draft.cost, quota.burst());
        PolicyError::Cost { limit, cost, burst, concurrent: quota.is_concurrent() }
    }
}

impl LimitBuilder {
    /// Checks the numbers of a limit of that endpoint.
    fn terms(&self, endpoint: &EndpointDraft) -> Result<Terms<'_>, PolicyError> {
        let terms = Terms { draft: self, quota: self.quota(endpoint)? };
        let costs = 1..=terms.quota.burst();
        if costs.contains(&self.cost) { Ok(terms) } else { Err(terms.of_cost()) }
    }

    /// The quota of a limit that can't be of requests in flight.
    fn rate(&self, endpoint: &EndpointDraft) -> Result<Quota, PolicyError> {
        let quota = self.quota(endpoint)?;
        if quota.is_concurrent() {
            return Err(PolicyError::Concurrent { limit: self.name.clone() });
        }
        Ok(quota)
    }

    fn quota(&self, endpoint: &EndpointDraft) -> Result<Quota, PolicyError> {
        let invalid = |reason| PolicyError::Quota { limit: self.name.clone(), reason };
        match self.quota {
            QuotaDraft::Quota(quota) => quota.build().map_err(invalid),
            QuotaDraft::Share(percent @ 1..=100) => {
                let whole = endpoint.own.quota(endpoint)?;
                whole.share(percent).build().map_err(invalid)
            }
            QuotaDraft::Share(percent) => {
                Err(PolicyError::Share { endpoint: endpoint.own.name.clone(), percent })
            }
        }
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
