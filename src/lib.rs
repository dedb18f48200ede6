//! Tower middleware that enforces the rate limits of the Bolna API. (docs to come)
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
pub mod store;

mod account;
mod decision;
mod endpoint;
mod identity;
mod layer;
mod limiter;
mod path;
mod policy;
mod principal;
mod quota;
mod wire;

pub use account::Account;
pub use decision::Decision;
pub use endpoint::Endpoint;
pub use identity::Identify;
pub use layer::{BolnaRateLimit, BolnaRateLimitLayer, ResponseBody, ResponseFuture, Undecided};
pub use limiter::Limiter;
pub use policy::{Policy, PolicyBuilder, PolicyError};
pub use principal::{Id, Principal};
pub use quota::{Quota, QuotaBuilder, QuotaError};
pub use wire::{Dialect, LegacyReset, Reason, Refusal};
