//! What identifies a bucket.

use std::fmt;
use std::sync::Arc;

use crate::values::{LimitName, Principal, Scope};

/// What identifies a bucket: the principal that it belongs to, the user within that principal if
/// the limit counts [each user](crate::values::Scope::User), and the name of the limit.
///
/// `Display` shows all three, each bucket differently, so the text can be a key.
///
/// ```
/// use bolna_rate_limit::Principal;
/// use bolna_rate_limit::store::Bucket;
/// use bolna_rate_limit::values::LimitName;
///
/// let organization = Principal::organization("org-4").expect("the id is not empty");
/// let user = Principal::user("u-17").expect("the id is not empty");
/// let bucket = Bucket::of_user(&organization, &user, LimitName::new("call-user")?);
/// assert_eq!(bucket.to_string(), r#"call-user: organization "org-4", user "u-17""#);
/// # Ok::<(), bolna_rate_limit::values::NameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket<'a> {
    principal: &'a Principal,
    user: Option<&'a Principal>,
    name: LimitName,
    scope: Scope,
}

impl<'a> Bucket<'a> {
    /// The bucket of a limit that counts each address.
    #[must_use]
    pub fn of_address(principal: &'a Principal, name: impl Into<LimitName>) -> Self {
        Self { principal, user: None, name: name.into(), scope: Scope::Address }
    }

    /// The bucket of a limit that counts an account.
    #[must_use]
    #[inline]
    pub fn of_account(principal: &'a Principal, name: impl Into<LimitName>) -> Self {
        Self { principal, user: None, name: name.into(), scope: Scope::Account }
    }

    /// The bucket of a limit that counts each user, for a user within the principal that is billed.
    /// The two are the same if the user is billed.
    #[must_use]
    pub fn of_user(
        principal: &'a Principal,
        user: &'a Principal,
        name: impl Into<LimitName>,
    ) -> Self {
        Self { principal, user: Some(user), name: name.into(), scope: Scope::User }
    }

    /// The bucket of a limit that counts everyone together.
    #[must_use]
    pub fn of_everyone(name: impl Into<LimitName>) -> Self {
        let principal = Principal::everyone();
        Self { principal, user: None, name: name.into(), scope: Scope::Everyone }
    }

    /// The principal that the bucket belongs to. The bucket of a limit for
    /// [everyone](crate::values::Scope::Everyone) belongs to a principal of a kind that no account
    /// can have.
    #[must_use]
    #[inline]
    pub const fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// The user within the principal, if the limit counts each user.
    #[must_use]
    #[inline]
    pub const fn user(&self) -> Option<&'a Principal> {
        self.user
    }

    /// The name of the limit.
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
}

impl fmt::Display for Bucket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, user, name, scope } = self;
        if *scope == Scope::Everyone {
            return write!(f, "{name}: everyone");
        }
        // Ids are quoted and escaped, so that no id can imitate another bucket.
        write!(f, "{name}: {} {:?}", principal.kind(), principal.id().as_str())?;
        user.map_or(Ok(()), |user| write!(f, ", {} {:?}", user.kind(), user.id().as_str()))
    }
}

/// A bucket of one principal's charges, without the principal. It does not tell an address's bucket
/// from an account's: no two limits of a policy have the same name.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnedBucket {
    pub(crate) name: LimitName,
    whose: Whose,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Whose {
    Account,
    /// Shared, because accounts' buckets, which are most, have room for it too.
    User(Arc<Principal>),
    Everyone,
}

impl OwnedBucket {
    /// The bucket, for charges of `principal`, which it belongs to unless it is everyone's.
    pub(crate) fn of(bucket: Bucket<'_>) -> Self {
        let whose = match bucket.user {
            Some(user) => Whose::User(Arc::new(user.clone())),
            None if bucket.scope == Scope::Everyone => Whose::Everyone,
            None => Whose::Account,
        };
        Self { name: bucket.name, whose }
    }

    /// The bucket, as one of a charge of `principal`.
    pub(crate) fn borrow<'a>(&'a self, principal: &'a Principal) -> Bucket<'a> {
        match &self.whose {
            Whose::Account => Bucket::of_account(principal, self.name),
            Whose::User(user) => Bucket::of_user(principal, user, self.name),
            Whose::Everyone => Bucket::of_everyone(self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Bucket, OwnedBucket};
    use crate::values::{Endpoint, LimitName, Principal};

    #[test]
    fn every_bucket_is_shown_differently_and_survives_being_owned() {
        let ids = ["a", "a\", user \"b", "b", "b, call", "everyone", "user a"];
        let users = ids.map(|id| Principal::user(id).expect("not empty"));
        let organizations = ids.map(|id| Principal::organization(id).expect("not empty"));
        let all = || users.iter().chain(&organizations);
        let mut shown = HashSet::new();
        let names = [LimitName::from(Endpoint::CALL), LimitName::from(Endpoint::AGENT)];
        for name in names {
            let of_users =
                all().flat_map(|it| users.iter().map(move |user| Bucket::of_user(it, user, name)));
            let of_accounts = all().map(|it| Bucket::of_account(it, name));
            for bucket in of_users.chain(of_accounts).chain([Bucket::of_everyone(name)]) {
                let owned = OwnedBucket::of(bucket);
                assert_eq!(owned.borrow(bucket.principal()), bucket);
                shown.insert(bucket.to_string());
            }
        }
        assert_eq!(shown.len(), 2 * (12 * 6 + 12 + 1));
    }
}
