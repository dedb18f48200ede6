//! Servers that listen on 127.0.0.1 and end with the test that started them, however the test ends.

use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

mod cluster;
mod haproxy;
mod process;
mod proxy;
mod sentinels;
mod server;
mod stand_in;
mod twemproxy;

pub(crate) use cluster::Cluster;
pub(crate) use haproxy::Haproxy;
#[cfg(feature = "redis-tls")]
pub(crate) use process::Directory;
pub(crate) use process::free_port;
pub(crate) use proxy::{Mode, Proxy};
pub(crate) use sentinels::Sentinels;
pub(crate) use server::Server;
pub(crate) use stand_in::{
    Answer, ClockAhead, Command, Password, Rule, StandIn, TIME_RENAMED, no_hello, refuse,
    refuse_time, say,
};
pub(crate) use twemproxy::Twemproxy;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Asks every 10 ms until the answer is `Ok`. After 20 s the test has failed.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Outcome<T>) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(began.elapsed() < Duration::from_secs(20), "until {what}: {error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An error with what was seen, unless `is_so`.
pub(crate) fn when(is_so: bool, seen: impl Debug) -> Outcome<()> {
    if is_so { Ok(()) } else { Err(format!("{seen:?}").into()) }
}
