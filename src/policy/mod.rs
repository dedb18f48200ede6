//! Which limits there are, and which of them apply to a request.
//!
//! A [`Policy`] maps path templates to endpoints, and gives each endpoint one to four limits. It is
//! built with a [`PolicyBuilder`] or, with the feature `policy-file`, read from a file.
//! [`Policy::lint`] points out what is probably a mistake in it.
//!
//! An [`Account`] says who is billed. It can have a policy of its own, for callers with other
//! limits.
//!
//! ```
//! use bolna_rate_limit::{Account, Endpoint, Enforcement, Policy, Quota};
//!
//! // Bolna's limits, with a smaller burst for `/call`, which is not enforced yet.
//! let policy = Policy::bolna()
//!     .quota("call", Quota::per_minute(500).burst(50))
//!     .enforce("call", Enforcement::SHADOW)
//!     .exempt(["/healthz"])
//!     .build()?;
//! assert_eq!(policy.endpoint_of("/call"), Some(Endpoint::CALL));
//!
//! // A customer with a higher limit.
//! let enterprise = Policy::bolna().quota("call", Quota::per_minute(5000)).build()?;
//! let account = Account::user("u-17").in_organization("org-4").with_policy(enterprise);
//! # Ok::<(), bolna_rate_limit::PolicyError>(())
//! ```

mod account;
mod builder;
mod changes;
mod error;
#[cfg(feature = "policy-file")]
mod file;
mod limit;
mod lint;
mod path;
mod rule;

use std::fmt;
use std::iter;
use std::sync::{Arc, LazyLock};

use crate::values::{Endpoint, Enforcement, Entry, Limit, LimitName, Quota, QuotaBuilder, Scope};

use path::PathTable;

pub(crate) use changes::PathChange;
pub(crate) use path::{Charged, Prefix};

pub use account::Account;
pub use builder::PolicyBuilder;
pub use error::{PathList, PolicyError};
#[cfg(feature = "policy-file")]
#[cfg_attr(docsrs, doc(cfg(feature = "policy-file")))]
pub use file::PolicyFileError;
pub use limit::LimitBuilder;
pub use lint::Lint;
pub use path::{Spelling, TemplateError};

pub(crate) use rule::{MOST_LIMITS, Rule};

/// Endpoints with their path templates and quotas, the quota of all other paths, and the paths that
/// are exempt.
///
/// [`Policy::default`] holds the rate limits that the Bolna API documents (7 February 2026):
///
/// | endpoint | paths | requests a minute |
/// |---|---|---|
/// | `executions` | `/v2/agent/{agent_id}/executions` | 500 |
/// | `agent` | `/v2/agent/{agent_id}` | 500 |
/// | `call` | `/call` | 500 |
/// | `default` | everything else, `/v2/agent/all` included | 1000 |
///
/// A policy is checked when it is built, and never changes afterwards. Cloning it copies a pointer.
/// To make another one, start from Bolna's table with [`Policy::bolna`] or from nothing with
/// [`Policy::builder`], or read it from a file with `Policy::read` (feature `policy-file`).
///
/// ```
/// use bolna_rate_limit::{Endpoint, Policy, Quota};
///
/// let policy = Policy::builder()
///     .endpoint("search", Quota::per_second(5).burst(20), ["/search", "/v2/{collection}/search"])
///     .default_quota(Quota::per_minute(600))
///     .exempt(["/healthz", "/assets/{*file}"])
///     .build()?;
///
/// let search = policy.endpoint_of("/v2/books/search").expect("it is not exempt");
/// assert_eq!(search.name(), "search");
/// assert_eq!(policy.endpoint_of("/v2/books"), Some(Endpoint::DEFAULT));
/// assert_eq!(policy.endpoint_of("/healthz"), None);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone)]
pub struct Policy(Arc<PolicyData>);

struct PolicyData {
    paths: PathTable,
    /// In the order in which they were declared, `default` last.
    rules: Vec<Rule>,
    /// For requests that have no account.
    unidentified: Option<Rule>,
    /// Whether a rule has a limit for everyone.
    has_everyones: bool,
}

impl Policy {
    /// A builder that starts from Bolna's table, to change a quota or to exempt a path. The policy
    /// of Bolna's table as it is, is [`Policy::default`](Self::default).
    pub fn bolna() -> PolicyBuilder {
        PolicyBuilder::bolna()
    }

