//! The state of a breaker: when it opens and when it closes.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::listeners::Listeners;
use crate::store::strikes::Strikes;
use crate::store::{Checked, Conclude, StoreError, StoreEvent, nanos};
use crate::values::clock::{Clock, MonotonicClock};

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// The period of a breaker that makes no trials.
const NEVER: u64 = u64::MAX;
/// The number of the breaker among lasting events: a circuit has only one.
const THIS: u64 = 0;

pub(super) struct Circuit<C> {
    clock: C,
    /// How many times the circuit has opened or closed. It is open when the number is odd.
    changes: AtomicU64,
    /// When the circuit last opened or closed, or the last trial failed, in nanoseconds.
    since: AtomicU64,
    /// The time from then to the next trial, in nanoseconds, or [`NEVER`].
    period: AtomicU64,
    /// Whether a trial is in flight.
    trying: AtomicBool,
    /// The atomics above but `period` change under this lock. They are read without it.
    tally: Mutex<Tally>,
    listeners: Listeners<StoreEvent>,
}

#[derive(Default)]
struct Tally {
    strikes: Strikes,
    reason: Option<Failure>,
}

impl<C> Circuit<C> {
    pub(super) fn new(clock: C) -> Self {
        Self {
            clock,
            changes: AtomicU64::new(0),
            since: AtomicU64::new(0),
            period: AtomicU64::new(SECOND),
            trying: AtomicBool::new(false),
            tally: Mutex::default(),
            listeners: Listeners::default(),
        }
    }

    pub(super) fn try_again_after(&self, period: Duration) {
        let period = if period == Duration::MAX { NEVER } else { nanos(period) };
        self.period.store(period, Ordering::Relaxed);
    }

    /// Adds a listener. If the circuit is open, the listener gets that event at once.
    pub(super) fn subscribe(&self, listener: impl Fn(&StoreEvent) + Send + Sync + 'static) {
        self.listeners.add(listener);
    }

