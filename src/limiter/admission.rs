//! What an admitted request has paid, its places in flight, and how both are given back.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::in_flight::Places;
use crate::policy::MOST_LIMITS;
use crate::store::{Bucket, Charge, Command, Entry};
use crate::values::{LimitName, Principal, Quota};

/// An admitted request, to give its units back or to correct its cost after it was admitted, and to
/// keep it in flight.
///
/// The layer inserts it into the extensions of a request that holds a place of a limit of
/// [requests in flight](crate::policy::PolicyBuilder::concurrent), and of each charged request if
/// [`admission_in_extensions`](crate::BolnaRateLimitLayer::admission_in_extensions) is set. Without
/// Tower, [`Limiter::admit`](crate::Limiter::admit) returns it. Clones are the same admission.
///
/// * **Units**: [`refund`](Self::refund) gives back what the request was charged, and
///   [`settle`](Self::settle) corrects it. Both can be called at any time, by a job that fails an
///   hour later too. If nothing is called, the request has paid.
/// * **In flight**: the request is in flight until the body of its response has ended or was
///   dropped *and* no clone of the admission is left, or until [`end`](Self::end). So the handler
///   of an upgrade moves the admission into the task that serves the connection. A job that keeps
///   it only for a refund calls `end` first.
///
/// Behind several layers, the extensions have the admission of the innermost of those that insert
/// one. It keeps the request in flight for all of them, and gives back the units of its own layer
/// only.
///
/// ```
/// use bolna_rate_limit::limiter::Admission;
/// use http::Request;
///
/// async fn place_call<B>(request: Request<B>) {
///     let admission = request.extensions().get::<Admission>().cloned();
///     # let spawn = |_| {};
///     spawn(async move {
///         let answered = false; // ... dial
///         if let (false, Some(admission)) = (answered, &admission) {
///             admission.refund();
///         }
///         // The call is over: the admission is dropped, and with it the place of the request.
///     });
/// }
/// ```
///
/// # When the store is lost
/// A refund or a settlement is handed to the store without waiting for the reply: see
/// [`Store::submit`](crate::store::Store::submit). While its server is lost, a `RedisStore` keeps
/// it. What a store does not take is lost: it is counted in
/// [`Report::failed_corrections`](crate::observe::Report::failed_corrections), and reported as an
/// [event](crate::observe::Event::CorrectionFailed).
#[derive(Clone)]
pub struct Admission {
    state: Arc<State>,
}

struct State {
    limiter: Arc<dyn Corrects>,
    /// How many resets there had been when the request was admitted.
    resets: u64,
    held: Mutex<Held>,
}

