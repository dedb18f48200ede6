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

use super::commit::{Ask, Charge};
use super::error::Failure;
use super::key::key;
use super::script::Amendment;
use super::settings::{RedisEvent, Settings};
use crate::store::{Answer, Bucket, Store, StoreError, block_nanos};
use crate::values::{Decision, Endpoint, Principal, Quota, Rate};

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
    pub(super) fn tell(&self, event: RedisEvent) {
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

impl Store for Link {
    type Check = LinkCheck;

    fn check(&self, bucket: Bucket<'_>) -> Answer<LinkCheck> {
        let Bucket { principal, endpoint, quota, .. } = bucket;
        let rate = bucket.rate().in_whole_micros();
        match self.ask(principal, endpoint, rate, Message::Take) {
            Ok(waiting) => Answer::Later(LinkCheck { waiting, endpoint, quota, rate }),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        let Bucket { principal, endpoint, quota, .. } = bucket;
        let rate = bucket.rate().in_whole_micros();
        let seen = self.ask(principal, endpoint, rate, Message::Look)?.await?;
        let seen = match seen {
            Charge::Denied { debt } if rate.has(debt.saturating_mul(1000)) => {
                Charge::Granted { debt }
            }
            seen => seen,
        };
        Ok(decision(endpoint, quota, rate, seen))
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.amend(principal, endpoint, Amendment::Forget).await
    }

    async fn refund(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let rate = bucket.rate().in_whole_micros();
        // A refund is capped at a full refill: more has no further effect, and might not be exact
        // on the server.
        let micros = rate.time_of(units).min(rate.refill()) / 1000;
        let grant = Amendment::Grant { micros, rate };
        self.amend(bucket.principal, bucket.endpoint, grant).await
    }

    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let micros = block_nanos(period).div_ceil(1000);
        self.amend(principal, endpoint, Amendment::Block { micros }).await
    }
}

/// The decision that follows from an answer in microseconds.
fn decision(endpoint: Endpoint, quota: Quota, rate: Rate, charge: Charge) -> Decision {
    let of = |allowed, debt: u64| {
        Decision::from_nanos(endpoint, quota, rate, allowed, debt.saturating_mul(1000))
    };
    match charge {
        Charge::Granted { debt } => of(true, debt),
        Charge::Denied { debt } => of(false, debt),
        Charge::Blocked { wait } => {
            Decision::blocked_by(endpoint, quota, rate, wait.saturating_mul(1000))
        }
    }
}

pin_project! {
    /// A check in flight.
    pub struct LinkCheck {
        #[pin]
        waiting: Waiting,
        endpoint: Endpoint,
        quota: Quota,
        rate: Rate,
    }
}

impl Future for LinkCheck {
    type Output = Result<Decision, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let charge = ready!(this.waiting.poll(cx))?;
        Poll::Ready(Ok(decision(*this.endpoint, *this.quota, *this.rate, charge)))
    }
}

pin_project! {
    struct Waiting {
        receiver: oneshot::Receiver<Result<Charge, StoreError>>,
        #[pin]
        until: Sleep,
        after: Duration,
        _place: Place,
    }
}

impl Future for Waiting {
    type Output = Result<Charge, StoreError>;

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
