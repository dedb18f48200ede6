//! The worker: sends the calls of one connection and hands out their answers.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, RedisResult};

use super::commit::{Call, Desk, Taken};
use super::connect::{Connection, is_unknown_script};
use super::error::{
    Failure, RedisStoreError, RedisStoreErrorKind as Kind, is_elsewhere, is_lost, is_wrong_type,
};
use super::flight::{Cargo, How, Landing, fly};
use super::key;
use super::link::Message;
use super::script::{Amendment, BLOCKED, ScriptReply, Take};
use super::server_time::ServerTime;
use super::supervisor::Supervisor;

/// The most calls that are sent together: with more, the first would wait for the last.
const TOGETHER: usize = 64;

/// The most messages that are received before calls are sent.
const AT_ONCE: usize = 256;

/// The time between two probes of the connected server.
const BEAT: Duration = Duration::from_secs(1);

/// Why a connection is no longer served.
pub(super) enum End {
    /// The store was dropped.
    Dropped,
    Lost(RedisStoreError),
}

/// Sends the requests' calls, many at a time, but at most one for each bucket.
pub(super) struct Service<'a> {
    task: &'a mut Supervisor,
    commands: MultiplexedConnection,
    server: String,
    time: ServerTime,
    desk: Desk,
    /// Calls that are sent again.
    again: Vec<Call>,
    /// Calls that are sent again, with the script's text.
    by_text: Vec<Call>,
    /// The last error, if no charge has been answered without one since.
    last_error: Option<RedisStoreError>,
    beats: usize,
    end: Option<End>,
}

impl<'a> Service<'a> {
    pub(super) fn new(
        task: &'a mut Supervisor,
        Connection { commands, time, server }: Connection,
    ) -> Self {
        Self {
            task,
            commands,
            server,
            time,
            desk: Desk::default(),
            again: Vec::new(),
            by_text: Vec::new(),
            last_error: None,
            beats: 0,
            end: None,
        }
    }