    /// A builder that starts from nothing: every path is charged to `default`, with 1000 requests a
    /// minute.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::new()
    }

    /// A policy without limits: every path is exempt, however it is spelled, and there are no
    /// endpoints. It is meant for single accounts, such as those of the staff or of health checks.
    ///
    /// Requests of an account with this policy are admitted at once and not counted, also towards
    /// limits for everyone. [Blocks](crate::Limiter::block) do not apply to them. As the limiter's
    /// policy, it admits all requests, also those without an account.
    ///
    /// [`check_endpoint`](crate::Limiter::check_endpoint) admits work of any name. The ruling has
    /// no decisions then.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter, Policy};
    ///
    /// let staff = Account::user("u-1").with_policy(Policy::unlimited());
    /// // `None`: nothing is decided about an exempt path.
    /// assert_eq!(Limiter::default().check_now(&staff, "/call"), None);
    /// ```
    #[must_use]
    pub fn unlimited() -> Self {
        static UNLIMITED: LazyLock<Policy> =
            LazyLock::new(|| Policy::new(PathTable::exempt(), Vec::new(), None));
        UNLIMITED.clone()
    }

    /// The endpoint that names a request to `path`, in metrics and in responses: the first of
    /// [`endpoints_of`](Self::endpoints_of), and nearly always the only one that the request is
    /// charged to. `None` if the path is exempt.
    ///
    /// `path` is the request's path as it came over the wire, that is not decoded, without the
    /// query. The method never matters.
    #[must_use]
    pub fn endpoint_of(&self, path: &str) -> Option<Endpoint> {
        self.index_of(path).map(|index| self.0.rules[index].endpoint())
    }

    /// The endpoints that a request to `path` is charged to. Empty if the path is exempt.
    ///
    /// Nearly all paths are charged to one endpoint. If servers read the path differently, it is
    /// charged to every endpoint that one of them takes it for, so no spelling of a path escapes a
    /// limit. The endpoint of the path as it is written comes first, unless that is exempt; the
    /// others follow in the order of the policy. A path that would be charged to more than 16
    /// endpoints, or that is too ambiguous to be read, is charged to all endpoints of the policy.
    ///
    /// Such a request is charged to all limits of these endpoints, each once, or to none of them.
    /// If they have more limits than [fit into one charge](crate::store::Charge::MAX_ENTRIES), or
    /// than the store [can charge at once](crate::store::Capabilities), the request is refused with
    /// 400.
    ///
    /// ```
    /// use bolna_rate_limit::{Endpoint, Policy};
    ///
    /// let policy = Policy::default();
    /// assert_eq!(policy.endpoints_of("/call"), [Endpoint::CALL]);
    /// // Some servers decode the path before they match it.
    /// assert_eq!(policy.endpoints_of("/%63all"), [Endpoint::DEFAULT, Endpoint::CALL]);
    /// ```
    ///
    /// `path` is the request's path as it came over the wire, that is not decoded, without the
    /// query. The method never matters.
    #[must_use]
    pub fn endpoints_of(&self, path: &str) -> Vec<Endpoint> {
        match self.charged(path) {
            Charged::TooMany(written) => {
                let others = (0..self.0.rules.len()).filter(|index| *index != written);
                let all = iter::once(written).chain(others);
                all.map(|index| self.0.rules[index].endpoint()).collect()
            }
            charged => charged.indices().iter().map(|&at| self.0.rules[at].endpoint()).collect(),
        }
    }

    /// The quota of a limit: of an endpoint's own, or of a further one. `None` if the policy does
    /// not have it.
    #[must_use]
    pub fn quota_of(&self, limit: impl Into<LimitName>) -> Option<Quota> {
        self.limit(limit.into()).map(|(entry, _)| entry.quota())
    }

    /// How many units of a limit a request costs. `None` if the policy does not have the limit.
    #[must_use]
    pub fn cost_of(&self, limit: impl Into<LimitName>) -> Option<u32> {
        self.limit(limit.into()).map(|(entry, _)| entry.cost())
    }

    /// On which principals the policy enforces a limit: an endpoint's own, or a further one. `None`
    /// if the policy does not have it. A limiter or a layer may enforce less.
    #[must_use]
    pub fn enforcement_of(&self, limit: impl Into<LimitName>) -> Option<Enforcement> {
        self.limit(limit.into()).map(|(_, enforcement)| enforcement)
    }

    /// The endpoints and the quotas of their own limits, in the order in which they were declared,
    /// with `default` last.
    pub fn endpoints(&self) -> impl Iterator<Item = (Endpoint, Quota)> + '_ {
        self.rules().iter().map(|rule| (rule.endpoint(), rule.quota()))
    }

    /// The limits of an endpoint: its own first, then those that were added to it, then those that
    /// it shares with other endpoints. Empty if the policy does not have the endpoint.
    pub fn limits_of(&self, endpoint: Endpoint) -> impl Iterator<Item = Limit> + '_ {
        self.rule_of_endpoint(endpoint).into_iter().flat_map(Rule::entries).map(Entry::limit)
    }

    /// All limits, each once: those of the endpoints in their order, and that of requests without
    /// an account last, if there is one.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        let mut limits: Vec<Limit> = Vec::new();
        for limit in self.all_rules().flat_map(Rule::entries).map(Entry::limit) {
            if limits.iter().all(|known| known.name() != limit.name()) {
                limits.push(limit);
            }
        }
        limits
    }

    fn new(paths: PathTable, rules: Vec<Rule>, unidentified: Option<Rule>) -> Self {
        let everyones = |entry: &Entry| entry.scope() == Scope::Everyone;
        let has_everyones = rules.iter().any(|rule| rule.entries().iter().any(everyones));
        Self(Arc::new(PolicyData { paths, rules, unidentified, has_everyones }))
    }

    /// The same policy with another quota of the limit of that name.
    ///
    /// # Errors
    /// If no endpoint has such a limit, or if the quota is not valid for it.
    #[cfg_attr(not(feature = "client"), expect(dead_code, reason = "the client's pacer calls it"))]
    pub(crate) fn with_quota(&self, limit: &str, quota: QuotaBuilder) -> Result<Self, PolicyError> {
        let mut entries = self.rules().iter().flat_map(Rule::entries);
        let Some(entry) = entries.find(|entry| entry.name().name() == limit) else {
            return Err(PolicyError::UnknownEndpoint { name: limit.to_owned() });
        };
        let built = quota.build();
        let quota =
            built.map_err(|reason| PolicyError::Quota { limit: limit.to_owned(), reason })?;
        let is_own = self.rules().iter().any(|rule| entry.name() == rule.endpoint());
        if is_own && quota.is_concurrent() {
            return Err(PolicyError::Concurrent { limit: limit.to_owned() });
        }
        let rules = self.rules().iter().map(|rule| rule.with_quota(entry.name(), quota));
        let rules = rules.collect::<Result<_, _>>().map_err(|_| PolicyError::Cost {
            limit: limit.to_owned(),
            cost: entry.cost(),
            burst: quota.burst(),
            concurrent: quota.is_concurrent(),
        })?;
        Ok(Self::new(self.0.paths.clone(), rules, self.unidentified().cloned()))
    }

    /// The rule for requests that have no account, if they are limited.
    #[inline]
    pub(crate) fn unidentified(&self) -> Option<&Rule> {
        self.0.unidentified.as_ref()
    }

    /// Whether a rule has a limit for everyone.
    #[inline]
    pub(crate) fn has_everyones(&self) -> bool {
        self.0.has_everyones
    }

    /// The rules of all endpoints, and that of requests without an account.
    pub(crate) fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules().iter().chain(&self.0.unidentified)
    }

    fn limit(&self, name: LimitName) -> Option<(&Entry, Enforcement)> {
        self.all_rules().find_map(|rule| rule.limit(name))
    }

    /// The indices of a path's rules in [`rules`](Self::rules).
    #[inline]
    pub(crate) fn charged(&self, path: &str) -> Charged {
        self.0.paths.charged(path)
    }

    /// The index in [`rules`](Self::rules) of the rule whose endpoint names the request. `None` if
    /// the path is exempt.
    #[inline]
    pub(crate) fn index_of(&self, path: &str) -> Option<usize> {
        self.charged(path).first()
    }

    /// The rules, in the order in which their endpoints were declared, with `default` last.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    pub(crate) fn rule_of_endpoint(&self, endpoint: Endpoint) -> Option<&Rule> {
        self.rules().iter().find(|rule| rule.endpoint() == endpoint)
    }

    /// The endpoint whose template a path would match, if it were not for a prefix, and the
    /// template. The path is charged to `default`.
    pub(crate) fn lookalike<'a>(
        &'a self,
        path: &'a str,
    ) -> Option<(Endpoint, &'a str, Prefix<'a>)> {
        let found = self.0.paths.lookalike(path)?;
        Some((self.rules()[found.endpoint].endpoint(), found.template, found.prefix))
    }

    /// Whether it is the same value as another, and not only an equal one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a path is exempt. For a path that is not, this is cheaper than
    /// [`charged`](Self::charged).
    pub(crate) fn exempts(&self, path: &str) -> bool {
        self.0.paths.exempts(path)
    }
}