    pub(super) fn is_open(&self) -> bool {
        is_open(self.changes.load(Ordering::Acquire))
    }

    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.tally().reason.as_ref().map(|failure| Arc::clone(&failure.reason))
    }

    /// Lets a call through if the circuit is closed.
    pub(super) fn admit(this: &Arc<Self>) -> Option<BreakerCall<C>> {
        let asked = this.changes.load(Ordering::Acquire);
        (!is_open(asked)).then(|| BreakerCall { circuit: Arc::clone(this), asked, trial: false })
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A panic leaves the tally valid: no value in it depends on another.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock> Circuit<C> {
    /// Lets a call through if the circuit is closed, or as a trial if one is due.
    pub(super) fn admit_or_try(this: &Arc<Self>) -> Option<BreakerCall<C>> {
        Self::admit(this).or_else(|| {
            let since = this.due()?;
            let _tally = this.tally();
            let asked = this.changes.load(Ordering::Relaxed);
            let trial = is_open(asked);
            if trial
                && (this.since.load(Ordering::Relaxed) != since
                    || this.trying.swap(true, Ordering::Relaxed))
            {
                return None;
            }
            Some(BreakerCall { circuit: Arc::clone(this), asked, trial })
        })
    }

    pub(super) fn open(&self) {
        let mut tally = self.tally();
        if !self.is_open() {
            self.change(&mut tally, None, true);
            drop(tally);
            self.listeners.deliver();
        }
    }

    pub(super) fn close(&self) {
        let mut tally = self.tally();
        if self.is_open() {
            self.change(&mut tally, None, false);
            drop(tally);
            self.listeners.deliver();
        }
    }

    /// The value of `since`, if a trial is due.
    fn due(&self) -> Option<u64> {
        // The clock is read after `since`. Compared to an older reading, a trial that failed in
        // between would be in the future, as if the clock had gone back.
        let since = self.since.load(Ordering::Acquire);
        let period = self.period.load(Ordering::Relaxed);
        let due = period != NEVER
            && !self.trying.load(Ordering::Relaxed)
            && self.now().wrapping_sub(since) >= period;
        due.then_some(since)
    }

    fn succeeded(&self, ticket: &mut BreakerCall<C>) {
        let mut tally = self.tally();
        if self.changes.load(Ordering::Relaxed) != ticket.asked {
            return;
        }
        if ticket.trial {
            self.change(&mut tally, None, false);
            drop(tally);
            self.listeners.deliver();
        } else {
            tally.strikes.succeeded(self.now());
        }
    }

    fn failed(&self, ticket: &mut BreakerCall<C>, reason: Failure) {
        let mut tally = self.tally();
        if self.changes.load(Ordering::Relaxed) != ticket.asked {
            return;
        }
        let now = self.now();
        if ticket.trial {
            self.since.store(now, Ordering::Release);
            self.trying.store(false, Ordering::Relaxed);
            ticket.trial = false;
            tally.reason = Some(reason.clone());
            self.listeners.note(|standing| {
                standing.insert(THIS, lost(Some(reason)));
                None
            });
            return;
        }
        if tally.strikes.failed(now) {
            self.change(&mut tally, Some(reason), true);
            drop(tally);
            self.listeners.deliver();
        }
    }

    /// Opens or closes the circuit, and queues the event. The caller delivers the event after it
    /// has released the lock.
    fn change(&self, tally: &mut Tally, reason: Option<Failure>, opens: bool) {
        self.since.store(self.now(), Ordering::Release);
        self.trying.store(false, Ordering::Relaxed);
        *tally = Tally { reason: reason.clone(), ..Tally::default() };
        self.changes.fetch_add(1, Ordering::Release);
        self.listeners.note(|standing| {
            if opens {
                let event = lost(reason);
                standing.insert(THIS, event.clone());
                Some(event)
            } else {
                standing.remove(&THIS);
                Some(StoreEvent::Regained { server: None })
            }
        });
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }
}

/// A failure of the store: its [kind](StoreError::kind), and its text.
#[derive(Clone)]
struct Failure {
    kind: &'static str,
    reason: Arc<str>,
}

/// The event of a breaker that opens because of that failure, or by hand.
fn lost(failure: Option<Failure>) -> StoreEvent {
    let Failure { kind, reason } = failure.unwrap_or_else(|| Failure {
        kind: "by_hand",
        reason: "its circuit breaker was opened by hand".into(),
    });
    StoreEvent::Lost { server: None, kind, reason }
}

/// How a [`Breaker`](super::Breaker) concludes a check: it counts the answer. Part of its
/// [`Store::Check`](crate::store::Store::Check).
///
/// The [example of `Breaker`](super::Breaker) makes such a store.
pub struct BreakerCall<C = MonotonicClock> {
    circuit: Arc<Circuit<C>>,
    /// The number of changes when the call was let through.
    asked: u64,
    trial: bool,
}

impl<C: Clock> BreakerCall<C> {
    /// Counts the answer to the call.
    pub(super) fn answered<T>(mut self, answer: &Result<T, StoreError>) {
        let circuit = Arc::clone(&self.circuit);
        match answer {
            Ok(_) => circuit.succeeded(&mut self),
            Err(error) if error.is_of_store() => {
                circuit.failed(&mut self, Failure { kind: error.kind(), reason: chain(error) });
            }
            Err(_) => {}
        }
    }
}

impl<C: Clock> Conclude for BreakerCall<C> {
    fn conclude(self, answer: Checked) -> Checked {
        self.answered(&answer);
        answer
    }
}

impl<C> fmt::Debug for BreakerCall<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerCall").field("trial", &self.trial).finish_non_exhaustive()
    }
}

/// A trial without a result makes room for another trial.
impl<C> Drop for BreakerCall<C> {
    fn drop(&mut self) {
        if self.trial {
            let _tally = self.circuit.tally();
            // After a change, a trial that is in flight is not this one.
            if self.circuit.changes.load(Ordering::Relaxed) == self.asked {
                self.circuit.trying.store(false, Ordering::Relaxed);
            }
        }
    }
}

fn is_open(changes: u64) -> bool {
    changes % 2 == 1
}

/// The texts of the error's sources. The text of the [`StoreError`] itself is left out, since it is
/// the same for all of them.
fn chain(error: &StoreError) -> Arc<str> {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text.into()
}
