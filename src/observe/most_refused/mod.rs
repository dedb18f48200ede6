//! The principals that are refused most, and when, and by which limit.

mod places;
mod refused;

use std::cmp::Reverse;
use std::fmt;

use super::{Observation, Observer};
use crate::policy::Account;
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{Decisions, Limit, Outcome, Scope};

use places::{Last, Places, Violated, Violation};

pub use refused::Refused;

/// An observer that counts refusals by principal and limit: how often, when first and last, and at
/// which endpoint. It answers "which callers are refused most?" ([`top`](Self::top)) and, an hour
/// later, "why was I refused?" ([`of`](Self::of)). Its memory is bounded, and requests that are
/// allowed pay nothing for it.
///
/// It counts the requests that a limit does not allow, enforced or not. So in shadow mode it shows
/// which callers would be refused, and by which limit; [`Refused::enforced`] tells the two apart.
///
/// * If several limits do not allow a request, it counts for each of them.
/// * A limit that counts each [user](crate::values::Scope::User) is counted for the user within the
///   organization.
/// * A request that costs more than a limit can ever allow counts for that limit, in a row of its
///   own: its [`Refused::outcome`] is [`TooCostly`](Outcome::TooCostly).
/// * [Blocked](crate::Limiter::block) requests are counted in places of their own, so that they do
///   not fill the list of those that are refused most. [`of`](Self::of) and
///   [`top_blocked`](Self::top_blocked) show them.
/// * Requests that no limit refuses are not counted: those refused with 401 because they are
///   unidentified, those with a path that is [too ambiguous](Outcome::TooAmbiguous), and those for
///   which the store failed. Unidentified requests over the limit of their address are counted, for
///   the address.
/// * A limit in shadow mode that a request costs too much of is left out of its decision if another
///   limit is enforced, and so is not counted. The limiter
///   [advises](super::Advice::CostAboveBurst) about it.
///
/// # Memory
/// It has a fixed number of places, and as many again for blocked requests. A place belongs to one
/// pair of a principal (or a user within it) and a limit. It takes some 200 bytes, and more for ids
/// that are longer than [`Id::INLINE`](crate::values::Id::INLINE). If there are more pairs than
/// places, a new pair takes the place, and the count, of the one with the fewest refusals
/// ([Space-Saving]). So
///
/// * with `n` places, a pair with more than one in `n` of all counted refusals is never missing;
/// * a count may be too high: the true number is between [`Refused::at_least`] and
///   [`Refused::refusals`];
/// * a pair that is missing was refused at most as often as the pair with the fewest refusals that
///   is there.
///
/// Nothing is forgotten because time passes: a pair is there, with the time of its last refusal,
/// until another takes its place or until [`clear`](Self::clear). It is not shared by replicas, and
/// a restart forgets it.
///
/// # Time
/// A refusal reads the clock. By default that is a [`MonotonicClock`], and times are given as the
/// time that has passed when they are asked for. They stay true when the clock on the wall is set.
/// For a date, subtract: `SystemTime::now() - refused.last_ago`.
///
/// [Space-Saving]: https://doi.org/10.1007/978-3-540-30570-5_27
///
/// ```
/// use std::sync::Arc;
/// use bolna_rate_limit::{Account, Limiter, observe::MostRefused};
///
/// let refused = Arc::new(MostRefused::new(100));
/// Limiter::default().observe(Arc::clone(&refused));
/// // Later, in an operator's handler:
/// for row in refused.top(10) {
///     println!("{}: {} times by {}", row.principal, row.refusals, row.limit);
/// }
/// for row in refused.of(Account::user("u-17").in_organization("org-4")) {
///     println!("{} refused {} s ago", row.limit, row.last_ago.as_secs());
/// }
/// ```
pub struct MostRefused {
    places: usize,
    by_candidate: bool,
    // Behind a pointer, so that the clock is no parameter of a type that applications keep in their
    // state.
    clock: Box<dyn Clock>,
    limited: Places,
    blocked: Places,
}