    /// Sends calls until the connection is lost or the store dropped.
    pub(super) async fn run(mut self) -> End {
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
                if landings.is_empty() && received.is_pending() && !due {
                    Poll::Pending
                } else {
                    Poll::Ready(due)
                }
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
                    Message::Look(ask) => {
                        flights.push(fly(self.commands.clone(), Cargo::Look(ask)));
                    }
                    Message::Amend(ask, amendment) => {
                        let deadline = self.latest(ask.deadline);
                        flights.push(fly(
                            self.commands.clone(),
                            Cargo::Amend { ask, amendment, deadline },
                        ));
                    }
                    Message::Trip => self.trip(),
                }
            }
            if self.end.is_some() {
                break;
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
        self.give_up(flights).await
    }

    /// Fails the requests whose calls were not sent, and waits for the calls in flight until the
    /// deadline of their requests has passed. If the server was only slow and still charges a call,
    /// the answer counts: it must not charge for requests that were decided without it.
    async fn give_up(
        mut self,
        mut flights: FuturesUnordered<impl Future<Output = Landing>>,
    ) -> End {
        let end = self.end.take().unwrap_or(End::Dropped);
        // Before any request fails, so that the failures do not count against the next connection.
        self.task.down();
        self.desk = Desk::default();
        let mut until = pin!(tokio::time::sleep(self.task.shared.settings.deadline));
        poll_fn(|cx| {
            // If the store was dropped, no new requests arrive, but earlier ones still wait.
            let _ = self.task.refuse(cx);
            while let Poll::Ready(landing) = flights.poll_next_unpin(cx) {
                match landing {
                    Some(landing) => self.land(landing),
                    None => return Poll::Ready(()),
                }
            }
            until.as_mut().poll(cx)
        })
        .await;
        end
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
        let how = if self.by_text.is_empty() { How::ByHash } else { How::ByText };
        let mut calls =
            std::mem::take(if how == How::ByText { &mut self.by_text } else { &mut self.again });
        if calls.is_empty() {
            calls.extend(std::iter::from_fn(|| self.desk.next_call()).take(TOGETHER));
        }
        if calls.is_empty() {
            return None;
        }
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in &calls {
            let deadline = call.deadline().map_or(0, |deadline| self.latest(deadline));
            let take = Take { rate: call.rate, units: call.units(), deadline };
            pipeline.add_command(if how == How::ByText {
                take.by_text(&call.key)
            } else {
                take.by_hash(&call.key)
            });
        }
        pipeline.ignore_errors();
        Some(Cargo::Calls { calls, pipeline, how })
    }

    /// The latest time, in microseconds of the server's clock, at which a charge can still be
    /// answered by `deadline`.
    fn latest(&self, deadline: Instant) -> i64 {
        // The answer takes a moment to come back: 1/25 of the deadline is reserved for it.
        self.time.at(deadline - self.task.shared.settings.deadline / 25)
    }

    fn land(&mut self, landing: Landing) {
        match landing {
            Landing::Calls { calls, how, sent, answers: Ok(answers) } => {
                let arrived = Instant::now();
                let mut answers = answers.into_iter();
                let missing =
                    || Err((ErrorKind::UnexpectedReturnType, "an answer is missing").into());
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
            Landing::Look(ask, Ok((granted, used, _))) => {
                let used = used.unsigned_abs();
                let blocked = granted == BLOCKED;
                ask.say(Ok(if blocked {
                    Taken::Blocked { wait: used }
                } else {
                    Taken::Denied { debt: used }
                }));
            }
            // The number of keys that were deleted does not matter.
            Landing::Amend(ask, Amendment::Forget, Ok(_)) | Landing::Amend(ask, _, Ok(1..)) => {
                ask.say(Ok(Taken::Granted { debt: 0 }));
            }
            Landing::Amend(ask, _, Ok(_)) => {
                ask.say(Err(Failure::Late.into()));
            }
            Landing::Look(ask, Err(error)) | Landing::Amend(ask, _, Err(error)) => {
                let failure = self.failure(&ask.key, &error);
                ask.say(Err(failure.into()));
            }
            Landing::Beat(Ok((sent, arrived, shown))) => self.time.learn(sent, arrived, shown),
            Landing::Beat(Err(reason)) => self.end = Some(End::Lost(reason)),
        }
    }

    fn answer(
        &mut self,
        call: Call,
        how: How,
        sent: Instant,
        arrived: Instant,
        answer: RedisResult<ScriptReply>,
    ) {
        match answer {
            Ok((granted, used, shown)) => {
                self.time.learn(sent, arrived, shown);
                self.last_error = None;
                match u64::try_from(granted) {
                    Ok(granted) => {
                        self.desk.done(&call.key);
                        call.conclude(granted, used.unsigned_abs());
                    }
                    Err(_) if granted == BLOCKED => {
                        self.desk.done(&call.key);
                        call.block(used.unsigned_abs());
                    }
                    // The call was late for its first request, or the server's clock was set.
                    Err(_) => self.once_more(call, arrived, How::ByHash),
                }
            }
            Err(error) if is_unknown_script(&error) && how == How::ByHash => {
                self.once_more(call, arrived, How::ByText);
            }
            Err(error) => {
                let failure = self.failure(&call.key, &error);
                self.desk.done(&call.key);
                call.fail(|| failure.clone().into());
            }
        }
    }

    /// Nothing was charged: sends the call again for the requests that can still be answered in
    /// time.
    fn once_more(&mut self, call: Call, now: Instant, how: How) {
        let key = Arc::clone(&call.key);
        match call.of_those_in_time(now) {
            Some(call) if how == How::ByText => self.by_text.push(call),
            Some(call) => self.again.push(call),
            None => self.desk.done(&key),
        }
    }

    /// Turns an error into the failure of the requests, and ends the connection if it is lost.
    fn failure(&mut self, key: &str, error: &RedisError) -> Failure {
        if is_wrong_type(error) {
            return Failure::Foreign(key::without_id(key).into());
        }
        if let Some(moved) = is_elsewhere(error) {
            if moved {
                (self.task.on_trouble)();
            }
            return Failure::Moved;
        }
        let reason = RedisStoreError::of(&self.server, error.clone());
        self.last_error = Some(reason.clone());
        if is_lost(error) {
            self.end = Some(End::Lost(reason.clone()));
        }
        Failure::Server(Arc::new(reason))
    }

    /// Ends the connection because too many requests have failed. Reconnecting shows whether the
    /// server can be used.
    fn trip(&mut self) {
        let silent = || {
            let detail = "too many checks were not answered in time";
            RedisStoreError::new(Kind::Unreachable, &self.server, detail)
        };
        let reason = self.last_error.take().unwrap_or_else(silent);
        self.end.get_or_insert(End::Lost(reason));
    }
}
