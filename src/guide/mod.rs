//! The guide: how to use the library, from the first three lines to a store of your own.
//!
//! Each chapter answers one question, and can be read alone. Those who are new here read the first
//! four. All code in the chapters is compiled, and run where it needs no server.
//!
//! **First steps**
//!
//! 1. [`start`]: thirty seconds, three lines, what happens to a request, and where the layer
//!    belongs
//! 2. [`callers`]: who is the caller? JWT claims, API keys, sessions, network addresses
//! 3. [`limits`]: what "500 per minute" means; plans, costs, days, several limits, requests in
//!    flight, and limits for an API that is not Bolna's
//! 4. [`responses`]: what the client sees
//!
//! **In practice**
//!
//! 5. [`replicas`]: several replicas with one limit, on Redis or Valkey
//! 6. [`production`]: roll-out, changes while requests run, metrics, logs, and "why was I refused?"
//! 7. [`client`]: the other end: pace outgoing requests, so that they are not refused
//! 8. [`testing`]: unit tests of your own application
//! 9. [`security`]: what an attacker can and cannot do
//!
//! **To look up**
//!
//! 10. [`troubleshooting`]: from the symptom, or a code such as BRL001, to the cause
//! 11. [`moving`]: from tower_governor and others, with the code side by side
//! 12. [`performance`]: what it costs, and how to measure it
//! 13. [`inside`]: how it works inside
//! 14. [`own_store`]: a store of your own, step by step
//! 15. [`faq`]: questions and answers
//!
//! The [examples] can be run as they are. The page [`design`] is for maintainers.
//!
//! [examples]: https://docs.rs/crate/bolna-rate-limit/latest/source/examples/
//! [`design`]: crate::design

#[doc = include_str!("start.md")]
pub mod start {}

#[doc = include_str!("callers.md")]
pub mod callers {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("responses.md")]
pub mod responses {}

#[doc = include_str!("replicas.md")]
pub mod replicas {}

#[doc = include_str!("production.md")]
pub mod production {}

#[doc = include_str!("client.md")]
pub mod client {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("moving.md")]
pub mod moving {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("inside.md")]
pub mod inside {}

#[doc = include_str!("own_store.md")]
pub mod own_store {}

#[doc = include_str!("faq.md")]
pub mod faq {}