impl MostRefused {
    /// An observer with that number of places, and as many again for blocked requests; 0 is treated
    /// as 1. The first refusal of a pair without a place looks at all places, so use some hundreds
    /// of them at most.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        Self {
            places,
            by_candidate: false,
            clock: Box::new(MonotonicClock::default()),
            limited: Places::new(places),
            blocked: Places::new(places),
        }
    }

    /// Sets the clock that says when a request was refused. Defaults to a [`MonotonicClock`].
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// Counts other requests instead: those that the limits allow and the
    /// [candidate](crate::Limiter::set_candidate) would have refused, by the candidate's limits.
    /// This shows which callers would be worse off with the candidate. [`Refused::enforced`] is
    /// `false` then, since a candidate refuses no request.
    #[must_use]
    pub fn by_candidate(self) -> Self {
        Self { by_candidate: true, ..self }
    }

    /// The pairs of a principal and a limit that were refused most since the start or since the
    /// last [`clear`](Self::clear): at most `most` of them, those with the most refusals first.
    /// Blocked requests are not among them.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<Refused> {
        Self::most(self.rows(&self.limited, |_| true), most)
    }

    /// Like [`top`](Self::top), of blocked requests: which callers go on sending although they are
    /// blocked.
    #[must_use]
    pub fn top_blocked(&self, most: usize) -> Vec<Refused> {
        Self::most(self.rows(&self.blocked, |_| true), most)
    }

    /// Why an account was refused: all of its pairs, blocked ones too, those that were refused last
    /// first. If the account names an organization and a user, the rows are those of the
    /// organization's limits and of this user's. If it names an organization only, they are those
    /// of the organization and of all its users. Empty if the account has no principal.
    ///
    /// A pair that is not there was not refused, or so seldom that another has its place.
    #[must_use]
    pub fn of(&self, account: impl Into<Account>) -> Vec<Refused> {
        let account = account.into();
        let user = account.user_principal();
        let is_of = |violation: &Violation| {
            let is_of_user = match (&violation.user, &user) {
                (Some(one), Some(asked)) => one == asked,
                _ => true,
            };
            is_of_user && Some(&violation.principal) == account.principal()
        };
        let mut rows = self.rows(&self.limited, is_of);
        rows.append(&mut self.rows(&self.blocked, is_of));
        rows.sort_by_key(|row| (row.last_ago, Reverse(row.refusals)));
        rows
    }

    /// Forgets everything and starts again.
    pub fn clear(&self) {
        self.limited.clear();
        self.blocked.clear();
    }

    fn rows(&self, places: &Places, is_wanted: impl Fn(&Violation) -> bool) -> Vec<Refused> {
        let found = places.find(is_wanted);
        // After the places, so that no refusal is later than now.
        let now = self.now();
        found.into_iter().map(|count| Refused::new(count, now)).collect()
    }

    fn most(mut rows: Vec<Refused>, most: usize) -> Vec<Refused> {
        rows.sort_by_key(|row| (Reverse((row.refusals, row.at_least)), row.last_ago));
        rows.truncate(most);
        rows
    }

    /// The time, in milliseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a request that not every limit allows.
    #[cold]
    #[inline(never)]
    fn count(&self, observation: &Observation<'_>) {
        let Observation { principal: Some(principal), ruling, user, .. } = *observation else {
            return;
        };
        let candidate = ruling.candidate().filter(|_| self.by_candidate && ruling.is_allowed());
        let decisions = match candidate {
            Some(candidate) => candidate.as_slice(),
            None if self.by_candidate => return,
            None => ruling.decisions(),
        };
        let at = self.now();
        let count = |limit: Limit, outcome, enforced| {
            let user = user.filter(|_| limit.scope() == Scope::User);
            let violated =
                Violated { principal, user, limit: limit.name(), scope: limit.scope(), outcome };
            let places = if outcome == Outcome::Blocked { &self.blocked } else { &self.limited };
            places.count(&violated, Last { at, endpoint: ruling.endpoint(), enforced });
        };
        for (index, decision) in decisions.iter().enumerate().filter(|it| !it.1.is_allowed()) {
            let outcome = if decision.is_blocked() { Outcome::Blocked } else { Outcome::Limited };
            count(decision.limit(), outcome, !self.by_candidate && ruling.enforces(index));
        }
        if let Some((limit, _)) = ruling.too_costly_for().filter(|_| !self.by_candidate) {
            count(limit, Outcome::TooCostly, ruling.is_enforced());
        }
    }
}

impl Observer for MostRefused {
    #[inline]
    fn on_decision(&self, observation: &Observation<'_>) {
        let ruling = observation.ruling;
        let refuses = |candidate: &Decisions| !candidate.all_allow();
        if !ruling.is_allowed() || self.by_candidate && ruling.candidate().is_some_and(refuses) {
            self.count(observation);
        }
    }
}

impl fmt::Debug for MostRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the principals: ids do not belong in a log.
        f.debug_struct("MostRefused").field("places", &self.places).finish_non_exhaustive()
    }
}
