//! What any store beyond a network needs.
#![allow(dead_code)]

mod ask;
mod backoff;
mod batch;
mod core;
mod failure;
mod redis;
mod replay;
mod request;
mod ring;
mod server_time;
#[cfg(test)]
mod simulation;
mod supervisor;
