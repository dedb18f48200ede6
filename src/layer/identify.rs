//! Finding the account of a request from its head.

use http::request::Parts;

use crate::policy::Account;
use crate::values::Principal;

/// Finds the account of a request from the request's head: for services whose authentication
/// inserts a type of its own, or sets a header field.
///
/// Often a closure is enough: [`identify`](crate::BolnaRateLimitLayer::identify). Or implement this
/// trait for a type of your own, and set it with
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
/// It runs on the request path and must not block. If a look-up is needed, for example in a
/// database, write a layer of your own that awaits it and inserts the [`Account`], and put that
/// layer outside of this one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Identify`",
    label = "`identify_with` takes a type that implements `Identify`",
    note = "a closure on the request's head goes to `identify`"
)]
pub trait Identify: Send + Sync + 'static {
    /// The account of the request. `None` if the request is unidentified.
    fn account(&self, head: &Parts) -> Option<Account>;
}

/// Types that a closure for [`identify`](crate::BolnaRateLimitLayer::identify) can return: an
/// [`Account`], a [`Principal`], or an `Option` of either.
///
/// ```
/// use bolna_rate_limit::{Account, BolnaRateLimitLayer, Principal};
///
/// # #[derive(Clone)] struct User { id: u64, organization: Option<u64> }
/// let layer = BolnaRateLimitLayer::new();
/// // `Option<Principal>`: a header field that a gateway sets.
/// let by_header = layer.clone().identify(|head| {
///     Principal::organization(head.headers.get("x-organization")?.to_str().ok()?)
/// });
/// // `Account`: without a user and an organization it is unidentified.
/// let by_user = layer.identify(|head| {
///     let user = head.extensions.get::<User>();
///     Account::user(user.map(|user| user.id))
///         .in_organization(user.and_then(|user| user.organization))
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be turned into an account",
    label = "the closure returns this",
    note = "it must return an `Account`, a `Principal`, or an `Option` of either; a future can't \
            be awaited here: look things up in a layer outside of this one"
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

/// A closure as an [`Identify`].
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
