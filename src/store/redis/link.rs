//! The store on one server, as requests see it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::commit::{Ask, Taken};
use super::error::Failure;
use super::key::key;
use super::script::Amendment;
use super::settings::Settings;
use crate::store::{
    Answer, Charge, Checked, Command, Decisions, Entry, Reply, Store, StoreError, StoreEvent, nanos,
};
use crate::values::{Endpoint, Principal, Quota, Rate};

/// Sends requests to one server, through the supervisor that keeps a connection to it.
///
/// No answer takes longer than the deadline. Without a connection, requests fail at once.
pub(super) struct Link {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
}

/// What a [`Link`] and its supervisor share.
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    /// Identifies the server in the standing events.
    number: u64,
    pub(super) up: AtomicBool,
    /// Whether the loss of the server was reported, and its return not yet.
    pub(super) told: AtomicBool,
    /// The number of requests that wait for an answer.
    waiting: AtomicUsize,
    runtime: Handle,
}

impl Shared {
    pub(super) fn tell(&self, event: StoreEvent) {
        self.settings.tell(self.number, event);
    }
}

/// When the server is no longer used, new listeners are no longer told that it is lost.
impl Drop for Shared {
    fn drop(&mut self) {
        self.settings.listeners.note(|standing| {
            standing.remove(&self.number);
            None
        });
    }
}

/// A message from a [`Link`] to its supervisor.
pub(super) enum Message {
    /// Charge a unit.
    Take(Ask),
    /// Read the bucket.
    Look(Ask),
    /// Change the bucket by hand.
    Amend(Ask, Amendment),
    /// Reconnect, because too many requests have failed.
    Trip,
}

impl Message {
    /// Fails the request, because there is no connection.
    pub(super) fn refuse(self) {
        match self {
            Self::Take(ask) | Self::Look(ask) | Self::Amend(ask, _) => {
                ask.say(Err(Failure::Lost.into()));
            }
            Self::Trip => {}
        }
    }
}

impl Link {
    pub(super) fn new(
        settings: Arc<Settings>,
        number: u64,
    ) -> (Self, Arc<Shared>, mpsc::UnboundedReceiver<Message>) {
        // `Settings::most_waiting` bounds the channel, except for requests whose deadline passes
        // before the supervisor receives them.
        let (messages, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            settings,
            number,
            up: AtomicBool::new(false),
            told: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            runtime: Handle::current(),
        });
        (Self { shared: Arc::clone(&shared), messages }, shared, received)
    }

    /// A function that makes the supervisor reconnect.
    pub(super) fn tripper(&self) -> impl Fn() + Send + Sync + 'static {
        let messages = self.messages.downgrade();
        move || {
            if let Some(messages) = messages.upgrade() {
                // If the supervisor has ended, there is no connection to replace.
                let _ = messages.send(Message::Trip);
            }
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    #[cfg(feature = "redis-cluster")]
    pub(super) fn number(&self) -> u64 {
        self.shared.number
    }

    #[cfg(feature = "redis-cluster")]
    pub(super) fn is_told_lost(&self) -> bool {
        self.shared.told.load(Ordering::Acquire)
    }

    fn ask(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        rate: Rate,
        message: impl FnOnce(Ask) -> Message,
    ) -> Result<Waiting, StoreError> {
        if !self.shared.up.load(Ordering::Acquire) {
            return Err(Failure::Lost.into());
        }
        let place = Place::take(&self.shared)?;
        let settings = &self.shared.settings;
        let deadline = Instant::now() + settings.deadline;
        let (answer, receiver) = oneshot::channel();
        let key = key(&settings.prefix, endpoint, principal).into();
        let message = message(Ask { key, rate, deadline, answer });
        self.messages.send(message).map_err(|_| Failure::Lost)?;
        // The timer needs a tokio runtime, and the caller may use another executor.
        let _runtime = self.shared.runtime.enter();
        let until = tokio::time::sleep_until(deadline.into());
        Ok(Waiting { receiver, until, after: settings.deadline, _place: place })
    }
}

impl Link {
    async fn amend(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        amendment: Amendment,
    ) -> Result<(), StoreError> {
        // An amendment does not use the quota in `Ask`, so any quota will do.
        let any = Quota::per_second(1).build().map_err(StoreError::new)?.rate();
        self.ask(principal, endpoint, any, |ask| Message::Amend(ask, amendment))?.await.map(|_| ())
    }
}

