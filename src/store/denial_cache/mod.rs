//! A cache of refusals, which refuses without calling the store.

mod denial;
mod recent;
mod table;

use std::fmt;
use std::sync::Arc;

use super::{
    Answer, Bucket, Capabilities, Charge, Checked, Command, Conclude, Concluding, Decisions, Entry,
    Reply, Store, StoreError, StoreListener, StoreReport, nanos,
};
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{OwnedCharge, Scope};

use denial::Asked;
use table::Denials;

/// Refuses requests whose bucket has no unit left in the store, without calling the store again.
///
/// If a bucket has no unit, the time of its next unit is known, and requests before that time can't
/// change it. So the cache remembers every answer of the store that leaves a bucket without a unit:
/// a refusal, or the admission that took the last unit. An attack on one bucket then costs the
/// store about one call for each unit that comes back, or one a second if units come back more
/// slowly, instead of one for each request.
///
/// The store would have refused what the cache refuses, with the same
/// [`Decision`](crate::Decision). Times count from the call of the store, not from its answer, so
/// the time that an answer takes does not delay a unit that comes back.
///
/// A refusal is remembered until the next unit comes back, but for at most the quota's
/// [`emission_interval`](crate::Quota::emission_interval) or 1 s, whichever is less. So this is the
/// longest time for which the cache does not see that another process has reset the bucket,
/// refunded units to it, lifted its block, or charged it by another quota. Changes that are made
/// through this cache take effect at once. If the quota in a request is not the remembered one, the
/// store is called.
///
/// The cache remembers and refuses only charges of one unit of one binding bucket that belongs to
/// an account or an address. For any other charge the store is called, and the cache forgets the
/// buckets of the charge.
///
/// An answer that the store gives at once is passed on and not remembered, since it costs little
/// already. An answer by another quota than the request's, as a
/// [`LocalFallback`](super::LocalFallback) may give, is not remembered either.
///
/// # Memory
/// At most 57,344 buckets are remembered, in 7 MB. For further buckets the store is called. Each
/// thread has copies of up to 16 refusals that it has used last. Later answers of the store drop
/// the refusals that are out of date, one shard at a time.
///
/// ```
/// use bolna_rate_limit::store::{Breaker, DenialCache, LocalFallback, MemoryStore};
///
/// # let store = MemoryStore::new();
/// let store = DenialCache::new(LocalFallback::new(Breaker::new(store)).expected_replicas(3));
/// ```
pub struct DenialCache<St, C = MonotonicClock> {
    store: St,
    clock: C,
    denials: Arc<Denials>,
}

impl<St> DenialCache<St> {
    /// An empty cache in front of `store`, with the operating system's monotonic clock.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self::with_clock(store, MonotonicClock::default())
    }
}

impl<St, C> DenialCache<St, C> {
    /// An empty cache in front of `store`, with `clock`.
    #[must_use]
    pub fn with_clock(store: St, clock: C) -> Self {
        Self { store, clock, denials: Arc::default() }
    }

    /// The store behind the cache.
    #[must_use]
    pub const fn store(&self) -> &St {
        &self.store
    }

    /// The number of buckets that are remembered, including those that are out of date but not
    /// dropped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.denials.len()
    }

    /// Whether no bucket is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<St: Store, C: Clock> Store for DenialCache<St, C> {
    type Check = Concluding<St::Check, DenialCacheCall>;

    #[inline]
    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        let Some(entry) = of_one_unit(&charge) else {
            let call = DenialCacheCall::forgetting(&self.denials, &charge);
            return self.store.check(charge).conclude_with(call);
        };
        let changes = self.denials.changes();
        let now = nanos(self.clock.now());
        if let Some(decision) = self.denials.recall(charge.principal(), entry, now) {
            return Answer::Now(Ok(Decisions::of_one(decision)));
        }
        match self.store.check(charge) {
            Answer::Now(answer) => Answer::Now(answer),
            later @ Answer::Later(_) => {
                let asked = Asked::new(charge.principal(), entry, now, changes);
                later.conclude_with(DenialCacheCall::learning(&self.denials, asked))
            }
        }
    }

    /// Calls the store: a peek does not use the cache.
    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        // Forgets the buckets even if the call fails or is dropped: the store may have carried it
        // out.
        let _forget = Forget { denials: &self.denials, buckets: command.changes().collect() };
        self.store.command(command).await
    }

    /// Submits to the store, and forgets the buckets.
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        let _forget = Forget { denials: &self.denials, buckets: command.changes().collect() };
        self.store.submit(command)
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn report(&self) -> StoreReport {
        let mut report = self.store.report();
        report.remembered_denials += self.len();
        report
    }

    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener);
    }
}

/// The entry of a charge of one unit of one binding bucket.
#[inline]
fn of_one_unit<'a>(charge: &Charge<'a>) -> Option<&'a Entry> {
    match charge.entries() {
        [entry] if entry.cost() == 1 && entry.is_binding() && is_remembered(entry.scope()) => {
            Some(entry)
        }
        _ => None,
    }
}

/// Whether buckets of limits with that scope are found by principal and name.
const fn is_remembered(scope: Scope) -> bool {
    matches!(scope, Scope::Account | Scope::Address)
}

impl<St: fmt::Debug, C> fmt::Debug for DenialCache<St, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buckets are left out: they are many, and ids do not belong in a log.
        f.debug_struct("DenialCache")
            .field("store", &self.store)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// How a [`DenialCache`] concludes a check: it learns from the answer. Part of its
/// [`Store::Check`].
///
/// The [example of `DenialCache`](DenialCache) makes such a store.
pub struct DenialCacheCall {
    denials: Arc<Denials>,
    lesson: Lesson,
}

enum Lesson {
    /// Remember the refusal in the answer.
    Learn(Asked),
    /// Forget what is known of the buckets: the cache can't tell what the answer means for it.
    Forget(OwnedCharge),
}

impl DenialCacheCall {
    fn learning(denials: &Arc<Denials>, asked: Asked) -> Self {
        Self { denials: Arc::clone(denials), lesson: Lesson::Learn(asked) }
    }

    #[cold]
    fn forgetting(denials: &Arc<Denials>, charge: &Charge<'_>) -> Self {
        Self { denials: Arc::clone(denials), lesson: Lesson::Forget(OwnedCharge::of(charge)) }
    }
}

impl Conclude for DenialCacheCall {
    fn conclude(self, answer: Checked) -> Checked {
        match (&self.lesson, &answer) {
            (Lesson::Learn(asked), Ok(decisions)) => self.denials.learn(asked, decisions.first()),
            (Lesson::Learn(_), Err(_)) => {}
            (Lesson::Forget(charge), _) => {
                let charge = charge.borrow();
                charge.buckets().for_each(|bucket| self.denials.forget_bucket(&bucket));
            }
        }
        answer
    }
}

impl fmt::Debug for DenialCacheCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenialCacheCall").finish_non_exhaustive()
    }
}

/// Forgets buckets when it is dropped.
struct Forget<'a> {
    denials: &'a Denials,
    buckets: Vec<Bucket<'a>>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        for bucket in &self.buckets {
            self.denials.forget_bucket(bucket);
        }
    }
}
