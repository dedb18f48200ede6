//! Not asking a store that fails.

mod circuit;

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::{Answer, Bucket, Store, StoreError, StoreEvent, StoreListener, StoreReport};
use crate::clock::{Clock, MonotonicClock};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;

use circuit::{Circuit, Ticket};

/// Stops asking a store that fails, so that nobody waits for an answer that will not come.
///
/// It is *closed* while all is well. It opens
/// * at the fifth failure in a row, or
/// * at a failure with which at least half of at least 20 answers within one second have failed.
///   Such a second begins with an answer, ends one second later, and the next one begins with the
///   next answer.
///
/// While it is *open*, the store is not asked: every call is answered at once with an error. After
/// [`try_again_after`](Self::try_again_after), one [`check`](Store::check) goes through as a trial,
/// while the others still fail at once. If the store answers it, the breaker closes; if it fails,
/// nobody asks for as long again. When nobody waits for the trial any more, or it was an error of
/// its request only, the next check is the trial.
///
/// Answers are counted in the order in which they come, to checks and everything else. Only a
/// failure [of the store](StoreError::is_of_store) counts as one. An error [of one
/// request](StoreError::of_request) counts as nothing, and so does a call that was dropped. An
/// answer to what was asked before the breaker last opened or closed counts as nothing either: a
/// success of before an outage, which comes late, says nothing about now.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::{Breaker, BreakerEvent, MemoryStore};
///
/// # let store = MemoryStore::new();
/// let store = Breaker::new(store).try_again_after(Duration::from_millis(500)).on_change(|event| match event {
///     BreakerEvent::Opened { reason } => eprintln!("the store fails: {}", reason.as_deref().unwrap_or("so I was told")),
///     event => eprintln!("{event:?}"),
/// });
/// ```
pub struct Breaker<St, C = MonotonicClock> {
    store: St,
    circuit: Arc<Circuit<C>>,
}

impl<St> Breaker<St> {
    /// A closed breaker in front of `store`, on the operating system's monotonic clock.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self::with_clock(store, MonotonicClock::default())
    }
}

impl<St, C: Clock> Breaker<St, C> {
    /// A closed breaker in front of `store`, on that clock.
    #[must_use]
    pub fn with_clock(store: St, clock: C) -> Self {
        Self { store, circuit: Arc::new(Circuit::new(clock)) }
    }

    /// How long after it has opened, or after a trial has failed, the store is tried again: 1 s by
    /// default. With [`Duration::MAX`] it never is, and only [`close`](Self::close) closes the
    /// breaker.
    #[must_use]
    pub fn try_again_after(self, period: Duration) -> Self {
        self.circuit.try_again_after(period);
        self
    }

    /// Calls `listener` when the breaker opens and when it closes: not for every failure, nor for
    /// every trial. It runs within the call that finds out, so it should do no more than to log
    /// or to count. Changes are told one at a time, in their order. Several listeners are all
    /// told.
    #[must_use]
    pub fn on_change(self, listener: impl Fn(BreakerEvent) + Send + Sync + 'static) -> Self {
        self.circuit.tell(move |event| listener(event.clone()));
        self
    }

    /// Opens the breaker, as failures do, with no [`reason`](Self::reason). Nothing changes if it
    /// is open.
    pub fn open(&self) {
        self.circuit.open();
    }

    /// Closes the breaker, as a trial that succeeds does. Nothing changes if it is closed.
    ///
    /// It is for those who find out by themselves that the store is back.
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

    /// Why the breaker is open: the failure that opened it or that of the last trial, each error
    /// followed by its source. `None` if it is closed, or was opened [by hand](Self::open).
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
    type Check = BreakerCheck<St::Check, C>;

    fn check(&self, bucket: Bucket<'_>) -> Answer<Self::Check> {
        let Some(ticket) = Circuit::admit_or_try(&self.circuit) else {
            return Answer::Now(Err(open()));
        };
        match self.store.check(bucket) {
            Answer::Now(answer) => {
                ticket.answered(&answer);
                Answer::Now(answer)
            }
            Answer::Later(check) => Answer::Later(BreakerCheck { check, ticket: Some(ticket) }),
        }
    }

    fn report(&self) -> StoreReport {
        let mut report = self.store.report();
        report.breakers += 1;
        report.open_breakers += usize::from(self.is_open());
        report
    }

    /// Tells of the breaker, as [`Lost`](StoreEvent::Lost) when it opens and
    /// [`Regained`](StoreEvent::Regained) when it closes, and of what the store tells.
    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener.clone());
        self.circuit.tell(move |event| listener.tell(&event.of_store()));
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        let ticket = Circuit::admit(&self.circuit).ok_or_else(open)?;
        let answer = self.store.peek(bucket).await;
        ticket.answered(&answer);
        answer
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        let ticket = Circuit::admit(&self.circuit).ok_or_else(open)?;
        let answer = self.store.reset(principal, endpoint).await;
        ticket.answered(&answer);
        answer
    }

    async fn grant(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let ticket = Circuit::admit(&self.circuit).ok_or_else(open)?;
        let answer = self.store.grant(bucket, units).await;
        ticket.answered(&answer);
        answer
    }

    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let ticket = Circuit::admit(&self.circuit).ok_or_else(open)?;
        let answer = self.store.block(principal, endpoint, period).await;
        ticket.answered(&answer);
        answer
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

/// What a [`Breaker`] tells its operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerEvent {
    /// The store is not asked any more.
    Opened {
        /// The failure that opened it, each error followed by its source: `no answer: connection
        /// refused`. `None` if it was opened [by hand](Breaker::open).
        reason: Option<Arc<str>>,
    },
    /// The store is asked again.
    Closed,
}

impl BreakerEvent {
    fn of_store(&self) -> StoreEvent {
        match self {
            Self::Opened { reason } => {
                let reason = reason
                    .clone()
                    .unwrap_or_else(|| "its circuit breaker was opened by hand".into());
                StoreEvent::Lost { server: None, reason }
            }
            Self::Closed => StoreEvent::Regained { server: None },
        }
    }
}

pin_project! {
    /// The check of a [`Breaker`]'s store, of which the breaker learns what came of it.
    #[must_use = "futures do nothing unless polled"]
    pub struct BreakerCheck<F, C = MonotonicClock> {
        #[pin]
        check: F,
        ticket: Option<Ticket<C>>,
    }
}

impl<F, C> Future for BreakerCheck<F, C>
where
    F: Future<Output = Result<Decision, StoreError>>,
    C: Clock,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.check.poll(cx));
        if let Some(ticket) = this.ticket.take() {
            ticket.answered(&answer);
        }
        Poll::Ready(answer)
    }
}

impl<F, C> fmt::Debug for BreakerCheck<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerCheck").finish_non_exhaustive()
    }
}

/// Of no size, so that the box around it is no allocation.
#[derive(Debug)]
struct Open;

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the circuit breaker in front of it is open")
    }
}

impl Error for Open {}

fn open() -> StoreError {
    StoreError::new(Open).of_kind("open")
}
