//! The worker: the task that drives the [`Core`] of one server with sockets and timers.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::core::{Action, CallError, Core, Greeting};
use super::failure::{Failure, Reason};
use super::handle::{Message, Sender, Shared};
use super::pending::Pending;
use super::request::{Reply, Request};
use super::server_time::Sighting;
use crate::values::clock::{Clock, MonotonicClock};

/// The most messages that are received before calls are sent.
const AT_ONCE: usize = 256;

/// This many answers are handed out at once, or half of all if that is more.
///
/// An answer often leads to the caller's next request. If the answers of a whole pipeline were
/// handed out at once, the next calls would be sent together, and the server and this process would
/// take turns waiting for each other.
const IN_A_ROW: usize = 8;

/// How one server is connected to: what differs between protocols.
pub(super) trait Protocol: Send + 'static {
    type Connection: Connection;

    /// Connects, and checks that the server can do all that requests need.
    fn connect(
        &mut self,
        clock: MonotonicClock,
    ) -> impl Future<Output = Connected<Self::Connection>> + Send + 'static;
}

/// The outcome of an attempt to connect.
pub(super) type Connected<C> = Result<(C, Greeting), Reason>;

/// A connection to a server.
pub(super) trait Connection: Send + 'static {
    /// Adds a call to those that [`poll`](Self::poll) sends.
    fn send(&mut self, number: u64, request: Request);

    /// Begins to check that the server is well.
    fn beat(&mut self);

    /// Sends calls, and adds what was answered to `answers`. Ready if the connection is broken.
    fn poll(&mut self, cx: &mut Context<'_>, answers: &mut Vec<Answered>) -> Poll<Reason>;
}

/// What a server has answered.
#[derive(Debug)]
pub(super) enum Answered {
    Call(u64, Result<Reply, CallError>),
    Beat(Result<Option<Sighting>, Reason>),
}

/// The other servers of the store, as a worker reaches them.
pub(super) trait Surroundings: Send + Sync + 'static {
    /// The server was lost or can't be reached, or has answered that another node has a bucket.
    fn trouble(&self) {}

    /// Sends requests to the server of that address. By default they fail.
    fn forward(&self, _to: &str, pending: Vec<Pending<Sender>>) {
        for pending in pending {
            super::pending::Ticket::say(pending.ticket, Err(Failure::Moved));
        }
    }
}

/// For a store with one server.
impl Surroundings for () {}

type Connecting<C> = Pin<Box<dyn Future<Output = Connected<C>> + Send>>;

pub(super) struct Worker<P: Protocol> {
    pub(super) core: Core<Sender>,
    pub(super) protocol: P,
    pub(super) connection: Option<P::Connection>,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) surroundings: Arc<dyn Surroundings>,
}

/// A worker that has ended, such as with its runtime, sends nothing more.
impl<P: Protocol> Drop for Worker<P> {
    fn drop(&mut self) {
        self.shared.up.store(false, Ordering::Release);
    }
}

impl<P: Protocol> Worker<P> {
    /// Delivers the events that are there, before the worker runs.
    pub(super) fn emit(&mut self) {
        self.shared.up.store(self.core.is_up(), Ordering::Release);
        while let Some(event) = self.core.next_event() {
            self.shared.emit(event, self.core.told());
        }
    }

    /// Serves the requests until the store is dropped.
    pub(super) async fn run(self) {
        let clock = self.shared.clock;
        let mut running = Running {
            worker: self,
            clock,
            connecting: None,
            messages: Vec::with_capacity(AT_ONCE),
            answers: Vec::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: Some(0),
        };
        poll_fn(|cx| running.poll(cx)).await;
    }
}

struct Running<P: Protocol> {
    worker: Worker<P>,
    clock: MonotonicClock,
    connecting: Option<Connecting<P::Connection>>,
    messages: Vec<Message>,
    /// What was answered and is not handed out yet.
    answers: Vec<Answered>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires, in nanoseconds. It is not reset when a request is answered, so it may
    /// fire with nothing due.
    armed: Option<u64>,
}

