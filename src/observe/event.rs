//! The events of a limiter.

use std::fmt;

use super::Advice;
use crate::policy::Policy;
use crate::store::StoreEvent;
use crate::values::{Endpoint, Enforcement};

/// Something that happened to a limiter and does not concern a single request. `Display` says it in
/// one line, without ids, unless an error of the store contains one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A policy was made the active one. It may be equal to the previous one.
    #[non_exhaustive]
    PolicyChanged {
        /// The policy that was active before.
        from: Policy,
        /// The policy that is active now.
        to: Policy,
    },
    /// The limiter's [enforcement](crate::Limiter::set_enforcement) was changed.
    #[non_exhaustive]
    EnforcementChanged {
        /// The enforcement before.
        from: Enforcement,
        /// The enforcement now.
        to: Enforcement,
    },
    /// A [candidate](crate::Limiter::set_candidate) was set or removed.
    #[non_exhaustive]
    CandidateChanged {
        /// The candidate now, if there is one.
        to: Option<Policy>,
    },
    /// The state of the store has changed: it was lost or regained, or reached its cap of buckets.
    Store(StoreEvent),
    /// The limiter is probably set up wrongly. Each advice is reported once, or, if it is about a
    /// policy, each time that the policy is set.
    Advice(Advice),
}

impl Event {
    /// All that [`name`](Self::name) can return, except the codes of advice.
    #[cfg(feature = "metrics")]
    pub(super) const NAMES: [&'static str; 8] = [
        "policy_changed",
        "enforcement_changed",
        "candidate_changed",
        "store_lost",
        "store_still_lost",
        "store_regained",
        "cap_reached",
        "cap_relieved",
    ];

    /// The event as a word for a metric's label: `policy_changed`, `enforcement_changed`,
    /// `candidate_changed`, `store_lost`, `store_still_lost`, `store_regained`, `cap_reached`,
    /// `cap_relieved`, or the [code](Advice::code) of an advice, such as `BRL001`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PolicyChanged { .. } => "policy_changed",
            Self::EnforcementChanged { .. } => "enforcement_changed",
            Self::CandidateChanged { .. } => "candidate_changed",
            Self::Store(StoreEvent::Lost { .. }) => "store_lost",
            Self::Store(StoreEvent::StillLost { .. }) => "store_still_lost",
            Self::Store(StoreEvent::Regained { .. }) => "store_regained",
            Self::Store(StoreEvent::CapReached { .. }) => "cap_reached",
            Self::Store(StoreEvent::CapRelieved { .. }) => "cap_relieved",
            Self::Advice(advice) => advice.code(),
        }
    }

    /// Whether an operator should look into it: the store is lost or still lost, the cap is
    /// reached, or there is an advice.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::PolicyChanged { .. }
            | Self::EnforcementChanged { .. }
            | Self::CandidateChanged { .. } => false,
            Self::Store(event) => {
                !matches!(event, StoreEvent::Regained { .. } | StoreEvent::CapRelieved { .. })
            }
            Self::Advice(_) => true,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyChanged { from, to } => {
                f.write_str("the policy was changed: ")?;
                let before = from.endpoints().map(|(endpoint, _)| endpoint);
                let new = to
                    .endpoints()
                    .map(|(endpoint, _)| endpoint)
                    .filter(|new| from.quota_of(*new).is_none());
                let mut comma = "";
                for endpoint in before.chain(new).filter(|endpoint| changed(from, to, *endpoint)) {
                    write!(f, "{comma}{endpoint} ")?;
                    terms(f, from, endpoint)?;
                    f.write_str(" -> ")?;
                    terms(f, to, endpoint)?;
                    comma = ", ";
                }
                if comma.is_empty() { f.write_str("all quotas are the same") } else { Ok(()) }
            }
            Self::EnforcementChanged { from, to } => {
                write!(f, "enforcement was changed: {from} -> {to}")
            }
            Self::CandidateChanged { to: Some(_) } => {
                f.write_str("a candidate policy is evaluated")
            }
            Self::CandidateChanged { to: None } => {
                f.write_str("no candidate policy is evaluated any more")
            }
            Self::Store(event) => event.fmt(f),
            Self::Advice(advice) => advice.fmt(f),
        }
    }
}

fn changed(from: &Policy, to: &Policy, endpoint: Endpoint) -> bool {
    let terms = |policy: &Policy| (policy.quota_of(endpoint), policy.enforcement_of(endpoint));
    terms(from) != terms(to)
}

fn terms(f: &mut fmt::Formatter<'_>, policy: &Policy, endpoint: Endpoint) -> fmt::Result {
    let Some(quota) = policy.quota_of(endpoint) else { return f.write_str("none") };
    write!(f, "{quota}")?;
    if quota.burst() != quota.limit() {
        write!(f, " with a burst of {}", quota.burst())?;
    }
    match policy.enforcement_of(endpoint) {
        Some(Enforcement::FULL) | None => Ok(()),
        Some(enforcement) => write!(f, " ({enforcement})"),
    }
}
