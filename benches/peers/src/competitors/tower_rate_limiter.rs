use std::time::Duration;

use axum::http::Request;
use tower::{Layer, service_fn};
use tower_rate_limiter::{GcraQuota, KeyExtractor, MemoryGcra, RateLimitError, RateLimitLayer};

use crate::calls::{Key, Limit, inner};
use crate::runner::Runner;

/// A refusal has the header fields, and no content.
pub fn runner(limit: Limit) -> Box<dyn Runner> {
    let layer = RateLimitLayer::builder(FromExtensions)
        .policy_name("agent")
        .with_policy(MemoryGcra::new(quota(limit)))
        .build()
        .expect("the policy's name is valid");
    Box::new(layer.layer(service_fn(inner)))
}

/// Its intervals are rounded up to a microsecond, so a bucket that refills faster is one that is
/// never used up instead.
fn quota(limit: Limit) -> GcraQuota {
    let fast = limit.interval() < Duration::from_micros(1);
    let burst = if fast { u32::MAX } else { limit.burst };
    GcraQuota::new(limit.limit, limit.period, burst).expect("the quota is valid")
}

#[derive(Clone, Copy)]
struct FromExtensions;

impl KeyExtractor for FromExtensions {
    type Key = Key;

    fn extract<T>(&self, call: &Request<T>) -> Result<Key, RateLimitError> {
        call.extensions()
            .get()
            .copied()
            .ok_or_else(|| RateLimitError::Key("no_key".into(), "no key".into()))
    }
}
