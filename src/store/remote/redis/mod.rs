//! The protocol of Redis and Valkey.

mod address;
mod error;
mod secret;
