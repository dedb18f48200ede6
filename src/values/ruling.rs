//! What was decided about one request as a whole.

use std::fmt;
use std::mem;
use std::time::Duration;

use super::charge::Decisions;
use super::decision::Decision;
use super::endpoint::Endpoint;
use super::limit::Limit;

/// What all limits of one request say together, and what comes of it.
///
/// It holds the [`Decision`] of each limit, or the reason why there is none. And it says on which
/// of them enforcement applies, whether the request is admitted, and what a
/// [candidate](crate::Limiter::set_candidate) policy would have decided.
///
/// ```
/// use bolna_rate_limit::{Account, Enforcement, Limiter, Policy, Quota};
/// use bolna_rate_limit::policy::LimitBuilder;
///
/// let policy = Policy::bolna()
///     .quota("call", Quota::per_minute(2))
///     .also("call", LimitBuilder::user("call-user", Quota::per_minute(1)))
///     .build()?;
/// let limiter = Limiter::new(policy);
/// let caller = Account::user("u-17").in_organization("org-4");
///
/// let first = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// let second = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// assert!(first.is_admitted() && !second.is_admitted());
/// // The user's limit refuses, and the organization's was not charged for that.
/// let violated: Vec<_> = second.violated().map(|decision| decision.name().name()).collect();
/// assert_eq!(violated, ["call-user"]);
/// assert_eq!(second.decisions()[0].remaining(), 1);
///
/// limiter.set_enforcement(Enforcement::SHADOW);
/// let third = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// // In shadow mode the request is admitted all the same.
/// assert!(!third.is_allowed() && third.is_admitted());
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    finding: Finding,
    endpoint: Option<Endpoint>,
    enforced: Enforced,
    admitted: bool,
    candidate: Option<Decisions>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Decisions(Decisions),
    /// The request has no account. If there is a limit for addresses, it has decided.
    NoAccount(Option<Decisions>),
    NoStore,
    TooCostly(Limit, u32),
    /// The path is charged to more limits than fit into one charge.
    TooAmbiguous,
    /// The account has a policy without limits.
    NoLimit,
}

/// Which of a charge's limits are enforced: a bit for each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enforced(u16);

impl Enforced {
    pub(crate) const ALL: Self = Self(u16::MAX);
    pub(crate) const NONE: Self = Self(0);

    /// All or none.
    #[inline]
    pub(crate) const fn all_if(enforced: bool) -> Self {
        if enforced { Self::ALL } else { Self::NONE }
    }

    pub(crate) const fn set(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    #[inline]
    pub(crate) const fn has(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    /// The decisions of the limits that are enforced.
    pub(crate) fn among(self, decisions: &[Decision]) -> impl Iterator<Item = &Decision> + Clone {
        let each = decisions.iter().enumerate();
        each.filter(move |(index, _)| self.has(*index)).map(|(_, decision)| decision)
    }
}

/// What the limiter found out about a request, enforced or not.
///
/// ```
/// use bolna_rate_limit::values::Outcome;
/// use bolna_rate_limit::{Account, Endpoint, Limiter};
///
/// # tokio_test::block_on(async {
/// let (limiter, caller) = (Limiter::default(), Account::user("u-17"));
/// limiter.block(&caller, Endpoint::CALL, std::time::Duration::from_secs(3600)).await?;
/// let ruling = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// let advice = match ruling.outcome() {
///     Outcome::Blocked => "ask the support",
///     Outcome::Limited => "wait",
///     Outcome::Unidentified => "log in",
///     Outcome::TooCostly => "ask for less",
///     _ => "",
/// };
/// assert_eq!(advice, "ask the support");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// The request is within all its quotas.
    Allowed,
    /// A quota does not suffice.
    Limited,
    /// An operator has [blocked](crate::Limiter::block) the principal's requests to the endpoint.
    Blocked,
    /// The request has no account, so there is no principal to bill, and it is within the limit for
    /// addresses, if there is one.
    Unidentified,
    /// The store failed, so no limit has decided.
    StoreFailed,
    /// The request costs more units than the bucket of a limit can hold, so it would be refused
    /// however long the caller waits. Nothing was charged.
    TooCostly,
    /// Servers could read the path in so many ways that the request would be charged to more limits
    /// than the store can charge at once, at most [16](crate::store::Charge::MAX_ENTRIES). So it is
    /// refused, in shadow mode too. Nothing was charged.
    TooAmbiguous,
}

impl Ruling {
    /// For a request about which one limit has decided, which is enforced.
    #[inline(always)]
    pub(crate) fn of_one(endpoint: Endpoint, decisions: Decisions) -> Self {
        let admitted = decisions.first().is_allowed();
        let (finding, endpoint) = (Finding::Decisions(decisions), Some(endpoint));
        Self { finding, endpoint, enforced: Enforced::ALL, admitted, candidate: None }
    }