/// The limiter of an admission, whatever its store.
pub(super) trait Corrects: Send + Sync {
    /// Hands a refund or a settlement to the store, and counts it.
    fn correct(&self, command: Command<'_>);

    /// The quota that a limit has in the active policy now.
    fn quota_of(&self, limit: LimitName) -> Option<Quota>;

    /// Whether a bucket was reset after there had been so many resets.
    fn has_reset(&self, bucket: &Bucket<'_>, since: u64) -> bool;
}

/// What a request has paid, and its places in limits of requests in flight.
#[derive(Default)]
pub(crate) struct Held {
    /// What the request was charged, and what the candidate's buckets were.
    paid: Vec<Paid>,
    places: SmallVec<[Places; 1]>,
    /// Whether some of the places are those of the policy that has decided, and not only of a
    /// candidate.
    is_counted: bool,
    /// The admission of a layer further out, whose request is in flight as long as this one.
    outer: Option<Admission>,
}

/// What one charge has taken.
struct Paid {
    /// Whether the active policy has decided, and not one of the account's own or a candidate. Only
    /// then is it known by which quota a bucket is measured now.
    by_active: bool,
    principal: Principal,
    user: Option<Principal>,
    items: SmallVec<[Item; 1]>,
}

/// What was taken from one bucket.
struct Item {
    /// The bucket, as it was measured by the charge. So a change of plan does not matter.
    entry: Entry,
    /// The name of the limit in its policy.
    limit: LimitName,
    /// The units that the request was charged when it was admitted.
    charged: u64,
    /// The units that it has paid by now: at most a burst more.
    units: u64,
}

impl Admission {
    pub(super) fn new(limiter: Arc<dyn Corrects>, resets: u64, held: Held) -> Self {
        Self { state: Arc::new(State { limiter, resets, held: Mutex::new(held) }) }
    }

    /// Gives back all units that the request has paid, to each bucket that was charged. Once:
    /// further calls, on clones too, do nothing, and neither does a [settlement](Self::settle)
    /// after it.
    ///
    /// What is given back is the time in which the units come back by the quota that they were
    /// charged by, at most until the bucket is full. If this limiter has
    /// [reset](crate::Limiter::reset) the bucket meanwhile, nothing is given back to it: it was
    /// full then. In shadow mode, a request over the limit has paid nothing.
    ///
    /// If several requests overdraw a bucket by more than one burst, it is charged less than they
    /// cost in the end. It gets back what they cost all the same, at most until it is full.
    pub fn refund(&self) {
        let paid = std::mem::take(&mut self.held().paid);
        for paid in paid {
            let all = paid.items.iter().map(|item| (item.entry, item.units));
            let all: Parts = all.collect();
            paid.submit(&all, true, &self.state);
        }
    }

    /// Sets how many units of a limit the request costs in the end. It replaces what the request
    /// was charged when it was admitted, and an earlier settlement. The difference is given back,
    /// or is charged even if the bucket does not hold it: then later requests wait until it is
    /// repaid. With 0, all units of the limit are given back.
    ///
    /// A request can cost at most one burst more than it was charged when it was admitted. A higher
    /// cost counts as that. A limit that the request was not charged to is ignored, as are limits
    /// of requests in flight.
    pub fn settle(&self, limit: impl Into<LimitName>, units: u32) {
        let limit = limit.into();
        let mut held = self.held();
        let mut corrections: SmallVec<[Correction; 1]> = SmallVec::new();
        for paid in &mut held.paid {
            for item in paid.items.iter_mut().filter(|item| item.limit == limit) {
                let most = item.charged + u64::from(item.entry.quota().burst());
                let units = u64::from(units).min(most);
                let before = std::mem::replace(&mut item.units, units);
                if units != before {
                    let (principal, user) = (paid.principal.clone(), paid.user.clone());
                    let by_active = paid.by_active;
                    corrections.push(Correction {
                        charge: Paid { by_active, principal, user, items: SmallVec::new() },
                        part: (item.entry, units.abs_diff(before)),
                        is_refund: units < before,
                    });
                }
            }
        }
        // Not under the lock: the store may call a listener.
        drop(held);
        for Correction { charge, part, is_refund } in corrections {
            charge.submit(&[part], is_refund, &self.state);
        }
    }

    /// Ends the request's time in flight now, though its response may not have ended. Units are not
    /// given back.
    pub fn end(&self) {
        let mut held = self.held();
        let ended = (std::mem::take(&mut held.places), held.outer.take());
        drop(held);
        drop(ended);
    }

    // Nothing panics under the lock.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A settlement of one bucket, up or down.
struct Correction {
    charge: Paid,
    part: Part,
    is_refund: bool,
}

/// A bucket, and a number of units.
type Part = (Entry, u64);

type Parts = SmallVec<[Part; MOST_LIMITS]>;

impl Paid {
    /// Submits the refund or the settlement of these units. Each bucket gets at most a burst by one
    /// command.
    fn submit(&self, parts: &[Part], is_refund: bool, state: &State) {
        let limiter = &*state.limiter;
        let mut parts = Parts::from(parts);
        if is_refund {
            let charge = Charge::of(&self.principal, self.user.as_ref(), &[]);
            parts.retain(|(entry, _)| !limiter.has_reset(&charge.bucket(entry), state.resets));
        }
        let is_current =
            |entry: &Entry| self.by_active && limiter.quota_of(entry.name()) == Some(entry.quota());
        loop {
            let entries = parts.iter_mut().filter_map(|(entry, left)| {
                let units = u32::try_from(*left).unwrap_or(u32::MAX).min(entry.quota().burst());
                *left -= u64::from(units);
                let part = entry.with_cost(units).ok()?;
                Some(if is_current(entry) { part } else { part.without_correction() })
            });
            let entries: SmallVec<[Entry; MOST_LIMITS]> = entries.collect();
            if entries.is_empty() {
                return;
            }
            let charge = Charge::of(&self.principal, self.user.as_ref(), &entries);
            let command = if is_refund { Command::Refund } else { Command::Settle };
            limiter.correct(command(charge));
        }
    }
}

impl Held {
    /// Notes what a charge has taken: all its entries that are not of requests in flight and are
    /// charged. `limit` says under which name the policy has an entry.
    pub(super) fn pay(
        &mut self,
        by_active: bool,
        charge: &Charge<'_>,
        is_charged: impl Fn(&Entry) -> bool,
        limit: impl Fn(LimitName) -> LimitName,
    ) {
        let charged = charge.entries().iter().filter(|it| !it.is_concurrent() && is_charged(it));
        let items: SmallVec<[Item; 1]> = charged
            .map(|entry| Item {
                entry: *entry,
                limit: limit(entry.name()),
                charged: u64::from(entry.cost()),
                units: u64::from(entry.cost()),
            })
            .collect();
        if !items.is_empty() {
            let (principal, user) = (charge.principal().clone(), charge.user().cloned());
            self.paid.push(Paid { by_active, principal, user, items });
        }
    }

    /// Keeps places of the policy that has decided.
    pub(super) fn keep(&mut self, places: Places) {
        self.is_counted |= !places.is_empty();
        self.keep_trial(places);
    }

    /// Keeps places of the candidate.
    pub(super) fn keep_trial(&mut self, places: Places) {
        if !places.is_empty() {
            self.places.push(places);
        }
    }

    /// Keeps the request in flight for a layer further out, too.
    pub(crate) fn keep_outer(&mut self, outer: Option<Admission>) {
        self.outer = outer;
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        !self.places.is_empty()
    }

    pub(crate) const fn is_counted(&self) -> bool {
        self.is_counted
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.paid.is_empty()
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No ids: this may end up in a log.
        f.debug_struct("Admission").field("in_flight", &self.held().is_in_flight()).finish()
    }
}
