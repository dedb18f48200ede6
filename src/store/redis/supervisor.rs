//! The task that keeps a connection to one server, and carries the requests' calls over it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, RedisResult};
use tokio::sync::mpsc;

use super::commit::{Ask, Call, Charge, Desk};
use super::connect::{Connection, connect, is_unknown_script, probe};
use super::error::{Failure, RedisStoreError, RedisStoreErrorKind as Kind, is_lost, is_moved, is_wrong_type};
use super::link::{Message, Shared};
use super::script::{Take, Taken, forget};
use super::server_time::ServerTime;
use super::servers::Route;
use super::settings::RedisEvent;
use crate::store::StoreError;

/// The most calls that go out together: more would make the first wait for the last.
const TOGETHER: usize = 64;

/// The most messages that are taken before calls are sent.
const AT_ONCE: usize = 256;

/// The time between two looks at a server that nobody complains of.
const BEAT: Duration = Duration::from_secs(1);

/// The shortest and the longest time between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// After so long without trouble, trouble is new.
const STEADY: Duration = Duration::from_secs(10);

pub(super) struct Supervisor {
    pub(super) route: Route,
    /// The key of a bucket that is nobody's.
    pub(super) probe: String,
    pub(super) shared: Arc<Shared>,
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    /// Called when there is a connection again.
    pub(super) on_up: Box<dyn Fn() + Send + Sync>,
    /// Called when the server can't be connected to, or says that a bucket is another's.
    pub(super) on_trouble: Box<dyn Fn() + Send + Sync>,
}

/// Why a connection is not served any more.
enum End {
    /// The store is gone.
    Dropped,
    Lost(RedisStoreError),
}

impl Supervisor {
    /// Serves the link until the store is dropped. Connects first, unless there is a connection.
    pub(super) async fn run(mut self, first: Option<Connection>) {
        // Whether the operator waits for word that the server counts: it is lost, or new.
        let mut told = first.is_none();
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
            if std::mem::take(&mut told) {
                self.shared.settings.tell(RedisEvent::Regained { server: server.clone() });
            }
            let since = Instant::now();
            let end = Service::new(&mut self, live).run().await;
            self.shared.up.store(false, Ordering::Release);
            match end {
                End::Dropped => return,
                End::Lost(reason) => self.tell_lost(server, reason, &mut told),
            }
            (self.on_trouble)();
            // A server that answers when it is asked alone and fails under load must not be tried twenty times a second.
            if since.elapsed() >= STEADY {
                backoff = Backoff::default();
            }
        }
    }

    /// Connects, however long it takes. `None` when the store is gone.
    async fn reconnect(&mut self, backoff: &mut Backoff, told: &mut bool) -> Option<Connection> {
        loop {
            self.refusing(tokio::time::sleep(backoff.next())).await?;
            let (route, probe) = (self.route.clone(), self.probe.clone());
            let settings = Arc::clone(&self.shared.settings);
            let connecting =
                async move { connect(&route.find(settings.connect_timeout).await?, &probe, &settings).await };
            match self.refusing(connecting).await? {
                Ok(connection) => return Some(connection),
                Err(reason) => self.tell_lost(self.route.to_string(), reason, told),
            }
            (self.on_trouble)();
        }
    }

    fn tell_lost(&self, server: String, reason: RedisStoreError, told: &mut bool) {
        if !std::mem::replace(told, true) {
            self.shared.settings.tell(RedisEvent::Lost { server, reason: Arc::new(reason) });
        }
    }

    /// Waits for the future, and turns away whoever asks meanwhile. `None` when the store is gone.
    async fn refusing<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            while let Poll::Ready(message) = self.messages.poll_recv(cx) {
                match message {
                    Some(Message::Take(ask) | Message::Look(ask) | Message::Forget(ask)) => {
                        ask.say(Err(Failure::Lost.into()));
                    }
                    Some(Message::Trip) => {}
                    None => return Poll::Ready(None),
                }
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

/// What has to be sent.
enum Cargo {
    Calls { calls: Vec<Call>, pipeline: Pipeline, how: How },
    Look(Ask),
    Forget(Ask),
    Beat { route: Route, server: String, probe: String, within: Duration, number: usize },
}

/// How calls are sent, for the first time or once more because nothing was charged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    ByHash,
    /// The server has said that it doesn't know the script.
    ByText,
    /// The server's clock had been set, so that the call seemed to come too late.
    Again,
}

/// What has come back.
enum Landing {
    Calls { calls: Vec<Call>, how: How, sent: Instant, answers: RedisResult<Vec<RedisResult<Taken>>> },
    Look(Ask, RedisResult<Taken>),
    Forget(Ask, RedisResult<i64>),
    Beat(Result<(Instant, Instant, i64), RedisStoreError>),
}