    /// For a request about which limits have decided. It is admitted unless one of them that is
    /// enforced does not allow it.
    #[inline]
    pub(crate) fn of_decisions(
        endpoint: Endpoint,
        decisions: Decisions,
        enforced: Enforced,
        candidate: Option<Decisions>,
    ) -> Self {
        let admitted = !is_violated(decisions.as_slice(), enforced);
        let finding = Finding::Decisions(decisions);
        Self { finding, endpoint: Some(endpoint), enforced, admitted, candidate }
    }

    /// For a request without an account.
    #[inline]
    pub(crate) const fn without_account(admits: bool) -> Self {
        let (finding, enforced) = (Finding::NoAccount(None), Enforced::ALL);
        Self { finding, endpoint: None, enforced, admitted: admits, candidate: None }
    }

    /// For a request without an account, and what the limit for addresses says, if there is one.
    /// Enforcement concerns that limit only.
    pub(crate) fn unidentified(
        admits: bool,
        decisions: Option<Decisions>,
        enforced: Enforced,
    ) -> Self {
        let is_violated = decisions.as_ref().is_some_and(|it| is_violated(it.as_slice(), enforced));
        Self {
            finding: Finding::NoAccount(decisions),
            endpoint: None,
            enforced,
            admitted: admits && !is_violated,
            candidate: None,
        }
    }

    /// For a request for which the store failed. `admits` is the operator's choice for that case.
    pub(crate) const fn store_failed(
        endpoint: Option<Endpoint>,
        enforced: Enforced,
        admits: bool,
        candidate: Option<Decisions>,
    ) -> Self {
        let admitted = admits || enforced.0 == 0;
        Self { finding: Finding::NoStore, endpoint, enforced, admitted, candidate }
    }

    /// For a request that costs more units than the bucket of a limit can hold.
    pub(crate) const fn too_costly(
        endpoint: Endpoint,
        limit: Limit,
        cost: u32,
        enforced: bool,
    ) -> Self {
        Self {
            finding: Finding::TooCostly(limit, cost),
            endpoint: Some(endpoint),
            enforced: Enforced::all_if(enforced),
            admitted: !enforced,
            candidate: None,
        }
    }

    /// For a request whose path is charged to more limits than fit into one charge. Enforcement
    /// does not matter: the request is refused.
    pub(crate) const fn too_ambiguous(endpoint: Endpoint) -> Self {
        Self {
            finding: Finding::TooAmbiguous,
            endpoint: Some(endpoint),
            enforced: Enforced::ALL,
            admitted: false,
            candidate: None,
        }
    }

    /// For work of an account whose policy has no limits.
    pub(crate) const fn without_limits(endpoint: Endpoint) -> Self {
        let (finding, enforced) = (Finding::NoLimit, Enforced::NONE);
        Self { finding, endpoint: Some(endpoint), enforced, admitted: true, candidate: None }
    }

    /// What the limiter found out about the request.
    #[must_use]
    #[inline]
    pub fn outcome(&self) -> Outcome {
        match &self.finding {
            Finding::Decisions(decisions) => match decisions.as_slice() {
                [one] if one.is_allowed() => Outcome::Allowed,
                [one] if one.is_blocked() => Outcome::Blocked,
                [_] => Outcome::Limited,
                several if several.iter().all(Decision::is_allowed) => Outcome::Allowed,
                _ => self.why(),
            },
            Finding::NoAccount(Some(_)) if self.violated().next().is_some() => self.why(),
            Finding::NoAccount(_) => Outcome::Unidentified,
            Finding::NoStore => Outcome::StoreFailed,
            Finding::TooCostly(..) => Outcome::TooCostly,
            Finding::TooAmbiguous => Outcome::TooAmbiguous,
            Finding::NoLimit => Outcome::Allowed,
        }
    }

