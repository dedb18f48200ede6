//! A circuit breaker around a store.

mod circuit;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Answer, Capabilities, Charge, Command, Concluding, Reply, Store, StoreError, StoreListener,
    StoreReport,
};
use crate::values::clock::{Clock, MonotonicClock};

use circuit::Circuit;

pub use circuit::BreakerCall;

/// Stops calling a store that fails, so that no request waits for an answer that will not come.
///
/// The breaker is *closed* while the store works. It opens
/// * at the fifth failure in a row, or
/// * at a failure, if then at least half of at least 20 answers within one second have failed. The
///   second begins with an answer. The next answer after its end begins the next second.
///
/// While it is *open*, the store is not called: every call fails at once. After
/// [`try_again_after`](Self::try_again_after), one [`check`](Store::check) goes through to the
/// store as a trial, while the other calls still fail at once. If the trial succeeds, the breaker
/// closes. If the store fails again, the next trial is after the same time again. If the trial is
/// dropped before its answer, or ends with an error [of one request](StoreError::of_request), the
/// next check is the trial.
///
/// The answers to checks and to all other calls are counted, in the order in which they arrive.
/// Only a failure [of the store](StoreError::is_of_store) counts as a failure. Not counted are
/// * errors [of one request](StoreError::of_request),
/// * calls that were dropped,
/// * commands that were [submitted](Store::submit), and
/// * answers to calls that were made before the breaker last opened or closed: the late success of
///   a call from before an outage says nothing about the present.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::{Breaker, MemoryStore};
/// use bolna_rate_limit::{Limiter, Policy};
///
/// # let store = MemoryStore::new();
/// let store = Breaker::new(store).try_again_after(Duration::from_millis(500));
/// let limiter = Limiter::with_store(Policy::default(), store)?;
/// // When the breaker opens: "the rate limiter can't count on its store: connection refused"
/// limiter.on_event(|event| eprintln!("{event}"));
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
///
/// It sends [`StoreEvent::Lost`](super::StoreEvent::Lost) when it opens and
/// [`StoreEvent::Regained`](super::StoreEvent::Regained) when it closes, not for
/// every failure or trial.
pub struct Breaker<St, C = MonotonicClock> {
    store: St,
    circuit: Arc<Circuit<C>>,
}

impl<St> Breaker<St> {
    /// A closed breaker in front of `store`, with the operating system's monotonic clock.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self::with_clock(store, MonotonicClock::default())
    }
}

impl<St, C: Clock> Breaker<St, C> {
    /// A closed breaker in front of `store`, with `clock`.
    #[must_use]
    pub fn with_clock(store: St, clock: C) -> Self {
        Self { store, circuit: Arc::new(Circuit::new(clock)) }
    }

    /// Sets the time from the opening of the breaker, or from the failure of a trial, to the next
    /// trial. Defaults to 1 s. With [`Duration::MAX`] there is no trial, and only
    /// [`close`](Self::close) closes the breaker.
    #[must_use]
    pub fn try_again_after(self, period: Duration) -> Self {
        self.circuit.try_again_after(period);
        self
    }

    /// Opens the breaker by hand, without a [`reason`](Self::reason). Has no effect if it is open.
    pub fn open(&self) {
        self.circuit.open();
    }

    /// Closes the breaker, as a successful trial does. Has no effect if it is closed.
    ///
    /// For programs that learn by other means that the store is back.
    pub fn close(&self) {
        self.circuit.close();
    }
}

impl<St, C> Breaker<St, C> {
    /// Whether the breaker is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.circuit.is_open()
    }

    /// Why the breaker is open: the failure that opened it, or the failure of the last trial. Each
    /// error is followed by its source. `None` if the breaker is closed, or was opened [by
    /// hand](Self::open) and no trial has failed since.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        self.circuit.reason()
    }

    /// The store behind the breaker.
    #[must_use]
    pub const fn store(&self) -> &St {
        &self.store
    }
}

impl<St: Store, C: Clock> Store for Breaker<St, C> {
    type Check = Concluding<St::Check, BreakerCall<C>>;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        match Circuit::admit_or_try(&self.circuit) {
            Some(call) => self.store.check(charge).conclude_with(call),
            None => Answer::Now(Err(open())),
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        let call = Circuit::admit(&self.circuit).ok_or_else(open)?;
        let reply = self.store.command(command).await;
        call.answered(&reply);
        reply
    }

    /// Submits to the store, unless the breaker is open. The result is not counted: a store that
    /// has taken a command has not answered it yet.
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        if self.is_open() {
            return Err(open());
        }
        self.store.submit(command)
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn report(&self) -> StoreReport {
        let mut report = self.store.report();
        report.breakers += 1;
        report.open_breakers += usize::from(self.is_open());
        report
    }

    /// Subscribes to the changes of the breaker, which are [`Lost`](super::StoreEvent::Lost) when
    /// it opens and [`Regained`](super::StoreEvent::Regained) when it closes, and to the events of
    /// the store.
    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener.clone());
        self.circuit.subscribe(move |event| listener.notify(event));
    }
}

impl<St: fmt::Debug, C> fmt::Debug for Breaker<St, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("store", &self.store)
            .field("is_open", &self.is_open())
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}

/// A zero-sized error, so that boxing it does not allocate.
#[derive(Debug)]
struct Open;

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the circuit breaker in front of the store is open")
    }
}

impl Error for Open {}

fn open() -> StoreError {
    StoreError::new(Open).of_kind("open")
}
