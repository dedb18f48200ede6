//! The supervisor: the task that keeps a connection to one server.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::mpsc;

use super::backoff::{Backoff, STEADY};
use super::connect::{Connection, connect};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::link::{Message, Shared};
use super::servers::Route;
use super::service::{End, Service};
use crate::store::StoreEvent;

pub(super) struct Supervisor {
    pub(super) route: Route,
    /// The key of the probe bucket, which belongs to no principal.
    pub(super) probe: String,
    pub(super) shared: Arc<Shared>,
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    /// Called when there is a connection, for the first time or again.
    pub(super) on_up: Box<dyn Fn() + Send + Sync>,
    /// Called when the connection is lost, before the requests in flight fail.
    pub(super) on_down: Box<dyn Fn() + Send + Sync>,
    /// Called when the connection is lost or can't be made, or when the server answers that another
    /// node serves a bucket.
    pub(super) on_trouble: Box<dyn Fn() + Send + Sync>,
}

impl Supervisor {
    /// Serves the requests until the store is dropped. Connects first, unless `first` is a
    /// connection.
    pub(super) async fn run(mut self, first: Option<Connection>) {
        let mut told =
            if self.shared.told.load(Ordering::Acquire) { Told::Lost(None) } else { Told::Counts };
        let (mut connection, mut backoff) = (first, Backoff::default());
        loop {
            let live = match connection.take() {
                Some(live) => live,
                None => match self.reconnect(&mut backoff, &mut told).await {
                    Some(live) => live,
                    None => return,
                },
            };
            let server = live.server.clone();
            self.shared.up.store(true, Ordering::Release);
            (self.on_up)();
            if told != Told::Counts {
                told = Told::Counts;
                self.shared.told.store(false, Ordering::Release);
                self.shared.tell(StoreEvent::Regained { server: Some(server.as_str().into()) });
            }
            let since = Instant::now();
            match Service::new(&mut self, live).run().await {
                End::Dropped => return,
                End::Lost(reason) => self.tell_lost(&server, &reason, &mut told),
            }
            (self.on_trouble)();
            // A server that passes the probe but fails under load must not be reconnected to 20
            // times a second.
            if since.elapsed() >= STEADY {
                backoff = Backoff::default();
            }
        }
    }

    /// Marks the server as lost: no more requests are sent to it, and the answers to earlier ones
    /// no longer count for the breaker.
    pub(super) fn down(&self) {
        self.shared.up.store(false, Ordering::Release);
        (self.on_down)();
    }

    /// Tries to connect until it succeeds. `None` if the store is dropped.
    async fn reconnect(&mut self, backoff: &mut Backoff, told: &mut Told) -> Option<Connection> {
        loop {
            self.refusing(tokio::time::sleep(backoff.next())).await?;
            let (route, probe) = (self.route.clone(), self.probe.clone());
            let settings = Arc::clone(&self.shared.settings);
            let connecting = async move {
                connect(&route.find(settings.connect_timeout).await?, &probe, &settings).await
            };
            match self.refusing(connecting).await? {
                Ok(connection) => return Some(connection),
                Err(reason) => self.tell_lost(&self.route.to_string(), &reason, told),
            }
            (self.on_trouble)();
        }
    }

    fn tell_lost(&self, server: &str, reason: &RedisStoreError, told: &mut Told) {
        let (before, kind) = (*told, reason.kind());
        *told = Told::Lost(Some(kind));
        self.shared.told.store(true, Ordering::Release);
        match before {
            Told::Counts => self.shared.tell(reason.lost(server)),
            Told::Lost(Some(before)) if before != kind => {
                self.shared.tell(reason.still_lost(server));
            }
            Told::Lost(_) => {}
        }
    }

    /// Waits for the future, and fails the requests that arrive meanwhile. `None` if the store is
    /// dropped.
    async fn refusing<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.refuse(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Fails the requests that have arrived. Ready if the store is dropped.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(message) = ready!(self.messages.poll_recv(cx)) {
            message.refuse();
        }
        Poll::Ready(())
    }
}

/// What was last reported about the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Counts,
    /// That it is lost; with the kind of reason, if this task reported it.
    Lost(Option<Kind>),
}