    /// The outcome of a request that a limit does not allow.
    #[inline(never)]
    fn why(&self) -> Outcome {
        let is_blocked = |decision: &Decision| decision.is_blocked();
        let blocked = if self.violated().next().is_some() {
            self.violated().any(is_blocked)
        } else {
            self.decisions().iter().any(is_blocked)
        };
        if blocked { Outcome::Blocked } else { Outcome::Limited }
    }

    /// Whether the request is admitted. It is if
    ///
    /// * every limit allows it,
    /// * the limits that do not allow it are not enforced on its principal, or
    /// * no limit can decide, and the operator has chosen to admit such requests
    ///   ([`OnUnidentified`](crate::layer::OnUnidentified),
    ///   [`OnStoreFailure`](crate::layer::OnStoreFailure)).
    ///
    /// A request whose path is [too ambiguous](Outcome::TooAmbiguous) is never admitted.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Whether every limit allows the request, enforced or not. `false` for an unidentified
    /// request, and if no limit could decide. `true` if the account's policy has [no
    /// limits](crate::Policy::unlimited).
    #[must_use]
    #[inline]
    pub fn is_allowed(&self) -> bool {
        match &self.finding {
            Finding::Decisions(decisions) => decisions.all_allow(),
            finding => matches!(finding, Finding::NoLimit),
        }
    }

    /// Whether limits are [enforced](crate::Enforcement) on the request's principal: one of those
    /// that do not allow the request, or if all allow it, any. `true` for an unidentified request
    /// without a limit for addresses and for one that is [too ambiguous](Outcome::TooAmbiguous), to
    /// which enforcement does not apply.
    #[must_use]
    #[inline]
    pub fn is_enforced(&self) -> bool {
        match self.decisions() {
            [] => self.enforced.0 != 0,
            [_] => self.enforced.has(0),
            decisions if decisions.iter().all(Decision::is_allowed) => {
                self.enforced().next().is_some()
            }
            _ => self.violated().next().is_some(),
        }
    }

    /// The endpoint that the request's path, as it is written, belongs to: the
    /// [first](crate::Policy::endpoints_of) if the request is charged to several. If the path is
    /// exempt as it is written, but not in all readings, the first of the others. `None` if the
    /// request is unidentified.
    #[must_use]
    #[inline]
    pub const fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint
    }

    /// What each limit says: the endpoint's own limit first, then the others in the order of the
    /// policy. If the request is charged to several endpoints, the limits of the
    /// [others](crate::Policy::endpoints_of) follow; a limit that endpoints share is told once.
    /// Limits of [requests in flight](crate::Quota::is_concurrent) come last.
    ///
    /// Empty if no limit has decided. Limits in shadow mode are left out if the cost of the request
    /// is above the burst of one of them. If an enforced limit of requests in flight refuses the
    /// request, the limits of rates are left out, since the store was not asked. If only one in
    /// shadow mode would refuse it, only the rates in shadow mode are left out.
    #[must_use]
    #[inline]
    pub fn decisions(&self) -> &[Decision] {
        match &self.finding {
            Finding::Decisions(decisions) | Finding::NoAccount(Some(decisions)) => {
                decisions.as_slice()
            }
            Finding::NoAccount(None)
            | Finding::NoStore
            | Finding::TooCostly(..)
            | Finding::TooAmbiguous
            | Finding::NoLimit => &[],
        }
    }

    /// Whether the limit whose decision is at `index` in [`decisions`](Self::decisions) is enforced
    /// on the principal. `false` if there is no such decision.
    #[must_use]
    pub fn enforces(&self, index: usize) -> bool {
        index < self.decisions().len() && self.enforced.has(index)
    }

    /// Whether the first limit is enforced.
    #[inline]
    pub(crate) const fn enforces_own(&self) -> bool {
        self.enforced.has(0)
    }

