//! Finding out who pays from a type of the user's own.

use http::Extensions;

use crate::policy::Policy;
use crate::principal::Principal;

/// Tells from a request's extensions who pays, for services whose authentication inserts a type of its own.
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
    /// Who pays, or `None` if nobody is identified.
    fn principal(&self, extensions: &Extensions) -> Option<Principal>;

    /// The caller's own limits. By default nobody has any, and the limiter's apply.
    fn policy(&self, extensions: &Extensions) -> Option<Policy> {
        let _ = extensions;
        None
    }
}

impl<F> Identify for F
where
    F: Fn(&Extensions) -> Option<Principal> + Send + Sync + 'static,
{
    fn principal(&self, extensions: &Extensions) -> Option<Principal> {
        self(extensions)
    }
}
