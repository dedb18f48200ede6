//! A connection in use: sends the calls of a worker, many at a time, and reads their answers.

use std::future::ready;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::time::Instant;

use super::address::Address;
use super::connect::{Node, Trait};
use super::error::answer::{is_elsewhere, is_lost, is_unknown_script, is_wrong_type};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::session::{Driver, Session};
use super::{key, script};
use crate::store::remote::core::CallError;
use crate::store::remote::failure::Reason;
use crate::store::remote::request::Request;
use crate::store::remote::server_time::Sighting;
use crate::store::remote::worker::{Answered, Connection};
use crate::values::clock::MonotonicClock;

/// The most calls that are sent together: with more, the first would wait for the last.
const TOGETHER: usize = 64;

/// A connection to a server that can do what requests need.
pub(super) struct Live {
    commands: MultiplexedConnection,
    driver: Driver,
    node: Node,
    server: Address,
    traits: Trait,
    clock: MonotonicClock,
    /// The calls to send, by the script's hash.
    calls: Vec<(u64, Request)>,
    /// The calls to send again, by the script's text, since the server does not know the hash.
    by_text: Vec<(u64, Request)>,
    in_flight: FuturesUnordered<Sending>,
    /// When to log in again.
    login_at: Option<Instant>,
    beats: usize,
}

/// What has been sent and is not answered yet.
type Sending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

enum Outcome {
    Calls {
        calls: Vec<(u64, Request)>,
        by_text: bool,
        answers: RedisResult<Vec<Value>>,
    },
    Beat(Result<Option<Sighting>, RedisStoreError>),
    /// The attempt to log in again has ended: the server with its new login if it has succeeded,
    /// and when to log in next.
    Login(Option<Address>, Option<Instant>),
}

impl Live {
    pub(super) fn new(node: Node, session: Session, traits: Trait, clock: MonotonicClock) -> Self {
        let Session { commands, driver, server, login_at } = session;
        Self {
            commands,
            driver,
            node,
            server,
            traits,
            clock,
            calls: Vec::new(),
            by_text: Vec::new(),
            in_flight: FuturesUnordered::new(),
            login_at,
            beats: 0,
        }
    }

    /// Sends the calls that wait.
    fn send_waiting(&mut self) {
        for by_text in [false, true] {
            let waiting = if by_text { &mut self.by_text } else { &mut self.calls };
            while !waiting.is_empty() {
                let rest = waiting.split_off(waiting.len().min(TOGETHER));
                let calls = mem::replace(waiting, rest);
                let prefix = &self.node.settings.prefix;
                let mut pipeline = Pipeline::with_capacity(calls.len());
                for (_, request) in &calls {
                    if request.asking {
                        pipeline.add_command(redis::cmd("ASKING"));
                    }
                    pipeline.add_command(if by_text {
                        script::by_text(prefix, request)
                    } else {
                        script::by_hash(prefix, request)
                    });
                }
                let mut commands = self.commands.clone();
                self.in_flight.push(Box::pin(async move {
                    let count = pipeline.len();
                    let answers = commands.req_packed_commands(&pipeline, 0, count).await;
                    Outcome::Calls { calls, by_text, answers }
                }));
            }
        }
        if self.login_at.is_some_and(|at| at <= Instant::now()) {
            self.login_at = None;
            let (node, commands) = (self.node.clone(), self.commands.clone());
            let server = self.server.clone();
            self.in_flight.push(Box::pin(async move {
                let (server, at) = node.log_in_again(commands, &server).await;
                Outcome::Login(server, at)
            }));
        }
    }

    /// Reads answers. Returns whether there were any.
    fn poll_in_flight(&mut self, cx: &mut Context<'_>, answers: &mut Vec<Answered>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(outcome)) = self.in_flight.poll_next_unpin(cx) {
            any = true;
            match outcome {
                Outcome::Calls { calls, by_text, answers: Ok(values) } => {
                    self.hand_out(calls, by_text, values, answers);
                }
                Outcome::Calls { calls, answers: Err(error), .. } => {
                    for (number, request) in calls {
                        let error = self.call_error(&request, &error);
                        answers.push(Answered::Call(number, Err(error)));
                    }
                }
                Outcome::Beat(beat) => {
                    answers.push(Answered::Beat(beat.map_err(|error| Reason::from(&error))));
                }
                Outcome::Login(server, at) => {
                    // Errors are scrubbed by the new login.
                    self.server = server.unwrap_or_else(|| self.server.clone());
                    self.login_at = at;
                }
            }
        }
        any
    }

    fn hand_out(
        &mut self,
        calls: Vec<(u64, Request)>,
        by_text: bool,
        values: Vec<Value>,
        answers: &mut Vec<Answered>,
    ) {
        let mut values = values.into_iter();
        for (number, request) in calls {
            if request.asking {
                values.next();
            }
            let value = values.next().unwrap_or(Value::Nil);
            match script::reply(&request, value) {
                Ok(reply) => answers.push(Answered::Call(number, Ok(reply))),
                Err(error) if is_unknown_script(&error) && !by_text => {
                    self.by_text.push((number, request));
                }
                Err(error) => {
                    let error = self.call_error(&request, &error);
                    answers.push(Answered::Call(number, Err(error)));
                }
            }
        }
    }

    fn call_error(&self, request: &Request, error: &RedisError) -> CallError {
        if is_wrong_type(error) {
            let index = script::foreign_bucket(error).unwrap_or(0);
            let bucket = request.buckets.get(index);
            let class = key::pattern(&self.node.settings.prefix, &request.principal, bucket);
            return CallError::Foreign { index, class: class.into() };
        }
        if let Some(moved) = is_elsewhere(error) {
            let to = error.redirect_node().and_then(|(told, _)| self.server.at_told(told));
            let to = to.map(|node| Arc::clone(node.name()));
            return CallError::Elsewhere { to, moved };
        }
        if error.is_io_error() {
            return CallError::Lost(self.broken());
        }
        let reason = Reason::from(&RedisStoreError::of(&self.server, "EVALSHA", error));
        if is_lost(&self.server, "EVALSHA", error) {
            CallError::Lost(reason)
        } else {
            CallError::Failed(reason)
        }
    }

    fn broken(&self) -> Reason {
        Reason::from(&broken(&self.server))
    }
}

impl Connection for Live {
    fn send(&mut self, number: u64, request: Request) {
        self.calls.push((number, request));
    }

    fn beat(&mut self) {
        self.beats = self.beats.wrapping_add(1);
        let (node, commands, turn) = (self.node.clone(), self.commands.clone(), self.beats);
        let (server, traits, clock) = (self.server.clone(), self.traits, self.clock);
        self.in_flight.push(Box::pin(async move {
            Outcome::Beat(node.beat(commands, &server, traits, clock, turn).await)
        }));
    }

    fn poll(&mut self, cx: &mut Context<'_>, answers: &mut Vec<Answered>) -> Poll<Reason> {
        loop {
            self.send_waiting();
            // What is in flight is sent when it is polled first, and written by the driver.
            let mut answered = self.poll_in_flight(cx, answers);
            let has_ended = self.driver.as_mut().poll(cx).is_ready();
            answered |= self.poll_in_flight(cx, answers);
            if has_ended {
                // A driver that has ended must not be polled again.
                self.driver = Box::pin(ready(()));
                return Poll::Ready(self.broken());
            }
            if !answered {
                return Poll::Pending;
            }
        }
    }
}

/// The error of a connection that was in use. What it says otherwise is for those that are opened.
pub(super) fn broken(server: &Address) -> RedisStoreError {
    RedisStoreError::new(Kind::Unreachable, server, "the connection broke")
}