    /// The decisions of the limits that are [enforced](crate::Enforcement) on the principal.
    pub fn enforced(&self) -> impl Iterator<Item = &Decision> {
        self.enforced.among(self.decisions())
    }

    /// The decisions of the limits that refuse the request: those that are enforced and do not
    /// allow it. Limits that only would refuse it, in shadow mode, are not among them.
    pub fn violated(&self) -> impl Iterator<Item = &Decision> {
        self.enforced().filter(|decision| !decision.is_allowed())
    }

    /// Whether the request has no account, and no limit has decided.
    #[inline]
    pub(crate) const fn has_no_account(&self) -> bool {
        matches!(self.finding, Finding::NoAccount(None))
    }

    /// The decision of the only limit, if that refuses the request.
    #[inline]
    pub(crate) fn only_violated(&self) -> Option<&Decision> {
        match self.decisions() {
            [one] if !one.is_allowed() && self.enforced.has(0) => Some(one),
            _ => None,
        }
    }

    /// The decision that matters most. Of a request that is refused, it is that of the violated
    /// limit with the longest wait. Of one that is over a limit in shadow mode, it is that of such
    /// a limit with the longest wait. Otherwise it is that of the endpoint's own limit. `None` if
    /// no limit has decided.
    #[must_use]
    #[inline]
    pub fn decision(&self) -> Option<&Decision> {
        match self.decisions() {
            [] => None,
            [one] => Some(one),
            decisions => {
                let wait = |decision: &&Decision| decision.retry_after();
                let limited = || decisions.iter().filter(|decision| !decision.is_allowed());
                self.violated()
                    .max_by_key(wait)
                    .or_else(|| limited().max_by_key(wait))
                    .or_else(|| decisions.first())
            }
        }
    }

    /// The time until a request of the same cost would be allowed by every limit that refuses this
    /// one, if no other request is charged meanwhile: the longest wait among the
    /// [violated](Self::violated) limits. `None` if no limit refuses the request. When a request in
    /// flight will end is not known: the wait of a limit of
    /// [requests in flight](super::Quota::concurrent) is 1 s, and may not suffice.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.violated().filter_map(Decision::retry_after).max()
    }

    /// Moves the decisions out, and says which of the limits are enforced.
    pub(crate) fn drain_decisions(&mut self) -> (Box<[Decision]>, Enforced) {
        let decisions = match mem::replace(&mut self.finding, Finding::NoStore) {
            Finding::Decisions(decisions) | Finding::NoAccount(Some(decisions)) => {
                decisions.into_slice()
            }
            Finding::NoAccount(None)
            | Finding::NoStore
            | Finding::TooCostly(..)
            | Finding::TooAmbiguous
            | Finding::NoLimit => Box::default(),
        };
        (decisions, self.enforced)
    }

    /// The limit whose bucket can never hold the cost of the request, and the cost, if that is the
    /// [outcome](Outcome::TooCostly).
    #[must_use]
    pub const fn too_costly_for(&self) -> Option<(Limit, u32)> {
        match self.finding {
            Finding::TooCostly(limit, cost) => Some((limit, cost)),
            _ => None,
        }
    }

    /// What the candidate policy would have decided, with the names of its limits. `None` without a
    /// candidate, and for requests for which the candidate is
    /// [not evaluated](crate::Limiter::set_candidate).
    #[must_use]
    pub fn candidate(&self) -> Option<&Decisions> {
        self.candidate.as_ref()
    }
}

/// Whether a limit that is enforced does not allow the request.
#[inline]
fn is_violated(decisions: &[Decision], enforced: Enforced) -> bool {
    let violates =
        |(index, decision): (usize, &Decision)| !decision.is_allowed() && enforced.has(index);
    decisions.iter().enumerate().any(violates)
}

impl Outcome {
    /// The outcome as a word for a metric's label: `allowed`, `limited`, `blocked`, `unidentified`,
    /// `store_failed`, `too_costly` or `too_ambiguous`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Limited => "limited",
            Self::Blocked => "blocked",
            Self::Unidentified => "unidentified",
            Self::StoreFailed => "store_failed",
            Self::TooCostly => "too_costly",
            Self::TooAmbiguous => "too_ambiguous",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
