//! What authentication knows about a caller.

use super::Policy;
use crate::values::{IntoId, Kind, Principal};

/// Who is calling: a user, perhaps within an organization, perhaps with limits of its own.
///
/// Authentication makes one and inserts it into the request's extensions, where the limiter finds
/// it. An id is anything that displays: a text, a number, a UUID. An `Option` of these is taken as
/// it comes from a database.
///
/// ```
/// use bolna_rate_limit::{Account, Policy, Principal, Quota};
///
/// let account = Account::user("u-17").in_organization("org-4");
/// assert_eq!(account.principal(), Principal::organization("org-4").as_ref());
/// assert_eq!(account.user_principal(), Principal::user("u-17").as_ref());
///
/// let (user, organization): (u64, Option<u64>) = (17, None);
/// let account = Account::user(user).in_organization(organization);
/// assert_eq!(account.principal(), Principal::user("17").as_ref());
///
/// // Made once, at start-up; cloning a policy copies a pointer.
/// let enterprise = Policy::bolna().quota("call", Quota::per_minute(5000)).build()?;
/// let account = account.with_policy(enterprise.clone());
/// # let mut request = http::Request::new(());
/// request.extensions_mut().insert(account);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Account {
    /// Who is billed.
    principal: Option<Principal>,
    /// The user, where an organization is billed.
    member: Option<Principal>,
    policy: Option<Policy>,
}

impl Account {
    /// An account of that user, who belongs to no organization. An empty id, or none, identifies no
    /// user.
    pub fn user<M>(id: impl IntoId<M>) -> Self {
        Self { principal: Principal::user(id), member: None, policy: None }
    }

    /// The user belongs to that organization, which is billed. An empty id, or none, is no
    /// organization: the user is billed.
    pub fn in_organization<M>(self, id: impl IntoId<M>) -> Self {
        match Principal::organization(id) {
            organization @ Some(_) => {
                let member = self.user_principal().cloned();
                Self { principal: organization, member, ..self }
            }
            None => self,
        }
    }

    /// The account has limits of its own instead of the limiter's, exempt paths included. The units
    /// that its principal has spent stay spent when its policy changes, up to one full refill by
    /// the new quota: so give all users of an organization the same policy.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Who is billed: the organization, or else the user. `None` if both ids are empty: the account
    /// is unidentified.
    #[must_use]
    #[inline]
    pub const fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// The user, whether an organization is billed or not.
    #[must_use]
    pub fn user_principal(&self) -> Option<&Principal> {
        let user = |principal: &&Principal| principal.kind() == Kind::USER;
        self.member.as_ref().or_else(|| self.principal.as_ref().filter(user))
    }

    /// The account's own limits, if it has any.
    #[must_use]
    #[inline]
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }
}

/// An account that is billed to that principal.
impl From<Principal> for Account {
    fn from(principal: Principal) -> Self {
        Self { principal: Some(principal), member: None, policy: None }
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
