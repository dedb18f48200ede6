//! Limits that have not been checked yet.

use crate::values::{Enforcement, QuotaBuilder, Scope};

/// A further limit of an endpoint, which has not been checked yet: see
/// [`PolicyBuilder::also`](super::PolicyBuilder::also) and
/// [`PolicyBuilder::shared`](super::PolicyBuilder::shared).
///
/// If one limit refuses a request, none of the limits is charged. The quota is a rate, or one of
/// [requests in flight](crate::Quota::concurrent).
///
/// ```
/// use bolna_rate_limit::policy::LimitBuilder;
/// use bolna_rate_limit::{Policy, Quota};
///
/// let policy = Policy::bolna()
///     // Of the 500 a minute of its organization, each user gets at most 100.
///     .also("call", LimitBuilder::user("call-user", Quota::per_minute(100)))
///     .also("call", LimitBuilder::account("call-day", Quota::per_day(20_000)))
///     // The service behind the limiter can handle 5,000 a minute.
///     .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(5_000)))
///     .build()?;
/// assert_eq!(policy.limits_of(bolna_rate_limit::Endpoint::CALL).count(), 4);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a limit does nothing until it is given to a policy"]
pub struct LimitBuilder {
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) quota: QuotaDraft,
    pub(super) cost: u32,
    pub(super) enforcement: Enforcement,
}

/// A quota, or a share of the quota of the endpoint's own limit.
#[derive(Clone, Copy, Debug)]
pub(super) enum QuotaDraft {
    Quota(QuotaBuilder),
    /// In percent.
    Share(u8),
}

impl LimitBuilder {
    /// A limit that counts the requests of an account: of the organization that is billed, or else
    /// of the user.
    pub fn account(name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        Self::new(name.into(), Scope::Account, QuotaDraft::Quota(quota.into()))
    }

    /// A limit that counts the requests of each user of an account. It does not apply to accounts
    /// that name no user. It applies to a user without an organization, too.
    pub fn user(name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        Self::new(name.into(), Scope::User, QuotaDraft::Quota(quota.into()))
    }

    /// A limit that counts the requests of all accounts together, to protect the service behind the
    /// limiter.
    ///
    /// Declare it in the limiter's policy. It then applies to all accounts, also to those that have
    /// a policy of their own. Their requests are charged to the limits for everyone that the
    /// limiter's policy has for the same path or, in
    /// [`check_endpoint`](crate::Limiter::check_endpoint), for an endpoint of the same name. In the
    /// policy of a single account such a limit has no effect.
    pub fn everyone(name: impl Into<String>, quota: impl Into<QuotaBuilder>) -> Self {
        Self::new(name.into(), Scope::Everyone, QuotaDraft::Quota(quota.into()))
    }

    /// Sets how many units of the limit a request costs: from 1, which is the default, to the
    /// quota's burst. In a limit of requests in flight, the cost is the number of places that a
    /// request takes. The request itself can have
    /// [another cost](crate::BolnaRateLimitLayer::cost).
    pub fn cost(self, units: u32) -> Self {
        Self { cost: units, ..self }
    }

    /// Sets on which principals the limit is enforced. Defaults to all of them.
    pub fn enforce(self, enforcement: Enforcement) -> Self {
        Self { enforcement, ..self }
    }

    pub(super) fn new(name: String, scope: Scope, quota: QuotaDraft) -> Self {
        Self { name, scope, quota, cost: 1, enforcement: Enforcement::FULL }
    }
}
