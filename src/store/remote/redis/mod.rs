//! The protocol of Redis and Valkey.

mod key;
mod script;
