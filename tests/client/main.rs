//! Tests of the client: when it sends, what it sends again, and when.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod callers;
mod foreign;
mod lines;
mod server;
mod support;

mod bounds;
mod calls;
mod chaos;
mod drops;
mod hosts;
mod in_flight;
mod in_flight_laws;
mod in_flight_learned;
mod in_flight_tcp;
mod in_flight_together;
mod laws;
mod learned;
mod learning;
mod limits;
mod live;
mod max_wait;
mod operator;
mod pacing;
mod pauses;
mod permits;
mod priorities;
mod readiness;
mod refusals;
mod resets;
mod retry;
mod retry_after;
mod runtimes;
mod suspended;
mod tasks;
mod tcp;
mod together;
mod unavailable;
mod uploads;
mod usage;
mod waited;
mod windows;
