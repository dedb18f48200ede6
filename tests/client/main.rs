//! What holds for clients: when they send, what they send again, and when.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod server;
mod support;

mod bounds;
mod drops;
mod learning;
mod pacing;
mod pauses;
mod permits;
mod retry;
mod retry_after;
mod runtimes;
mod tcp;
mod together;
mod usage;
