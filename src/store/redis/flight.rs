//! A call in flight: sent to the server and not answered yet.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult};

use super::commit::{Ask, Call};
use super::connect::{is_unknown_script, probe};
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::script::{Amendment, ScriptReply, Take};
use super::servers::Route;

/// What is sent to the server.
pub(super) enum Cargo {
    Calls { calls: Vec<Call>, pipeline: Pipeline, how: How },
    Look(Ask),
    Amend { ask: Ask, amendment: Amendment, deadline: i64 },
    Beat { route: Route, server: String, probe: String, within: Duration, number: usize },
}

/// How a call names its script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    ByHash,
    /// The server answered that it does not know the hash.
    ByText,
}

/// What the server answered.
pub(super) enum Landing {
    Calls {
        calls: Vec<Call>,
        how: How,
        sent: Instant,
        answers: RedisResult<Vec<RedisResult<ScriptReply>>>,
    },
    Look(Ask, RedisResult<ScriptReply>),
    Amend(Ask, Amendment, RedisResult<i64>),
    Beat(Result<(Instant, Instant, i64), RedisStoreError>),
}

/// Sends a call and waits for the answer.
pub(super) async fn fly(mut commands: MultiplexedConnection, cargo: Cargo) -> Landing {
    match cargo {
        Cargo::Calls { calls, pipeline, how } => {
            let sent = Instant::now();
            let answers = pipeline.query_async(&mut commands).await;
            Landing::Calls { calls, how, sent, answers }
        }
        Cargo::Look(ask) => {
            let take = Take { rate: ask.rate, units: 0, deadline: 0 };
            let answer =
                run(&mut commands, take.by_hash(&ask.key), || take.by_text(&ask.key)).await;
            Landing::Look(ask, answer)
        }
        Cargo::Amend { ask, amendment, deadline } => {
            let by_text = || amendment.by_text(&ask.key, deadline);
            let answer = run(&mut commands, amendment.by_hash(&ask.key, deadline), by_text).await;
            Landing::Amend(ask, amendment, answer)
        }
        Cargo::Beat { route, server, probe: key, within, number } => {
            let beat = async {
                let seen = probe(&mut commands, &server, &key, within).await?;
                // A server that knows that it was demoted fails the probe; one that does not know
                // it yet goes on charging.
                match route.leads_elsewhere(&server, number, within).await {
                    Some(named) => {
                        let detail = format!("the Sentinels now name {named} as the primary");
                        Err(RedisStoreError::new(Kind::ReadOnly, &server, detail))
                    }
                    None => Ok(seen),
                }
            };
            Landing::Beat(beat.await)
        }
    }
}

/// Runs a script by its hash, or by its text if the server does not know the hash.
async fn run<T: FromRedisValue>(
    commands: &mut MultiplexedConnection,
    by_hash: Cmd,
    by_text: impl FnOnce() -> Cmd,
) -> RedisResult<T> {
    match by_hash.query_async(commands).await {
        Err(error) if is_unknown_script(&error) => by_text().query_async(commands).await,
        answer => answer,
    }
}