async fn fly(mut commands: MultiplexedConnection, cargo: Cargo) -> Landing {
    match cargo {
        Cargo::Calls { calls, pipeline, how } => {
            let sent = Instant::now();
            let answers = pipeline.query_async(&mut commands).await;
            Landing::Calls { calls, how, sent, answers }
        }
        Cargo::Look(ask) => {
            let take = Take { quota: ask.quota, units: 0, deadline: 0 };
            let mut answer = take.by_hash(&ask.key).query_async(&mut commands).await;
            if answer.as_ref().is_err_and(is_unknown_script) {
                answer = take.by_text(&ask.key).query_async(&mut commands).await;
            }
            Landing::Look(ask, answer)
        }
        Cargo::Forget(ask) => {
            let answer = forget(&ask.key).query_async(&mut commands).await;
            Landing::Forget(ask, answer)
        }
        Cargo::Beat { route, server, probe: key, within, number } => {
            let beat = async {
                let seen = probe(&mut commands, &server, &key, within).await?;
                // A server that knows of its demotion says so itself; one that does not know of it yet goes on charging.
                match route.leads_elsewhere(&server, number, within).await {
                    Some(named) => {
                        let detail = format!("the Sentinels name {named} as the primary now");
                        Err(RedisStoreError::new(Kind::ReadOnly, &server, detail))
                    }
                    None => Ok(seen),
                }
            };
            Landing::Beat(beat.await)
        }
    }
}

/// Waits for the answers to what was sent over a connection that is given up: a server that comes back in time charges for
/// it. Whoever asked waits no longer than he would have.
async fn settle(mut flights: FuturesUnordered<impl Future<Output = Landing>>) {
    let lost = || StoreError::from(Failure::Lost);
    while let Some(landing) = flights.next().await {
        match landing {
            Landing::Calls { calls, answers: Ok(answers), .. } => {
                // A call without an answer is dropped, which says that the server is lost.
                for (call, answer) in calls.into_iter().zip(answers) {
                    match answer.map(|(granted, used, _)| (u64::try_from(granted), used)) {
                        Ok((Ok(granted), used)) => call.conclude(granted, used.unsigned_abs()),
                        Ok((Err(_), _)) | Err(_) => call.fail(lost),
                    }
                }
            }
            Landing::Look(ask, Ok((_, used, _))) => {
                ask.say(Ok(Charge { granted: false, debt: used.unsigned_abs() }));
            }
            Landing::Forget(ask, Ok(_)) => {
                ask.say(Ok(Charge { granted: true, debt: 0 }));
            }
            Landing::Look(ask, Err(_)) | Landing::Forget(ask, Err(_)) => {
                ask.say(Err(lost()));
            }
            Landing::Calls { answers: Err(_), .. } | Landing::Beat(_) => {}
        }
    }
}

/// The serving of one connection.
struct Service<'a> {
    task: &'a mut Supervisor,
    commands: MultiplexedConnection,
    server: String,
    time: ServerTime,
    desk: Desk,
    /// Calls that have charged nothing and are sent once more.
    again: [Vec<Call>; 2],
    last_error: Option<RedisStoreError>,
    beats: usize,
    end: Option<End>,
}

impl<'a> Service<'a> {
    fn new(task: &'a mut Supervisor, Connection { commands, time, server }: Connection) -> Self {
        Self {
            task,
            commands,
            server,
            time,
            desk: Desk::default(),
            again: [const { Vec::new() }; 2],
            last_error: None,
            beats: 0,
            end: None,
        }
    }

    /// Carries calls until the connection is of no more use. Whoever's call was not sent then is told so by the loss of his
    /// sender.
    async fn run(mut self) -> End {
        let mut flights = FuturesUnordered::new();
        let (mut messages, mut landings) = (Vec::with_capacity(AT_ONCE), Vec::new());
        let mut beat = pin!(tokio::time::sleep(BEAT));
        let mut beating = false;
        loop {
            let due = poll_fn(|cx| {
                while let Poll::Ready(Some(landing)) = flights.poll_next_unpin(cx) {
                    landings.push(landing);
                }
                let received = self.task.messages.poll_recv_many(cx, &mut messages, AT_ONCE);
                if received == Poll::Ready(0) {
                    self.end = Some(End::Dropped);
                }
                let due = !beating && beat.as_mut().poll(cx).is_ready();
                if landings.is_empty() && received.is_pending() && !due { Poll::Pending } else { Poll::Ready(due) }
            })
            .await;
            for landing in landings.drain(..) {
                if matches!(landing, Landing::Beat(_)) {
                    beating = false;
                    beat.as_mut().reset(tokio::time::Instant::now() + BEAT);
                }
                self.land(landing);
            }
            for message in messages.drain(..) {
                match message {
                    Message::Take(ask) => self.desk.join(ask),
                    Message::Look(ask) => flights.push(fly(self.commands.clone(), Cargo::Look(ask))),
                    Message::Forget(ask) => flights.push(fly(self.commands.clone(), Cargo::Forget(ask))),
                    Message::Trip => self.trip(),
                }
            }
            if let Some(end) = self.end {
                tokio::spawn(tokio::time::timeout(self.task.shared.settings.deadline, settle(flights)));
                return end;
            }
            if due {
                beating = true;
                let beat = self.beat();
                flights.push(fly(self.commands.clone(), beat));
            }
            while let Some(cargo) = self.next_calls() {
                flights.push(fly(self.commands.clone(), cargo));
            }
        }
    }

