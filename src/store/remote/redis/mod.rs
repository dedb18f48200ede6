//! The protocol of Redis and Valkey.
