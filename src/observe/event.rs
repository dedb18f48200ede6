//! The events of a limiter.

use std::fmt;
use std::sync::Arc;

use super::Advice;
use crate::policy::{PathChange, Policy, Rule};
use crate::store::StoreEvent;
use crate::values::{Endpoint, Enforcement, LimitName, Scope};

/// Something that happened to a limiter and does not concern a single request. `Display` says it in
/// one line, without ids, unless an error of the store contains one.
///
/// ```
/// use bolna_rate_limit::observe::Event;
/// use bolna_rate_limit::store::StoreEvent;
/// use bolna_rate_limit::{Limiter, Policy, Quota};
///
/// let limiter = Limiter::default();
/// limiter.on_event(|event| match event {
///     Event::Store(StoreEvent::Lost { .. }) => { /* wake someone up */ }
///     event if event.is_warning() => eprintln!("warning: {event}"),
///     // "the policy was changed: call 500 requests per minute -> 300 requests per minute"
///     event => println!("{event}"),
/// });
/// limiter.set_policy(Policy::bolna().quota("call", Quota::per_minute(300)).build()?)?;
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
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
    /// The store did not take a [refund or a settlement](crate::limiter::Admission), so it is lost.
    /// Reported for the first; reported again only after another one has succeeded. If an observer
    /// panics, the panic is caught: a request may be refunded while another panic unwinds, and a
    /// second one would abort the process.
    #[non_exhaustive]
    CorrectionFailed {
        /// The [kind](crate::store::StoreError::kind) of the store's error.
        kind: &'static str,
        /// The store's error.
        reason: Arc<str>,
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
    pub(super) const NAMES: [&'static str; 9] = [
        "policy_changed",
        "enforcement_changed",
        "candidate_changed",
        "correction_failed",
        "store_lost",
        "store_still_lost",
        "store_regained",
        "cap_reached",
        "cap_relieved",
    ];

    /// The event as a word for a metric's label: `policy_changed`, `enforcement_changed`,
    /// `candidate_changed`, `correction_failed`, `store_lost`, `store_still_lost`,
    /// `store_regained`, `cap_reached`, `cap_relieved`, or the
    /// [code](Advice::code) of an advice, such as `BRL001`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PolicyChanged { .. } => "policy_changed",
            Self::EnforcementChanged { .. } => "enforcement_changed",
            Self::CandidateChanged { .. } => "candidate_changed",
            Self::CorrectionFailed { .. } => "correction_failed",
            Self::Store(StoreEvent::Lost { .. }) => "store_lost",
            Self::Store(StoreEvent::StillLost { .. }) => "store_still_lost",
            Self::Store(StoreEvent::Regained { .. }) => "store_regained",
            Self::Store(StoreEvent::CapReached { .. }) => "cap_reached",
            Self::Store(StoreEvent::CapRelieved { .. }) => "cap_relieved",
            Self::Advice(advice) => advice.code(),
        }
    }

    /// Whether an operator should look into it: the store is lost or still lost, the cap is
    /// reached, a correction has failed, or there is an advice.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::PolicyChanged { .. }
            | Self::EnforcementChanged { .. }
            | Self::CandidateChanged { .. } => false,
            Self::Store(event) => {
                !matches!(event, StoreEvent::Regained { .. } | StoreEvent::CapRelieved { .. })
            }
            Self::Advice(_) | Self::CorrectionFailed { .. } => true,
        }
    }
}

/// The most limits and paths that the text of a changed policy names.
const MOST_LIMITS: usize = 40;
const MOST_PATHS: usize = 10;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyChanged { from, to } => {
                f.write_str("the policy was changed: ")?;
                let names = |policy: &Policy| {
                    policy.limits().into_iter().map(|limit| limit.name()).collect::<Vec<_>>()
                };
                let new = names(to).into_iter().filter(|new| from.quota_of(*new).is_none());
                let (mut comma, mut named, mut more) = ("", 0, 0);
                for name in names(from).into_iter().chain(new) {
                    let (old, new) = (terms(from, name), terms(to, name));
                    if old == new {
                        continue;
                    }
                    if named == MOST_LIMITS {
                        more += 1;
                        continue;
                    }
                    named += 1;
                    write!(f, "{comma}{name} {old} -> {new}")?;
                    comma = ", ";
                }
                if more > 0 {
                    write!(f, " and {more} more limits")?;
                }
                let changes = from.path_changes(to);
                for PathChange { template, from, to } in changes.iter().take(MOST_PATHS) {
                    let [from, to] = [from, to].map(|it| it.map_or("exempt", |it| it.name()));
                    write!(f, "{comma}path {template} {from} -> {to}")?;
                    comma = ", ";
                }
                if changes.len() > MOST_PATHS {
                    write!(f, " and {} more paths", changes.len() - MOST_PATHS)?;
                }
                if !from.reads_like(to) {
                    write!(f, "{comma}stripped prefixes or ignored spellings are others")?;
                    comma = ", ";
                }
                if comma.is_empty() {
                    f.write_str("all limits and paths are the same")?;
                }
                Ok(())
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
            Self::CorrectionFailed { reason, .. } => write!(
                f,
                "the rate limiter could not correct what a request was charged: {}",
                crate::store::OneLine(Arc::clone(reason))
            ),
            Self::Store(event) => event.fmt(f),
            Self::Advice(advice) => advice.fmt(f),
        }
    }
}

/// What a policy says about a limit.
fn terms(policy: &Policy, name: LimitName) -> String {
    let Some(quota) = policy.quota_of(name) else { return "none".to_owned() };
    let mut terms = quota.to_string();
    let limit = policy.all_rules().find_map(|rule| rule.limit(name));
    if let Some(scope) = limit.map(|(entry, _)| entry.scope()).filter(|it| *it != Scope::Account) {
        terms += &format!(" {}", scope.phrase());
    }
    let has_it = |rule: &&Rule| rule.limit(name).is_some();
    let endpoints: Vec<_> = policy.rules().iter().filter(has_it).map(Rule::endpoint).collect();
    if endpoints.iter().any(|endpoint| name != *endpoint) {
        let names: Vec<_> = endpoints.iter().map(Endpoint::name).collect();
        terms += &format!(" on {}", names.join(" and "));
    }
    if quota.burst() != quota.limit() {
        terms += &format!(" with a burst of {}", quota.burst());
    }
    if let Some(cost @ 2..) = policy.cost_of(name) {
        terms += &format!(" at {cost} a request");
    }
    match policy.enforcement_of(name) {
        Some(Enforcement::FULL) | None => terms,
        Some(enforcement) => format!("{terms} ({enforcement})"),
    }
}
