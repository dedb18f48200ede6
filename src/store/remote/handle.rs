//! One server as requests see it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::pending::{Op, Pending, Ticket};
use super::settings::Settings;
use super::supervisor::Told;
use crate::store::{Reply, StoreError, StoreEvent, StoreReport, nanos};
use crate::values::Principal;
use crate::values::clock::{Clock, MonotonicClock};

/// Sends requests to the worker of one server. Without a connection they fail at once.
#[derive(Clone)]
pub(super) struct Handle {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
}

/// What a [`Handle`] and its worker share.
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    /// The number of the server among those of this process: its losses are reported under it.
    pub(super) number: u64,
    pub(super) clock: MonotonicClock,
    pub(super) up: AtomicBool,
    /// The number of losses that were reported and whose ends were not.
    losses: AtomicU32,
    pub(super) late_charges: AtomicU64,
}

/// A message to a worker.
pub(super) enum Message {
    Request(Pending<Sender>),
    /// Corrections of the principal were submitted.
    Correct(Principal),
    /// The server now has the buckets of other servers. This many of their losses were reported,
    /// and the ends of these losses were not.
    Inherit(u32),
}

/// The ticket of a request.
pub(super) struct Sender(oneshot::Sender<Answer>);

type Answer = Result<Reply, Failure>;

impl Ticket for Sender {
    fn is_waiting(&self) -> bool {
        !self.0.is_closed()
    }

    fn say(self, answer: Answer) {
        // The request does not wait any more.
        let _ = self.0.send(answer);
    }
}

impl Shared {
    pub(super) fn new(settings: Arc<Settings>, number: u64, clock: MonotonicClock) -> Self {
        let (up, losses, late_charges) = (false.into(), 0.into(), 0.into());
        Self { settings, number, clock, up, losses, late_charges }
    }

    /// Reports an event of the server. `told` is all that was reported so far.
    pub(super) fn emit(&self, event: StoreEvent, told: &Told) {
        self.losses.store(told.losses, Ordering::Release);
        self.settings.emit(self.number, event);
    }
}

/// When the server is no longer used, new listeners are no longer told that it is lost.
impl Drop for Shared {
    fn drop(&mut self) {
        self.settings.forget(self.number);
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> (Self, mpsc::UnboundedReceiver<Message>) {
        // Unbounded, since each message is a request that is in memory anyway.
        let (messages, inbox) = mpsc::unbounded_channel();
        (Self { shared, messages }, inbox)
    }

    /// Asks the server. The answer comes within the deadline.
    pub(super) fn request(&self, principal: &Principal, op: Op) -> Result<Waiting, Failure> {
        if !self.is_up() {
            return Err(Failure::Lost);
        }
        let now = nanos(self.shared.clock.now());
        let (sender, receiver) = oneshot::channel();
        let deadline = now + nanos(self.shared.settings.deadline);
        self.send(Pending::new(principal.clone(), op, deadline, Sender(sender)));
        Ok(Waiting { receiver })
    }

    /// Passes on a request that another server has sent on.
    pub(super) fn send(&self, pending: Pending<Sender>) {
        // If the worker has ended, so has the store, and the request's ticket is dropped.
        let _ = self.messages.send(Message::Request(pending));
    }

    /// Says that corrections of the principal were submitted.
    pub(super) fn correct(&self, principal: &Principal) {
        // If the worker has ended, so has the store or its runtime.
        let _ = self.messages.send(Message::Correct(principal.clone()));
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Acquire)
    }

    /// Takes over losses that were reported about other servers.
    pub(super) fn inherit(&self, losses: u32) {
        // If the worker has ended, so has the store.
        let _ = self.messages.send(Message::Inherit(losses));
    }

    pub(super) fn number(&self) -> u64 {
        self.shared.number
    }

    /// The number of losses that were reported and whose ends were not.
    pub(super) fn losses(&self) -> u32 {
        self.shared.losses.load(Ordering::Acquire)
    }

    pub(super) fn report(&self) -> StoreReport {
        StoreReport {
            breakers: 1,
            open_breakers: usize::from(!self.is_up()),
            late_charges: self.shared.late_charges.load(Ordering::Relaxed),
            ..StoreReport::default()
        }
    }
}

/// A request that waits for its answer.
pub(super) struct Waiting {
    receiver: oneshot::Receiver<Answer>,
}

impl Future for Waiting {
    type Output = Result<Reply, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The runtime of the worker was shut down.
        let answer = ready!(Pin::new(&mut self.receiver).poll(cx)).unwrap_or(Err(Failure::Lost));
        Poll::Ready(answer.map_err(StoreError::from))
    }
}
