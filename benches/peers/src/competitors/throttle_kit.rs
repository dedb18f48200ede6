use std::sync::Arc;
use std::time::Duration;

use throttle_kit::{InMemoryBackend, Quota, RateLimitLayer};
use tower::{Layer, service_fn};

use crate::calls::{Key, Limit, inner};
use crate::runner::Runner;

/// It always sends its header fields when it admits, and keys are `String`s. A refusal has no
/// content and one constant field.
pub fn runner(limit: Limit) -> Box<dyn Runner> {
    let layer =
        RateLimitLayer::new(quota(limit), InMemoryBackend::new()).with_key_extractor(Arc::new(
            |_, extensions| extensions.get::<Key>().expect("every call has a key").to_string(),
        ));
    Box::new(layer.layer(service_fn(inner)))
}

/// Its time has a resolution of a millisecond, so a bucket that refills faster is one that is never
/// used up instead.
fn quota(limit: Limit) -> Quota {
    let fast = limit.interval() < Duration::from_millis(1);
    Quota::from_parts(limit.interval(), if fast { u32::MAX } else { limit.burst })
}
