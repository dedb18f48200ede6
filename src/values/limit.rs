//! Limits: quotas, each with a name and a scope.

use super::endpoint::{Endpoint, NAMES};
use super::names::{Interned, NameError, interned_name};
use super::quota::Quota;

/// A quota with a [`Scope`] (which requests it counts together) and a name for header fields, keys
/// and metrics.
///
/// A rule of a [`Policy`](crate::Policy) has one to four limits. The first is the endpoint's own:
/// it has the endpoint's name, and counts the requests of an account. Others are declared with a
/// [`LimitBuilder`](crate::policy::LimitBuilder).
///
/// ```
/// use bolna_rate_limit::values::{Limit, LimitName, Scope};
/// use bolna_rate_limit::Quota;
///
/// let name = LimitName::new("call-user")?;
/// let limit = Limit::new(name, Quota::per_minute(100).build()?).with_scope(Scope::User);
/// assert_eq!(limit.to_string(), "call-user, 100 requests per minute for each user");
///
/// let name = LimitName::new("call-concurrent")?;
/// let limit = Limit::new(name, Quota::concurrent(10).build()?);
/// assert_eq!(limit.to_string(), "call-concurrent, 10 requests at once for each account");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    name: LimitName,
    scope: Scope,
    quota: Quota,
}

impl Limit {
    /// A limit of that name, which counts the requests of an account.
    pub fn new(name: impl Into<LimitName>, quota: Quota) -> Self {
        Self { name: name.into(), scope: Scope::Account, quota }
    }

    /// Sets which requests the limit counts together.
    #[must_use]
    pub const fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The name, unique in a policy.
    #[must_use]
    #[inline]
    pub const fn name(&self) -> LimitName {
        self.name
    }

    /// Which requests the limit counts together.
    #[must_use]
    #[inline]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The quota.
    #[must_use]
    #[inline]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    pub(super) const fn of(name: LimitName, scope: Scope, quota: Quota) -> Self {
        Self { name, scope, quota }
    }
}

/// `call-user, 100 requests per minute for each user`
impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} {}", self.name, self.quota, self.scope.phrase())
    }
}

/// Which requests a limit counts together.
///
/// New scopes may be added.
///
/// ```
/// use bolna_rate_limit::policy::LimitBuilder;
/// use bolna_rate_limit::values::Scope;
/// use bolna_rate_limit::{Policy, Quota};
///
/// let policy = Policy::bolna()
///     .shared(LimitBuilder::everyone("backend", Quota::per_second(200)), ["call", "agent"])
///     .build()?;
/// let of_everyone = policy.limits().into_iter().find(|limit| limit.scope() == Scope::Everyone);
/// let text = "backend, 200 requests per second for all accounts together";
/// assert_eq!(of_everyone.map(|limit| limit.to_string()).as_deref(), Some(text));
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Scope {
    /// All requests of an account: of the organization that is billed, or else of the user.
    #[default]
    Account,
    /// The requests of each user of an account. It does not apply to an account that names no
    /// user. A user who belongs to two organizations has a bucket in each.
    User,
    /// The requests of all accounts. It protects what stands behind the limiter.
    Everyone,
    /// The requests of each network address, for requests that have no account.
    Address,
}

impl Scope {
    /// The scope as a word for a metric's label: `account`, `user`, `everyone` or `address`. In a
    /// policy file a limit can have the first three.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::User => "user",
            Self::Everyone => "everyone",
            Self::Address => "address",
        }
    }

    /// The scope in words that follow a quota.
    pub(crate) const fn phrase(self) -> &'static str {
        match self {
            Self::Account => "for each account",
            Self::User => "for each user",
            Self::Everyone => "for all accounts together",
            Self::Address => "for each address",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The name of a [`Limit`].
///
/// An endpoint's own limit has the name of the endpoint. A name is one pointer, so it is cheap to
/// copy and to compare. It is 1 to 64 characters of `[A-Za-z0-9_.-]`. Names of limits and of
/// endpoints are stored together and never freed, and a process can have at most [`Endpoint::MAX`]
/// of them.
///
/// ```
/// use bolna_rate_limit::values::LimitName;
/// use bolna_rate_limit::{Endpoint, Policy};
///
/// let policy = Policy::bolna().concurrent("call", 10).build()?;
/// // A name that an administrator has sent: `known` stores nothing if it is misspelt.
/// let quota_of = |name| Some(policy.quota_of(LimitName::known(name)?)?.to_string());
/// assert_eq!(quota_of("call-concurrent").as_deref(), Some("10 requests at once"));
/// assert_eq!(quota_of("call-in-flight"), None);
/// assert_eq!(LimitName::new("call")?, Endpoint::CALL);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct LimitName(&'static Interned);

impl LimitName {
    /// The limit name with that text. A text that is not the name of one of Bolna's endpoints takes
    /// a lock.
    ///
    /// # Errors
    /// If the text is not 1 to 64 characters of `[A-Za-z0-9_.-]`, or if it is new and the process
    /// has [`Endpoint::MAX`] names already.
    pub fn new(name: &str) -> Result<Self, NameError> {
        NAMES.get(name).map(Self)
    }

    /// The limit name with that text, if a policy or [`new`](Self::new) has made it. For names that
    /// come from outside, since it makes none.
    #[must_use]
    pub fn known(name: &str) -> Option<Self> {
        NAMES.known(name).map(Self)
    }

    /// The names with these texts, all or none. The texts are valid, and no two are the same.
    ///
    /// # Errors
    /// If the process would have more than [`Endpoint::MAX`] names. Then none is added.
    pub(crate) fn all(names: &[&str]) -> Result<Vec<Self>, NameError> {
        Ok(NAMES.get_all(names)?.into_iter().map(Self).collect())
    }

    /// The name under which a store keeps a candidate policy's buckets of this limit. No policy can
    /// use it.
    pub(crate) fn for_candidate(self) -> Result<Self, NameError> {
        NAMES.intern(&format!("{}+candidate", self.name())).map(Self)
    }

    /// The endpoint of that name.
    pub(crate) const fn endpoint(self) -> Endpoint {
        Endpoint::of(self.0)
    }

    /// The name as text.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.text
    }

    /// The number of the name in this process, below [`Endpoint::MAX`].
    #[inline]
    pub(crate) const fn number(self) -> u16 {
        self.0.number
    }

    /// A hash of the name, the same in every process.
    #[inline]
    pub(crate) const fn hash(self) -> u64 {
        self.0.hash
    }
}

/// The name of the endpoint's own limit.
impl From<Endpoint> for LimitName {
    #[inline]
    fn from(endpoint: Endpoint) -> Self {
        Self(endpoint.interned())
    }
}

/// Whether it is the name of the endpoint's own limit.
impl PartialEq<Endpoint> for LimitName {
    fn eq(&self, endpoint: &Endpoint) -> bool {
        *self == Self::from(*endpoint)
    }
}

interned_name!(LimitName);
