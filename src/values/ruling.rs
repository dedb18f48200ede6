//! What was decided about one request, and what comes of it.

use std::fmt;

use super::decision::Decision;
use super::endpoint::Endpoint;

/// What was decided about one request as a whole, and what comes of it.
///
/// A [`Decision`] is what the limit says. A ruling says besides whether that is enforced, whether
/// the request is admitted, and what a [candidate](crate::Limiter::set_candidate) policy would have
/// decided.
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
/// // In shadow mode the request goes on all the same.
/// assert!(second.is_admitted());
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    found: Found,
    enforced: bool,
    admitted: bool,
    candidate: Option<Decision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Decision(Decision),
    NoAccount,
    NoStore(Endpoint),
}

/// What the limiter found out about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// It is within its quota.
    Allowed,
    /// The quota is used up.
    Limited,
    /// An operator has [blocked](crate::Limiter::block) it.
    Blocked,
    /// It has no account, so there is no principal to bill.
    Unidentified,
    /// The store could not be asked.
    StoreFailed,
}

impl Ruling {
    /// About a request that is admitted if the limit allows it, or where that is not enforced.
    #[inline]
    pub(crate) const fn of_decision(
        decision: Decision,
        enforced: bool,
        candidate: Option<Decision>,
    ) -> Self {
        let admitted = decision.is_allowed() || !enforced;
        Self { found: Found::Decision(decision), enforced, admitted, candidate }
    }

    /// About a request that has no account. Enforcement has no part in it.
    pub(crate) const fn unidentified(admitted: bool) -> Self {
        Self { found: Found::NoAccount, enforced: true, admitted, candidate: None }
    }

    /// About a request for which the store could not be asked.
    pub(crate) const fn store_failed(
        endpoint: Endpoint,
        enforced: bool,
        admits: bool,
        candidate: Option<Decision>,
    ) -> Self {
        Self { found: Found::NoStore(endpoint), enforced, admitted: admits || !enforced, candidate }
    }

    /// What the limiter found out about the request.
    #[must_use]
    #[inline]
    pub const fn outcome(&self) -> Outcome {
        match &self.found {
            Found::Decision(decision) if decision.is_allowed() => Outcome::Allowed,
            Found::Decision(decision) if decision.is_blocked() => Outcome::Blocked,
            Found::Decision(_) => Outcome::Limited,
            Found::NoAccount => Outcome::Unidentified,
            Found::NoStore(_) => Outcome::StoreFailed,
        }
    }

    /// Whether the request goes on: because the limit allows it, because the limit is not enforced
    /// on its principal, or because the operator has chosen to admit requests about which no limit
    /// can decide.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Whether the limit allows the request, whether that is enforced or not. `false` if there is
    /// no [decision](Self::decision).
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self.outcome(), Outcome::Allowed)
    }

    /// Whether what the limit says is enforced. See [`Enforcement`](crate::Enforcement). A request
    /// without an account is in no mode: this is `true`.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// The endpoint that the request is billed to. `None` if it is unidentified.
    #[must_use]
    #[inline]
    pub const fn endpoint(&self) -> Option<Endpoint> {
        match &self.found {
            Found::Decision(decision) => Some(decision.endpoint()),
            Found::NoAccount => None,
            Found::NoStore(endpoint) => Some(*endpoint),
        }
    }

    /// What the limit says. `None` if the request is unidentified or the store could not be asked.
    #[must_use]
    #[inline]
    pub const fn decision(&self) -> Option<&Decision> {
        match &self.found {
            Found::Decision(decision) => Some(decision),
            Found::NoAccount | Found::NoStore(_) => None,
        }
    }

    /// What the candidate policy would have decided, if there is one and it was asked. The
    /// decision's endpoint is the candidate's.
    #[must_use]
    pub const fn candidate(&self) -> Option<&Decision> {
        self.candidate.as_ref()
    }
}

impl Outcome {
    /// A word for it that can be a metric's label: `allowed`, `limited`, `blocked`, `unidentified`
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
