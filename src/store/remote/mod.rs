//! What any store beyond a network needs.
#![allow(dead_code)]

mod failure;
mod redis;
mod request;