impl Link {
    /// Sends a message about the bucket of an entry, which is measured in whole microseconds.
    fn ask_of(
        &self,
        principal: &Principal,
        entry: &Entry,
        message: impl FnOnce(Ask) -> Message,
    ) -> Result<LinkCheck, StoreError> {
        let rate = entry.rate().in_whole_micros();
        let waiting = self.ask(principal, entry.endpoint(), rate, message)?;
        let entry = Entry::counted_by(entry.endpoint(), entry.quota(), rate);
        Ok(LinkCheck { waiting, entry })
    }
}

/// Charges of one unit of one bucket: the store around it permits no others.
impl Store for Link {
    type Check = LinkCheck;

    fn check(&self, charge: Charge<'_>) -> Answer<LinkCheck> {
        match self.ask_of(charge.principal(), &charge.entries()[0], Message::Take) {
            Ok(check) => Answer::Later(check),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match command {
            Command::Peek(charge) => {
                let [entry, ..] = charge.entries() else { return Ok(Reply::Done) };
                let LinkCheck { waiting, entry } =
                    self.ask_of(charge.principal(), entry, Message::Look)?;
                let seen = match waiting.await? {
                    Taken::Denied { debt } if entry.rate().has(debt.saturating_mul(1000)) => {
                        Taken::Granted { debt }
                    }
                    seen => seen,
                };
                return Ok(Reply::Decisions(seen.decide(&entry)));
            }
            Command::Refund(charge) => {
                let entry = &charge.entries()[0];
                let rate = entry.rate().in_whole_micros();
                let micros = rate.time_of(entry.cost()) / 1000;
                let grant = Amendment::Grant { micros, rate };
                self.amend(charge.principal(), entry.endpoint(), grant).await?;
            }
            Command::Settle(_) => return Err(StoreError::unsupported(&command)),
            Command::Reset { principal, endpoint } => {
                self.amend(principal, endpoint, Amendment::Forget).await?;
            }
            Command::Block { principal, endpoint, period } => {
                let micros = nanos(period).div_ceil(1000);
                self.amend(principal, endpoint, Amendment::Block { micros }).await?;
            }
        }
        Ok(Reply::Done)
    }
}

impl Taken {
    /// The decision that follows from an answer in microseconds.
    fn decide(self, entry: &Entry) -> Decisions {
        Decisions::of_one(match self {
            Self::Granted { debt } => entry.decide(true, debt.saturating_mul(1000)),
            Self::Denied { debt } => entry.decide(false, debt.saturating_mul(1000)),
            Self::Blocked { wait } => entry.decide_blocked(wait.saturating_mul(1000)),
        })
    }
}

pin_project! {
    /// A check in flight.
    pub struct LinkCheck {
        #[pin]
        waiting: Waiting,
        entry: Entry,
    }
}

impl Future for LinkCheck {
    type Output = Checked;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Checked> {
        let this = self.project();
        let taken = ready!(this.waiting.poll(cx))?;
        Poll::Ready(Ok(taken.decide(this.entry)))
    }
}

pin_project! {
    struct Waiting {
        receiver: oneshot::Receiver<Result<Taken, StoreError>>,
        #[pin]
        until: Sleep,
        after: Duration,
        _place: Place,
    }
}

impl Future for Waiting {
    type Output = Result<Taken, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // When the connection is lost, the worker drops the requests that it can't answer.
        let lost = || Err(Failure::Lost.into());
        if let Poll::Ready(answer) = Pin::new(&mut *this.receiver).poll(cx) {
            return Poll::Ready(answer.unwrap_or_else(|_| lost()));
        }
        ready!(this.until.poll(cx));
        // An answer that has arrived meanwhile is used, or its unit would be lost.
        this.receiver.close();
        Poll::Ready(match this.receiver.try_recv() {
            Ok(answer) => answer,
            Err(_) => Err(Failure::NoAnswer(*this.after).into()),
        })
    }
}

/// One of the `most_waiting` places for waiting requests.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let most = shared.settings.most_waiting;
        if shared.waiting.fetch_add(1, Ordering::Relaxed) >= most {
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::TooMany(most).into());
        }
        Ok(Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
