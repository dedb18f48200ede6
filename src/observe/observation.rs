//! What observers receive about one request.

use std::time::Duration;

use crate::store::StoreError;
use crate::values::{Principal, Ruling};

/// What was decided about one request, and who is billed for it.
///
/// The [example of `Observer`](super::Observer) reads it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Observation<'a> {
    /// Who is billed. For an unidentified request it is the address, if a limit counts addresses,
    /// and else `None`.
    ///
    /// Do not use it as a metric's label: there are as many principals as there are customers.
    pub principal: Option<&'a Principal>,
    /// The user of the account, if a limit of the request or of the candidate counts each
    /// [user](crate::values::Scope::User); otherwise `None`, even if the account names a user. For
    /// an account without an organization it equals `principal`.
    pub user: Option<&'a Principal>,
    /// What was decided, and what comes of it.
    pub ruling: &'a Ruling,
    /// Why the store failed, if that is the [outcome](Ruling::outcome).
    pub error: Option<&'a StoreError>,
    /// The time that the store took to answer; with a candidate, the time until both answers were
    /// there. `None` if it answered at once, as a store in this process always does.
    pub waited: Option<Duration>,
}

impl<'a> Observation<'a> {
    #[inline]
    pub(crate) const fn new(
        principal: Option<&'a Principal>,
        ruling: &'a Ruling,
        error: Option<&'a StoreError>,
        waited: Option<Duration>,
    ) -> Self {
        Self { principal, user: None, ruling, error, waited }
    }

    /// The same of that user within the principal.
    #[inline]
    pub(crate) const fn with_user(self, user: Option<&'a Principal>) -> Self {
        Self { user, ..self }
    }
}
