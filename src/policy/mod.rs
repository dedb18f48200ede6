//! Which limits are in force.

mod builder;
mod diagnose;
mod error;
#[cfg(feature = "policy-file")]
mod file;

use std::fmt;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::enforcement::Enforcement;
use crate::path::{Billing, PathTable};
use crate::quota::Quota;
use crate::wire::Kept;

pub use builder::PolicyBuilder;
pub use error::PolicyError;
#[cfg(feature = "policy-file")]
pub use file::PolicyFileError;

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
pub struct Policy {
    table: Arc<Table>,
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
        self.table.class_of(path).map(|class| class.endpoint)
    }

    /// The quota of an endpoint, or `None` if the policy does not name it.
    #[must_use]
    pub fn quota_of(&self, endpoint: Endpoint) -> Option<Quota> {
        self.table.class_of_endpoint(endpoint).map(|class| class.quota)
    }

    /// On whom the quota of an endpoint is enforced, or `None` if the policy does not name it.
    #[must_use]
    pub fn enforcement_of(&self, endpoint: Endpoint) -> Option<Enforcement> {
        self.table.class_of_endpoint(endpoint).map(|class| class.enforcement)
    }

    /// The endpoints and their quotas, in the order in which they were declared, `default` last.
    pub fn endpoints(&self) -> impl Iterator<Item = (Endpoint, Quota)> + '_ {
        self.table.classes.iter().map(|class| (class.endpoint, class.quota))
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(crate) fn into_table(self) -> Arc<Table> {
        self.table
    }

    pub(crate) fn from_table(table: Arc<Table>) -> Self {
        Self { table }
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

/// A policy as the request path reads it.
pub(crate) struct Table {
    paths: PathTable,
    classes: Vec<Class>,
    /// Whether every quota is enforced on all, as far as the policy is concerned.
    pub(crate) enforces_all: bool,
}

impl Table {
    fn new(paths: PathTable, classes: Vec<Class>) -> Self {
        let enforces_all = classes.iter().all(|class| class.enforcement == Enforcement::FULL);
        Self { paths, classes, enforces_all }
    }

    pub(crate) fn class_of(&self, path: &str) -> Option<&Class> {
        self.class_index_of(path).map(|index| self.class(index))
    }

    pub(crate) fn class_index_of(&self, path: &str) -> Option<usize> {
        match self.paths.bill(path) {
            Billing::Endpoint(index) => Some(index),
            Billing::Exempt => None,
        }
    }

    /// In the order in which they were declared, `default` last.
    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(crate) fn class_of_endpoint(&self, endpoint: Endpoint) -> Option<&Class> {
        self.classes.iter().find(|class| class.endpoint == endpoint)
    }

    pub(crate) fn class(&self, index: usize) -> &Class {
        &self.classes[index]
    }

    /// Whether [`class_index_of`](Self::class_index_of) is `None`, found out at less cost when it
    /// is not.
    pub(crate) fn exempts(&self, path: &str) -> bool {
        self.paths.exempts(path)
    }
}

/// An endpoint of a policy.
pub(crate) struct Class {
    pub(crate) endpoint: Endpoint,
    pub(crate) quota: Quota,
    /// On whom, as far as the policy is concerned.
    pub(crate) enforcement: Enforcement,
    /// What goes over the wire for it.
    pub(crate) kept: Option<&'static Kept>,
}

impl Class {
    fn new(endpoint: Endpoint, quota: Quota, enforcement: Enforcement) -> Self {
        Self { endpoint, quota, enforcement, kept: Kept::of(endpoint, quota) }
    }
}