    fn beat(&mut self) -> Cargo {
        self.beats = self.beats.wrapping_add(1);
        let Supervisor { route, probe, shared, .. } = &*self.task;
        Cargo::Beat {
            route: route.clone(),
            server: self.server.clone(),
            probe: probe.clone(),
            within: shared.settings.connect_timeout,
            number: self.beats,
        }
    }

    fn next_calls(&mut self) -> Option<Cargo> {
        let [by_text, again] = &mut self.again;
        let (calls, how) = if !by_text.is_empty() {
            (std::mem::take(by_text), How::ByText)
        } else if !again.is_empty() {
            (std::mem::take(again), How::Again)
        } else {
            (std::iter::from_fn(|| self.desk.next_call()).take(TOGETHER).collect(), How::ByHash)
        };
        if calls.is_empty() {
            return None;
        }
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in &calls {
            let deadline = call.deadline().map_or(0, |deadline| self.time.at(deadline));
            let take = Take { quota: call.quota, units: call.units(), deadline };
            pipeline.add_command(if how == How::ByText { take.by_text(&call.key) } else { take.by_hash(&call.key) });
        }
        pipeline.ignore_errors();
        Some(Cargo::Calls { calls, pipeline, how })
    }

    fn land(&mut self, landing: Landing) {
        match landing {
            Landing::Calls { calls, how, sent, answers: Ok(answers) } => {
                let arrived = Instant::now();
                let mut answers = answers.into_iter();
                let missing = || Err((ErrorKind::UnexpectedReturnType, "an answer is missing").into());
                for call in calls {
                    self.answer(call, how, sent, arrived, answers.next().unwrap_or_else(missing));
                }
            }
            Landing::Calls { calls, answers: Err(error), .. } => {
                for call in calls {
                    let failure = self.failure(&call.key, &error);
                    self.desk.done(&call.key);
                    call.fail(|| failure.clone().into());
                }
            }
            Landing::Look(ask, Ok((_, used, _))) => {
                ask.say(Ok(Charge { granted: false, debt: used.unsigned_abs() }));
            }
            Landing::Forget(ask, Ok(_)) => {
                ask.say(Ok(Charge { granted: true, debt: 0 }));
            }
            Landing::Look(ask, Err(error)) | Landing::Forget(ask, Err(error)) => {
                let failure = self.failure(&ask.key, &error);
                ask.say(Err(failure.into()));
            }
            Landing::Beat(Ok((sent, arrived, shown))) => self.time.learn(sent, arrived, shown),
            Landing::Beat(Err(reason)) => self.end = Some(End::Lost(reason)),
        }
    }

    fn answer(&mut self, call: Call, how: How, sent: Instant, arrived: Instant, answer: RedisResult<Taken>) {
        let [by_text, again] = &mut self.again;
        match answer {
            Ok((granted, used, shown)) => {
                self.time.learn(sent, arrived, shown);
                if granted < 0 && how != How::Again && !call.is_pointless() {
                    return again.push(call);
                }
                self.desk.done(&call.key);
                match u64::try_from(granted) {
                    Ok(granted) => call.conclude(granted, used.unsigned_abs()),
                    Err(_) => call.fail(|| Failure::Late.into()),
                }
            }
            Err(error) if is_unknown_script(&error) && how != How::ByText => by_text.push(call),
            Err(error) => {
                let failure = self.failure(&call.key, &error);
                self.desk.done(&call.key);
                call.fail(|| failure.clone().into());
            }
        }
    }

    /// What an error means for those who asked, and for the connection.
    fn failure(&mut self, key: &Arc<str>, error: &RedisError) -> Failure {
        if is_wrong_type(error) {
            return Failure::Foreign(Arc::clone(key));
        }
        if is_moved(error) {
            (self.task.on_trouble)();
            return Failure::Moved;
        }
        let reason = RedisStoreError::of(&self.server, error.clone());
        self.last_error = Some(reason.clone());
        if is_lost(error) {
            self.end = Some(End::Lost(reason.clone()));
        }
        Failure::Server(Arc::new(reason))
    }

    /// So much has failed that the connection is made anew, to see whether the server can be counted on.
    fn trip(&mut self) {
        let silent = || {
            let detail = "too many checks were not answered in time";
            RedisStoreError::new(Kind::Unreachable, &self.server, detail)
        };
        let reason = self.last_error.take().unwrap_or_else(silent);
        self.end.get_or_insert(End::Lost(reason));
    }
}

/// The time before the next attempt to connect: none at first.
#[derive(Default)]
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).clamp(BACKOFF.0, BACKOFF.1);
        // Between half of it and all of it, so that a fleet does not come back in step.
        let half = now / 2;
        let micros = u32::try_from(half.as_micros()).unwrap_or(u32::MAX).max(1);
        half + Duration::from_micros((super::random() % micros).into())
    }
}
