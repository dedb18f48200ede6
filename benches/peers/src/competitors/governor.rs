use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::StatusCode;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tower::service_fn;

use crate::calls::{Call, Key, Limit, inner};
use crate::runner::Runner;

/// The decision and nothing else. The inner service is called after a refusal too, so that what is
/// over the bare service is the decision alone.
pub fn runner(limit: Limit) -> Box<dyn Runner> {
    let limiter: Arc<DefaultKeyedRateLimiter<Key>> = Arc::new(RateLimiter::keyed(quota(limit)));
    Box::new(service_fn(move |call: Call| {
        let key = call.extensions().get::<Key>().expect("every call has a key");
        let admitted = limiter.check_key(key).is_ok();
        let mut response = inner(call).into_inner();
        if let (false, Ok(response)) = (admitted, &mut response) {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        std::future::ready(response)
    }))
}

pub fn quota(limit: Limit) -> Quota {
    let burst = NonZeroU32::new(limit.burst).expect("a burst is at least 1");
    Quota::with_period(limit.interval())
        .expect("an interval is longer than nothing")
        .allow_burst(burst)
}
