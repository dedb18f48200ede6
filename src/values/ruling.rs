//! What was decided about one request as a whole.

use std::fmt;

use super::decision::Decision;
use super::endpoint::Endpoint;

/// What was decided about one request as a whole, and what comes of it.
///
/// It holds the [`Decision`] of the limit, or the reason why there is none. And it says whether the
/// limit is enforced on the principal, whether the request is admitted, and what a
/// [candidate](crate::Limiter::set_candidate) policy would have decided.
///
/// ```
/// use bolna_rate_limit::{Account, Enforcement, Limiter, Policy, Quota};
///
/// let policy = Policy::bolna().quota("call", Quota::per_minute(1)).build()?;
/// let limiter = Limiter::new(policy);
/// limiter.set_enforcement(Enforcement::SHADOW);
/// let caller = Account::user("u-17");
///
/// let first = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// let second = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// assert!(first.is_allowed() && !second.is_allowed());
/// // In shadow mode the request is admitted all the same.
/// assert!(second.is_admitted());
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    found: Finding,
    enforced: bool,
    admitted: bool,
    candidate: Option<Decision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Decision(Decision),
    NoAccount,
    NoStore(Endpoint),
}

/// What the limiter found out about a request, enforced or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// The request is within its quota.
    Allowed,
    /// The quota is used up.
    Limited,
    /// An operator has [blocked](crate::Limiter::block) the principal's requests to the endpoint.
    Blocked,
    /// The request has no account, so there is no principal to bill.
    Unidentified,
    /// The store failed, so no limit has decided.
    StoreFailed,
}

impl Ruling {
    /// For a request about which a limit has decided. It is admitted if the limit allows it or is
    /// not enforced.
    #[inline]
    pub(crate) const fn of_decision(
        decision: Decision,
        enforced: bool,
        candidate: Option<Decision>,
    ) -> Self {
        let admitted = decision.is_allowed() || !enforced;
        Self { found: Finding::Decision(decision), enforced, admitted, candidate }
    }

    /// For a request without an account. Enforcement plays no part in it.
    pub(crate) const fn unidentified(admitted: bool) -> Self {
        Self { found: Finding::NoAccount, enforced: true, admitted, candidate: None }
    }

    /// For a request for which the store failed. `admits` is the operator's choice for that case.
    pub(crate) const fn store_failed(
        endpoint: Endpoint,
        enforced: bool,
        admits: bool,
        candidate: Option<Decision>,
    ) -> Self {
        Self {
            found: Finding::NoStore(endpoint),
            enforced,
            admitted: admits || !enforced,
            candidate,
        }
    }

    /// What the limiter found out about the request.
    #[must_use]
    #[inline]
    pub const fn outcome(&self) -> Outcome {
        match &self.found {
            Finding::Decision(decision) if decision.is_allowed() => Outcome::Allowed,
            Finding::Decision(decision) if decision.is_blocked() => Outcome::Blocked,
            Finding::Decision(_) => Outcome::Limited,
            Finding::NoAccount => Outcome::Unidentified,
            Finding::NoStore(_) => Outcome::StoreFailed,
        }
    }

    /// Whether the request is admitted. It is if
    ///
    /// * the limit allows it,
    /// * the limit is not enforced on its principal, or
    /// * no limit can decide, and the operator has chosen to admit such requests
    ///   ([`OnUnidentified`](crate::OnUnidentified), [`OnStoreFailure`](crate::OnStoreFailure)).
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Whether the limit allows the request, enforced or not. `false` if there is no
    /// [decision](Self::decision).
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self.outcome(), Outcome::Allowed)
    }

    /// Whether the limit is [enforced](crate::Enforcement) on the request's principal. `true` for
    /// an unidentified request, to which enforcement does not apply.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// The endpoint that the request is charged to. `None` if the request is unidentified.
    #[must_use]
    #[inline]
    pub const fn endpoint(&self) -> Option<Endpoint> {
        match &self.found {
            Finding::Decision(decision) => Some(decision.endpoint()),
            Finding::NoAccount => None,
            Finding::NoStore(endpoint) => Some(*endpoint),
        }
    }

    /// What the limit says. `None` if the request is unidentified or the store failed.
    #[must_use]
    #[inline]
    pub const fn decision(&self) -> Option<&Decision> {
        match &self.found {
            Finding::Decision(decision) => Some(decision),
            Finding::NoAccount | Finding::NoStore(_) => None,
        }
    }

    /// What the candidate policy would have decided. The endpoint of this decision is the
    /// candidate's. `None` without a candidate, and for requests for which the candidate is
    /// [not evaluated](crate::Limiter::set_candidate).
    #[must_use]
    pub const fn candidate(&self) -> Option<&Decision> {
        self.candidate.as_ref()
    }
}

impl Outcome {
    /// The outcome as a word for a metric's label: `allowed`, `limited`, `blocked`, `unidentified`
    /// or `store_failed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Limited => "limited",
            Self::Blocked => "blocked",
            Self::Unidentified => "unidentified",
            Self::StoreFailed => "store_failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
