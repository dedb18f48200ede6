use bolna_rate_limit::layer::Dialect;
use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
use tower::{Layer, service_fn};

use crate::calls::{Limit, inner};
use crate::runner::Runner;

pub fn with_headers(limit: Limit) -> Box<dyn Runner> {
    Box::new(layer(limit).layer(service_fn(inner)))
}

pub fn without_headers(limit: Limit) -> Box<dyn Runner> {
    Box::new(layer(limit).dialect(Dialect::Off).layer(service_fn(inner)))
}

/// Bolna's policy as it is, four endpoints and all, but for the quota of the one that is called.
fn layer(limit: Limit) -> BolnaRateLimitLayer {
    let quota = Quota::per(limit.limit, limit.period).burst(limit.burst);
    let policy = Policy::bolna().quota("agent", quota).build().expect("the quota is valid");
    BolnaRateLimitLayer::with_policy(policy)
}
