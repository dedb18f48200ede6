use axum::body::Body;
use axum::http::Request;
use governor::clock::QuantaInstant;
use governor::middleware::NoOpMiddleware;
use tower::{Layer, service_fn};
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

use crate::calls::{Key, Limit, inner};
use crate::runner::Runner;

/// A refusal makes a new clock, which asks the processor with `cpuid` what it can do. In a virtual
/// machine that is trapped, and takes most of the time.
pub fn with_headers(limit: Limit) -> Box<dyn Runner> {
    let config = builder(limit).use_headers().finish().expect("the quota is valid");
    Box::new(GovernorLayer::<_, _, Body>::new(config).layer(service_fn(inner)))
}

pub fn without_headers(limit: Limit) -> Box<dyn Runner> {
    let config = builder(limit).finish().expect("the quota is valid");
    Box::new(GovernorLayer::<_, _, Body>::new(config).layer(service_fn(inner)))
}

fn builder(limit: Limit) -> GovernorConfigBuilder<FromExtensions, NoOpMiddleware<QuantaInstant>> {
    let mut builder = GovernorConfigBuilder::default().key_extractor(FromExtensions);
    builder.period(limit.interval()).burst_size(limit.burst);
    builder
}

#[derive(Clone, Copy)]
struct FromExtensions;

impl KeyExtractor for FromExtensions {
    type Key = Key;

    fn extract<T>(&self, call: &Request<T>) -> Result<Key, GovernorError> {
        call.extensions().get().copied().ok_or(GovernorError::UnableToExtractKey)
    }
}
