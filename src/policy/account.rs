//! Accounts: what authentication knows about a caller.

use super::Policy;
use crate::values::{IdText, IntoId, Kind, Principal};

/// What authentication knows about a caller: the user, perhaps the organization, and perhaps a
/// policy of its own.
///
/// Authentication makes an account and inserts it into the request's extensions, where the layer
/// finds it. An id is any type that implements `Display`, such as a text, a number or a UUID, or an
/// `Option` of one, as a database may return it.
///
/// ```
/// use bolna_rate_limit::{Account, Policy, Principal, Quota};
///
/// let account = Account::user("u-17").in_organization("org-4");
/// assert_eq!(account.principal(), Principal::organization("org-4").as_ref());
/// assert_eq!(account.user_principal(), Principal::user("u-17"));
///
/// let (user, organization): (u64, Option<u64>) = (17, None);
/// let account = Account::user(user).in_organization(organization);
/// assert_eq!(account.principal(), Principal::user("17").as_ref());
///
/// // An API key that belongs to an organization, and to no user of it.
/// let account = Account::organization("org-4");
/// assert_eq!(account.user_principal(), None);
///
/// // Make it once, at the start: cloning a policy copies a pointer.
/// let enterprise = Policy::bolna().quota("call", Quota::per_minute(5000)).build()?;
/// let account = account.with_policy(enterprise.clone());
/// # let mut request = http::Request::new(());
/// request.extensions_mut().insert(account);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Account {
    /// Who is billed. `None` for an unidentified caller.
    principal: Option<Principal>,
    /// The id of the user, if an organization is billed. Its fingerprint is not kept: it would make
    /// every account larger, and is not needed to bill the organization.
    member: Option<IdText>,
    policy: Option<Policy>,
}

impl Account {
    /// An account of that user, without an organization. If the id is
    /// [empty or white space](crate::values::Id) or `None`, the account names no user.
    ///
    /// A [`Principal`] displays too, but is not an id: make an account of it with `Account::from`.
    pub fn user<M>(id: impl IntoId<M>) -> Self {
        Self { principal: Principal::user(id), member: None, policy: None }
    }

    /// An account of that organization, of which the user is not known: limits of each user do not
    /// apply to it. If the id is [empty or white space](crate::values::Id) or `None`, the account
    /// names no organization.
    pub fn organization<M>(id: impl IntoId<M>) -> Self {
        Self { principal: Principal::organization(id), member: None, policy: None }
    }

    /// Sets the organization of the user. The organization is billed then. If the id is
    /// [empty or white space](crate::values::Id) or `None`, nothing changes: the user is billed.
    ///
    /// Of an account that was made from a principal of another kind, such as an address, that
    /// principal is not kept.
    pub fn in_organization<M>(self, id: impl IntoId<M>) -> Self {
        match Principal::organization(id) {
            organization @ Some(_) => {
                let member = self.user_id().cloned();
                Self { principal: organization, member, ..self }
            }
            None => self,
        }
    }

    /// Sets a policy for this account, which applies instead of the limiter's, exempt paths
    /// included.
    ///
    /// A principal keeps its buckets when its policy changes: the time at which a bucket is full
    /// again stays the same, but is at most one full refill, by the new quota, ahead. So give all
    /// users of an organization the same policy, since they share its buckets. A customer that has
    /// spent all of 5 a minute and gets 50 a minute has 0 of 50 at first; to begin with a full
    /// bucket, [reset](crate::Limiter::reset) it.
    ///
    /// Limits for everyone always come from the limiter's policy, with its enforcement. Only exempt
    /// paths of the account's policy are exempt from them too. [`Policy::unlimited`] is for
    /// accounts that are not limited at all.
    ///
    /// The policy of an account that names no principal is ignored.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// The principal that is billed: the organization, or else the user. `None` if the account has
    /// neither. Its requests are unidentified then.
    #[must_use]
    #[inline]
    pub const fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// The user, whether an organization is billed or not. `None` if the account names no user.
    #[must_use]
    pub fn user_principal(&self) -> Option<Principal> {
        self.user_id().cloned().map(Principal::of_user)
    }

    /// The id of the user.
    fn user_id(&self) -> Option<&IdText> {
        let user = |principal: &&Principal| principal.kind() == Kind::USER;
        let alone = || self.principal.as_ref().filter(user).map(|user| user.id().text());
        self.member.as_ref().or_else(alone)
    }

    /// The account's own policy, if it has one.
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
