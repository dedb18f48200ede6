//! What authentication knows about a caller.

use crate::policy::Policy;
use crate::principal::Principal;

/// Who is calling: a user, perhaps within an organization, perhaps on a plan with limits of its
/// own.
///
/// Authentication makes one and inserts it into the request's extensions, where the limiter finds
/// it.
///
/// ```
/// use bolna_rate_limit::{Account, Policy, Principal, Quota};
///
/// let account = Account::user("u-17").in_organization("org-4");
/// assert_eq!(account.principal(), Principal::organization("org-4").as_ref());
///
/// // Made once, at start-up; cloning a policy copies a pointer.
/// let enterprise = Policy::bolna().quota("call", Quota::per_minute(5000)).build()?;
/// let account = account.with_policy(enterprise.clone());
/// # let mut request = http::Request::new(());
/// request.extensions_mut().insert(account);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Account {
    principal: Option<Principal>,
    policy: Option<Policy>,
}

impl Account {
    /// An account of that user, who belongs to no organization. An empty id identifies nobody.
    pub fn user(id: impl AsRef<str>) -> Self {
        Self { principal: Principal::user(id), policy: None }
    }

    /// The user belongs to that organization, which pays. An empty id is no organization: the user
    /// pays.
    pub fn in_organization(self, id: impl AsRef<str>) -> Self {
        Self { principal: Principal::organization(id).or(self.principal), ..self }
    }

    /// The account has limits of its own instead of the limiter's, exempt paths included. What its
    /// principal has spent stays spent when it changes plan, up to one full refill by the quota
    /// in force: so give all users of an organization one plan.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Who is billed: the organization, or else the user, or nobody if their ids are empty.
    #[must_use]
    pub const fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// The account's own limits, if it has any.
    #[must_use]
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }
}

/// An account that is billed to that principal.
impl From<Principal> for Account {
    fn from(principal: Principal) -> Self {
        Self { principal: Some(principal), policy: None }
    }
}

/// An account that is billed to that principal.
impl From<&Principal> for Account {
    fn from(principal: &Principal) -> Self {
        principal.clone().into()
    }
}

impl From<&Self> for Account {
    fn from(account: &Self) -> Self {
        account.clone()
    }
}
