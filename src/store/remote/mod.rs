//! What any store beyond a network needs.
#![allow(dead_code)]

mod redis;
mod request;
