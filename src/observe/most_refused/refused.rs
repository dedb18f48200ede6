//! What is told about one principal and one limit.

use std::time::Duration;

use super::places::Count;
use crate::values::{Endpoint, LimitName, Outcome, Principal, Scope};

/// A principal, a limit that did not allow its requests, how often, and when.
///
/// ```
/// use std::time::Duration;
/// use std::sync::Arc;
/// use bolna_rate_limit::observe::MostRefused;
/// use bolna_rate_limit::values::clock::ManualClock;
/// use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Quota};
///
/// // Half of the organization's calls for each user.
/// let policy = Policy::bolna().quota("call", Quota::per_minute(4)).user_share("call", 50);
/// let limiter = Limiter::new(policy.build()?);
/// let clock = ManualClock::new();
/// let refused = Arc::new(MostRefused::new(100).with_clock(clock.clone()));
/// limiter.observe(Arc::clone(&refused));
///
/// let ana = Account::user("ana").in_organization("acme");
/// for _ in 0..5 {
///     let _ = limiter.check_now(&ana, "/call");
/// }
/// clock.advance(Duration::from_secs(3600));
///
/// // "Why was I refused an hour ago?"
/// let rows = refused.of(&ana);
/// assert_eq!(rows.len(), 1);
/// assert_eq!(rows[0].limit.name(), "call-user");
/// assert_eq!(rows[0].user, ana.user_principal());
/// assert_eq!((rows[0].refusals, rows[0].last_ago), (3, Duration::from_secs(3600)));
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Refused {
    /// Who is billed, or the address of requests without an account.
    pub principal: Principal,
    /// The user within the principal, if the limit counts each [user](Scope::User). Otherwise
    /// `None`: the requests of all its users count.
    pub user: Option<Principal>,
    /// The limit that did not allow the requests. If policies replace each other, limits of one
    /// name and scope are the same, whatever their quotas.
    pub limit: LimitName,
    /// Which requests the limit counts together.
    pub scope: Scope,
    /// Why it did not allow them: [`Limited`](Outcome::Limited), [`Blocked`](Outcome::Blocked) or
    /// [`TooCostly`](Outcome::TooCostly).
    pub outcome: Outcome,
    /// The endpoint of the last of them, that of its path as it was written. `None` for requests
    /// without an account.
    pub endpoint: Option<Endpoint>,
    /// Whether the limit was enforced the last time. If it was not, the limit would have refused
    /// the request, as in [shadow mode](crate::Enforcement), and did not.
    pub enforced: bool,
    /// The number of requests that it did not allow, at most.
    pub refusals: u64,
    /// The number of requests that it did not allow, at least: those between the first and the
    /// last.
    pub at_least: u64,
    /// The time from the first counted refusal to the call that returned this, in whole
    /// milliseconds. Refusals before the pair got its place are not known.
    pub first_ago: Duration,
    /// The time from the last refusal to the call that returned this, in whole milliseconds.
    pub last_ago: Duration,
}

impl Refused {
    /// `now` is in milliseconds.
    pub(super) fn new(count: Count, now: u64) -> Self {
        let Count { violation, refusals, inherited, first, last } = count;
        let ago = |then| Duration::from_millis(now.saturating_sub(then));
        Self {
            principal: violation.principal,
            user: violation.user,
            limit: violation.limit,
            scope: violation.scope,
            outcome: violation.outcome,
            endpoint: last.endpoint,
            enforced: last.enforced,
            refusals,
            at_least: refusals - inherited,
            first_ago: ago(first),
            last_ago: ago(last.at),
        }
    }
}