impl Charged {
    /// The indices of the endpoints, that of the path as it is written first. Empty if the path is
    /// exempt, or charged to too many endpoints.
    #[inline]
    pub(crate) fn indices(&self) -> &[usize] {
        match self {
            Self::Exempt | Self::TooMany(_) => &[],
            Self::One(index) => std::slice::from_ref(index),
            Self::Several(several) => several.as_slice(),
        }
    }

    /// The index of the endpoint that names the request. `None` if the path is exempt.
    #[inline]
    pub(crate) fn first(&self) -> Option<usize> {
        match self {
            // Apart from the others, since nearly all paths are so.
            Self::One(index) | Self::TooMany(index) => Some(*index),
            charged => charged.indices().first().copied(),
        }
    }
}

/// The limits that Bolna documents.
impl Default for Policy {
    fn default() -> Self {
        Self::bolna().build().expect("Bolna's table is valid")
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.endpoints()).finish()
    }
}

/// Two policies are equal if they have the same endpoints in the same order, with the same limits,
/// enforcement and path templates, limit requests without an account in the same way, exempt the
/// same templates, strip the same prefixes and ignore the same spellings.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        let templates = |policy: &Self| {
            let mut templates = policy.0.paths.templates();
            templates.sort_unstable();
            templates.into_iter().map(|(path, to)| (path.to_owned(), to)).collect::<Vec<_>>()
        };
        Arc::ptr_eq(&self.0, &other.0)
            || self.all_rules().eq(other.all_rules())
                && self.0.paths.reads_like(&other.0.paths)
                && self.rules().len() == other.rules().len()
                && templates(self) == templates(other)
    }
}
