//! What holds against real servers, which these tests start: `redis-server` and `redis-sentinel`,
//! or the programs that the environment names in `VALKEY_SERVER` or `REDIS_SERVER` and in
//! `REDIS_SENTINEL`; and `haproxy` and `nutcracker` (twemproxy).
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../bucket/mod.rs"]
mod bucket;
#[path = "../vectors/mod.rs"]
mod read;
mod servers;

mod bounds;
mod by_hand;
mod charges;
mod corrections;
mod drops;
mod events;
mod faults;
mod harness;
mod idle;
mod in_flight;
mod keys;
mod limits;
#[expect(clippy::float_arithmetic, reason = "levels are compared, not counted by")]
mod outages;
mod places;
mod replay;
mod replicas;
mod reports;
mod runtimes;
mod script;
mod start;
mod support;
mod wire;
