//! Which limits there are, and which of them a request falls under.
//!
//! A [`Policy`] is path templates, and for each endpoint of them a quota. An [`Account`] says who is
//! billed, and may bring a policy of its own.

mod account;
mod builder;
mod error;
#[cfg(feature = "policy-file")]
mod file;
mod lint;
mod path;
mod rule;

use std::fmt;
use std::sync::Arc;

use crate::values::{Endpoint, Enforcement, Quota};

use path::{Billing, PathTable};

pub use account::Account;
pub use builder::PolicyBuilder;
pub use error::{PathList, PolicyError};
#[cfg(feature = "policy-file")]
#[cfg_attr(docsrs, doc(cfg(feature = "policy-file")))]
pub use file::PolicyFileError;
pub use lint::Lint;
pub use path::TemplateError;

pub(crate) use rule::Rule;

/// Path templates and the quota of each endpoint, the quota of everything else, and the paths that
/// are exempt.
///
/// [`Policy::default`] is what the Bolna API documents as its rate limits (as of 7 February
/// 2026):
///
/// | endpoint | paths | requests a minute |
/// |---|---|---|
/// | `executions` | `/v2/agent/{agent_id}/executions` | 500 |
/// | `agent` | `/v2/agent/{agent_id}` | 500 |
/// | `call` | `/call` | 500 |
/// | `default` | everything else, `/v2/agent/all` included | 1000 |
///
/// A policy is checked when it is built and never changes; cloning it copies a pointer. Others are
/// built from that table with [`Policy::bolna`], from nothing with [`Policy::builder`] or, with the
/// feature `policy-file`, from a file with `Policy::read`:
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
/// assert_eq!(policy.endpoint_of("/v2/books/search").map(|endpoint| endpoint.name()), Some("search"));
/// assert_eq!(policy.endpoint_of("/v2/books"), Some(Endpoint::DEFAULT));
/// assert_eq!(policy.endpoint_of("/healthz"), None);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone)]
pub struct Policy(Arc<Rules>);

struct Rules {
    paths: PathTable,
    /// In the order in which they were declared, `default` last.
    rules: Vec<Rule>,
}

impl Policy {
    /// Starts from Bolna's table, to change a quota or to exempt a path.
    pub fn bolna() -> PolicyBuilder {
        PolicyBuilder::bolna()
    }

    /// Starts from nothing: every path is `default`, with 1000 requests a minute.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::new()
    }

    /// The endpoint that a path is billed to, or `None` if the path is exempt.
    ///
    /// `path` is a request's path without its query, as it came over the wire: not decoded. The
    /// method never matters.
    #[must_use]
    pub fn endpoint_of(&self, path: &str) -> Option<Endpoint> {
        self.rule_of(path).map(|rule| rule.endpoint)
    }

    /// The quota of an endpoint, or `None` if the policy does not have it.
    #[must_use]
    pub fn quota_of(&self, endpoint: Endpoint) -> Option<Quota> {
        self.rule_of_endpoint(endpoint).map(|rule| rule.quota)
    }

    /// On which principals the quota of an endpoint is enforced, or `None` if the policy does not
    /// have the endpoint.
    #[must_use]
    pub fn enforcement_of(&self, endpoint: Endpoint) -> Option<Enforcement> {
        self.rule_of_endpoint(endpoint).map(|rule| rule.enforcement)
    }

    /// The endpoints and their quotas, in the order in which they were declared, `default` last.
    pub fn endpoints(&self) -> impl Iterator<Item = (Endpoint, Quota)> + '_ {
        self.rules().iter().map(|rule| (rule.endpoint, rule.quota))
    }

    fn new(paths: PathTable, rules: Vec<Rule>) -> Self {
        Self(Arc::new(Rules { paths, rules }))
    }

    /// The rule that a path falls under, or `None` if the path is exempt.
    #[inline]
    pub(crate) fn rule_of(&self, path: &str) -> Option<&Rule> {
        self.index_of(path).map(|index| &self.0.rules[index])
    }

    /// The place of a path's rule among the [rules](Self::rules).
    #[inline]
    pub(crate) fn index_of(&self, path: &str) -> Option<usize> {
        match self.0.paths.bill(path) {
            Billing::Endpoint(index) => Some(index),
            Billing::Exempt => None,
        }
    }

    /// In the order in which they were declared, `default` last.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    pub(crate) fn rule_of_endpoint(&self, endpoint: Endpoint) -> Option<&Rule> {
        self.rules().iter().find(|rule| rule.endpoint == endpoint)
    }

    /// Whether [`rule_of`](Self::rule_of) is `None`, found out at less cost when it is not.
    pub(crate) fn exempts(&self, path: &str) -> bool {
        self.0.paths.exempts(path)
    }
}

/// Bolna's documented limits.
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

/// Two policies are equal when they have the same endpoints in the same order, with the same quotas,
/// enforcement and path templates.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        let templates = |policy: &Self| {
            let mut templates = policy.0.paths.templates();
            templates.sort_unstable();
            templates.into_iter().map(|(path, to)| (path.to_owned(), to)).collect::<Vec<_>>()
        };
        Arc::ptr_eq(&self.0, &other.0)
            || self.rules() == other.rules() && templates(self) == templates(other)
    }
}
