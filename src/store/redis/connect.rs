//! Connects to a server, and checks that it can charge buckets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, RedisError, Value,
};

use super::error::{REPLICA, RedisStoreError, RedisStoreErrorKind as Kind};
use super::script::{ScriptReply, Take, forget};
use super::server_time::ServerTime;
use super::settings::Settings;
use crate::values::Quota;

/// The oldest version of Redis whose `SET` has `PXAT`.
const OLDEST: (u32, u32) = (6, 2);

/// A connection, the server's clock as the probe showed it, and the server's address.
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    pub(super) time: ServerTime,
    pub(super) server: String,
}

/// Connects, and charges the probe bucket, which belongs to no principal. So anything that requests
/// need and the server lacks is found here.
pub(super) async fn connect(
    info: &ConnectionInfo,
    probe: &str,
    settings: &Settings,
) -> Result<Connection, RedisStoreError> {
    let (server, within) = (info.addr().to_string(), settings.connect_timeout);
    let mut commands = open(info, within).await?;
    verify(&mut commands, &server, within).await?;
    if let Err(error) = ask::<ScriptReply>(&mut commands, &nobodys().by_text(probe), within).await {
        return Err(
            which_permission(&mut commands, &server, probe, within, error.of(&server)).await
        );
    }
    ask::<i64>(&mut commands, &forget(probe), within).await.map_err(|error| error.of(&server))?;
    // Charge the probe bucket as requests charge theirs, and in the time that they have: a server
    // that is too slow for requests must be found before it gets any. The time is half the
    // deadline, because a request may wait for the call in flight and then for its own. There are
    // three tries, because the first ones may be slow for other reasons.
    let mut tries = 3;
    let (sent, arrived, shown) = loop {
        tries -= 1;
        match charge_nobody(&mut commands, &server, probe, settings.deadline / 2).await {
            Err(_) if tries > 0 => {}
            answer => break answer?,
        }
    };
    let mut time = ServerTime::new();
    time.learn(sent, arrived, shown);
    Ok(Connection { commands, time, server })
}

/// Finds out which command the user may not run. If a script runs it, the server's error does not
/// name it; if it is sent on its own, the error does.
async fn which_permission(
    commands: &mut MultiplexedConnection,
    server: &str,
    probe: &str,
    within: Duration,
    error: RedisStoreError,
) -> RedisStoreError {
    if error.kind() != Kind::MissingPermission {
        return error;
    }
    let [time, mut get, mut set] = ["TIME", "GET", "SET"].map(redis::cmd);
    get.arg(probe);
    set.arg(probe).arg(0).arg("PX").arg(1);
    for cmd in [time, get, set] {
        if let Err(refused) = ask::<Value>(commands, &cmd, within).await {
            return refused.of(server);
        }
    }
    error
}

/// Opens a connection that is authenticated but not checked.
pub(super) async fn open(
    info: &ConnectionInfo,
    within: Duration,
) -> Result<MultiplexedConnection, RedisStoreError> {
    let server = info.addr().to_string();
    let failed = |error| RedisStoreError::of(&server, error);
    // This module and its callers keep the deadlines themselves: the client's response timeout
    // would not bound the wait in the client's queue.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(within))
        .set_response_timeout(None);
    let client = Client::open(info.clone()).map_err(failed)?;
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    match tokio::time::timeout(within, connecting).await {
        Ok(connection) => connection.map_err(failed),
        Err(_) => Err(silent(&server, within)),
    }
}

/// Checks that the connected server can still charge buckets and is still a primary. Returns when
/// the call was sent, when the answer arrived, and the server's time in microseconds.
pub(super) async fn probe(
    commands: &mut MultiplexedConnection,
    server: &str,
    probe: &str,
    within: Duration,
) -> Result<(Instant, Instant, i64), RedisStoreError> {
    verify(commands, server, within).await?;
    charge_nobody(commands, server, probe, within).await
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// Checks the version and the role of the server. Every connection may ask for them, whatever
/// permissions its user has.
async fn verify(
    commands: &mut MultiplexedConnection,
    server: &str,
    within: Duration,
) -> Result<(), RedisStoreError> {
    let hello = match ask::<HashMap<String, Value>>(commands, &redis::cmd("HELLO"), within).await {
        Ok(hello) => hello,
        Err(Unanswered::Error(error))
            if error.detail().is_some_and(|said| said.contains("unknown command")) =>
        {
            return Err(too_old(server, "older than 6.0"));
        }
        Err(error) => return Err(error.of(server)),
    };
    let field = |name| hello.get(name).and_then(|value| String::from_redis_value_ref(value).ok());
    if let Some(version) = field("version") {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
            return Err(too_old(server, &version));
        }
    }
    if field("mode").is_some_and(|mode| mode == "sentinel") {
        let detail =
            "it is a Sentinel, which holds no buckets: name it by redis+sentinel://host/service";
        return Err(RedisStoreError::new(Kind::Other, server, detail));
    }
    // A bucket without a unit is only read, not written: a replica would go on refusing requests
    // for it.
    match field("role") {
        Some(role) if role != "master" => {
            Err(RedisStoreError::new(Kind::ReadOnly, server, REPLICA))
        }
        _ => Ok(()),
    }
}

async fn charge_nobody(
    commands: &mut MultiplexedConnection,
    server: &str,
    probe: &str,
    within: Duration,
) -> Result<(Instant, Instant, i64), RedisStoreError> {
    let mut sent = Instant::now();
    let mut answer = ask::<ScriptReply>(commands, &nobodys().by_hash(probe), within).await;
    if matches!(&answer, Err(Unanswered::Error(error)) if is_unknown_script(error)) {
        sent = Instant::now();
        answer = ask::<ScriptReply>(commands, &nobodys().by_text(probe), within).await;
    }
    let (_, _, shown) = answer.map_err(|error| error.of(server))?;
    Ok((sent, Instant::now(), shown))
}

/// A charge of the probe bucket, which is full again after 1 ms, so that its key expires at once.
fn nobodys() -> Take {
    let quota = Quota::per(1, Duration::from_millis(1)).build().expect("the quota is valid");
    Take { rate: quota.rate(), units: 1, deadline: 0 }
}

enum Unanswered {
    Error(RedisError),
    Silent(Duration),
}

impl Unanswered {
    fn of(self, server: &str) -> RedisStoreError {
        match self {
            Self::Error(error) => RedisStoreError::of(server, error),
            Self::Silent(within) => silent(server, within),
        }
    }
}

async fn ask<T: FromRedisValue>(
    commands: &mut MultiplexedConnection,
    cmd: &Cmd,
    within: Duration,
) -> Result<T, Unanswered> {
    match tokio::time::timeout(within, cmd.query_async(commands)).await {
        Ok(answer) => answer.map_err(Unanswered::Error),
        Err(_) => Err(Unanswered::Silent(within)),
    }
}

pub(super) fn silent(server: &str, within: Duration) -> RedisStoreError {
    RedisStoreError::new(
        Kind::Unreachable,
        server,
        format!("it has not answered within {within:?}"),
    )
}

fn too_old(server: &str, version: &str) -> RedisStoreError {
    let detail =
        format!("its version is {version}: the store needs Redis 6.2 or Valkey, for SET ... PXAT");
    RedisStoreError::new(Kind::TooOld, server, detail)
}
