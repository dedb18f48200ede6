//! Finding out who pays from a type of the user's own.

use http::Extensions;

use crate::account::Account;
use crate::principal::Principal;

/// Tells from a request's extensions who pays, for services whose authentication inserts a type of
/// its own.
///
/// Any closure `Fn(&Extensions) -> Option<Principal>` does:
///
/// ```
/// use bolna_rate_limit::{BolnaRateLimitLayer, Principal};
/// use http::Extensions;
///
/// #[derive(Clone)]
/// struct Claims { organization: String }
///
/// let layer = BolnaRateLimitLayer::new().identify(|extensions: &Extensions| {
///     Principal::organization(&extensions.get::<Claims>()?.organization)
/// });
/// ```
///
/// Implement the trait to give some callers limits of their own as well.
pub trait Identify: Send + Sync + 'static {
    /// Who is calling, or `None` if nobody is identified.
    fn account(&self, extensions: &Extensions) -> Option<Account>;
}

impl<F> Identify for F
where
    F: Fn(&Extensions) -> Option<Principal> + Send + Sync + 'static,
{
    fn account(&self, extensions: &Extensions) -> Option<Account> {
        self(extensions).map(Account::from)
    }
}