impl<P: Protocol> Running<P> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut progress = self.poll_connection(cx);
            progress |= self.poll_connecting(cx);
            match self.worker.inbox.poll_recv_many(cx, &mut self.messages, AT_ONCE) {
                // The store was dropped.
                Poll::Ready(0) => return Poll::Ready(()),
                Poll::Ready(_) => progress = true,
                Poll::Pending => {}
            }
            for message in self.messages.drain(..) {
                match message {
                    Message::Request(pending) => self.worker.core.accept(pending),
                    Message::Correct(principal) => self.worker.core.correct(principal),
                    Message::Inherit(losses) => self.worker.core.inherit(losses),
                }
            }
            let now = self.now();
            if self.poll_timer(cx) {
                self.worker.core.wake(now);
                progress = true;
            }
            progress |= self.act(now);
            let shared = &self.worker.shared;
            shared.up.store(self.worker.core.is_up(), Ordering::Release);
            shared.late_charges.store(self.worker.core.late_charges(), Ordering::Relaxed);
            if !self.answers.is_empty() {
                // Yields, so that requests run with the first answers before the rest is handed
                // out.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }

    fn now(&self) -> u64 {
        crate::store::nanos(self.clock.now())
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(connection) = &mut self.worker.connection else { return false };
        let broken = connection.poll(cx, &mut self.answers);
        if self.answers.is_empty() && broken.is_pending() {
            return false;
        }
        let now = self.now();
        let all = self.answers.len();
        let first = if broken.is_ready() { all } else { all.min(IN_A_ROW.max(all / 2)) };
        let rest = self.answers.split_off(first);
        for answer in mem::replace(&mut self.answers, rest) {
            match answer {
                Answered::Call(number, answer) => self.worker.core.answered(now, number, answer),
                Answered::Beat(answer) => self.worker.core.beaten(now, answer),
            }
        }
        if let Poll::Ready(reason) = broken {
            self.worker.core.closed(now, &reason);
            self.worker.connection = None;
        }
        true
    }

    fn poll_connecting(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(connecting) = &mut self.connecting else { return false };
        let Poll::Ready(connected) = connecting.as_mut().poll(cx) else { return false };
        self.connecting = None;
        let now = self.now();
        match connected {
            Ok((connection, greeting)) => {
                self.worker.connection = Some(connection);
                self.worker.core.connected(now, greeting);
            }
            Err(reason) => self.worker.core.refused(now, &reason),
        }
        true
    }

    /// Whether something is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.worker.core.due() else { return false };
        if self.armed.is_none_or(|armed| due < armed) {
            let wait = Duration::from_nanos(due.saturating_sub(self.now()));
            self.timer.as_mut().reset(Instant::now() + wait);
            self.armed = Some(due);
        }
        let fired = self.timer.as_mut().poll(cx).is_ready();
        if fired {
            self.armed = None;
        }
        fired
    }

    /// Does what the core wants done. Returns whether that was anything.
    fn act(&mut self, now: u64) -> bool {
        let mut progress = false;
        while let Some(action) = self.worker.core.next(now) {
            progress = true;
            match action {
                Action::Connect => {
                    self.connecting = Some(Box::pin(self.worker.protocol.connect(self.clock)));
                }
                Action::Call(number, request) => {
                    if let Some(connection) = &mut self.worker.connection {
                        connection.send(number, request);
                    }
                }
                Action::Beat => {
                    if let Some(connection) = &mut self.worker.connection {
                        connection.beat();
                    }
                }
                Action::Close => {
                    self.worker.connection = None;
                    self.answers.clear();
                }
                Action::Tell(event) => {
                    // Requests find the server lost before its loss is reported.
                    self.worker.shared.up.store(self.worker.core.is_up(), Ordering::Release);
                    self.worker.shared.emit(event, self.worker.core.told());
                }
                Action::Trouble => self.worker.surroundings.trouble(),
                Action::Forward(to, pending) => self.worker.surroundings.forward(&to, pending),
            }
        }
        progress
    }
}
