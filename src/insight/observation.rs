//! What was decided about one request.

use std::fmt;
use std::time::Duration;

use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::store::StoreError;

/// What was decided about one request, and what came of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Observation<'a> {
    /// Who pays. `None` if nobody is identified.
    ///
    /// Not for a metric's label: there are as many as there are customers.
    pub principal: Option<&'a Principal>,
    /// What the request is billed to. `None` if nobody is identified.
    pub endpoint: Option<Endpoint>,
    /// What the limiter says.
    pub outcome: Outcome<'a>,
    /// Whether what it says is enforced.
    pub mode: Mode,
    /// Whether the request goes on: because it is within its limit, because that is not enforced,
    /// or because the operator has chosen to [admit without a
    /// limit](crate::Fallback::AdmitWithoutLimit).
    pub admitted: bool,
    /// What the [candidate](crate::Limiter::set_candidate) would have said, if there is one and it
    /// was asked. Its endpoint is the candidate's.
    pub candidate: Option<Decision>,
    /// How long the store took. `None` if it had the answer at once, as one in this process always
    /// has.
    pub waited: Option<Duration>,
}

/// What the limiter says about a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It is within its quota.
    Allowed(Decision),
    /// The quota is used up.
    Limited(Decision),
    /// An operator has [blocked](crate::Limiter::block) it.
    Blocked(Decision),
    /// Nobody is identified, so nobody can be billed.
    Unidentified,
    /// The store could not be asked.
    StoreFailed(&'a StoreError),
}

impl<'a> Outcome<'a> {
    pub(crate) fn of(answer: &'a Result<Decision, StoreError>) -> Self {
        match answer {
            Ok(decision) if decision.is_allowed() => Self::Allowed(*decision),
            Ok(decision) if decision.is_blocked() => Self::Blocked(*decision),
            Ok(decision) => Self::Limited(*decision),
            Err(error) => Self::StoreFailed(error),
        }
    }

    /// A word for it that can be a metric's label: `allowed`, `limited`, `blocked`, `unidentified`
    /// or `store_failed`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Limited(_) => "limited",
            Self::Blocked(_) => "blocked",
            Self::Unidentified => "unidentified",
            Self::StoreFailed(_) => "store_failed",
        }
    }

    /// The decision, if there is one.
    #[must_use]
    pub const fn decision(&self) -> Option<Decision> {
        match self {
            Self::Allowed(decision) | Self::Limited(decision) | Self::Blocked(decision) => {
                Some(*decision)
            }
            Self::Unidentified | Self::StoreFailed(_) => None,
        }
    }
}

/// Whether what the limiter says about a request is enforced. See
/// [`Enforcement`](crate::Enforcement).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Whoever is over the limit is refused.
    Enforced,
    /// The request goes on whatever the limiter says.
    Shadow,
}

impl Mode {
    /// A word for it that can be a metric's label: `enforced` or `shadow`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Shadow => "shadow",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
