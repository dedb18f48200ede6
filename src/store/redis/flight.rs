//! One thing that has been sent to the server, until its answer is there.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult};

use super::commit::{Ask, Call};
use super::connect::{is_unknown_script, probe};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::script::{Take, Taken, forget};
use super::servers::Route;

/// What has to be sent.
pub(super) enum Cargo {
    Calls { calls: Vec<Call>, pipeline: Pipeline, how: How },
    Look(Ask),
    Forget(Ask),
    Beat { route: Route, server: String, probe: String, within: Duration, number: usize },
}

/// How a script is named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    ByHash,
    /// The server has said that it doesn't know the hash.
    ByText,
}

/// What has come back.
pub(super) enum Landing {
    Calls { calls: Vec<Call>, how: How, sent: Instant, answers: RedisResult<Vec<RedisResult<Taken>>> },
    Look(Ask, RedisResult<Taken>),
    Forget(Ask, RedisResult<i64>),
    Beat(Result<(Instant, Instant, i64), RedisStoreError>),
}

/// Sends it, and waits for what comes back.
pub(super) async fn fly(mut commands: MultiplexedConnection, cargo: Cargo) -> Landing {
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
