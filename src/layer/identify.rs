//! Finding out who is calling from the head of a request.

use http::request::Parts;

use crate::policy::Account;
use crate::values::Principal;

/// Finds out from a request's head who is calling, for services whose authentication inserts a type
/// of its own, or sets a header field.
///
/// A closure is enough for [`identify`](crate::BolnaRateLimitLayer::identify). Implement the trait
/// for a type with a name, and set it with
/// [`identify_with`](crate::BolnaRateLimitLayer::identify_with):
///
/// ```
/// use bolna_rate_limit::{Account, BolnaRateLimitLayer};
/// use bolna_rate_limit::layer::Identify;
/// use http::request::Parts;
///
/// #[derive(Clone)]
/// struct Claims { user: u64, organization: Option<u64> }
///
/// struct ByClaims;
///
/// impl Identify for ByClaims {
///     fn account(&self, head: &Parts) -> Option<Account> {
///         let claims = head.extensions.get::<Claims>()?;
///         Some(Account::user(claims.user).in_organization(claims.organization))
///     }
/// }
///
/// let layer = BolnaRateLimitLayer::new().identify_with(ByClaims);
/// ```
///
/// It runs on the request path and must not block. If a look-up is needed, in a database say, do it
/// in a layer of your own outside of this one, which can wait, and insert the [`Account`] there.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Identify`",
    label = "`identify_with` takes a type that implements `Identify`",
    note = "a closure on the request's head goes to `identify`"
)]
pub trait Identify: Send + Sync + 'static {
    /// Who is calling, or `None` if the request is unidentified.
    fn account(&self, head: &Parts) -> Option<Account>;
}

/// What a closure that [identifies](crate::BolnaRateLimitLayer::identify) may return: an
/// [`Account`], a [`Principal`], or an `Option` of either.
#[diagnostic::on_unimplemented(
    message = "`{Self}` says nothing about who is calling",
    label = "the closure returns this",
    note = "it returns an `Account`, a `Principal`, or an `Option` of either; a closure that \
            returns a future can't be awaited here: look things up in a layer outside of this one"
)]
pub trait IntoAccount {
    /// The account, or `None` if the request is unidentified.
    fn into_account(self) -> Option<Account>;
}

impl IntoAccount for Account {
    fn into_account(self) -> Option<Account> {
        Some(self)
    }
}

impl IntoAccount for Principal {
    fn into_account(self) -> Option<Account> {
        Some(self.into())
    }
}

impl<T: Into<Account>> IntoAccount for Option<T> {
    fn into_account(self) -> Option<Account> {
        self.map(Into::into)
    }
}

/// A closure that identifies.
pub(super) struct ByClosure<F>(pub(super) F);

impl<F, R> Identify for ByClosure<F>
where
    F: Fn(&Parts) -> R + Send + Sync + 'static,
    R: IntoAccount,
{
    fn account(&self, head: &Parts) -> Option<Account> {
        (self.0)(head).into_account()
    }
}
