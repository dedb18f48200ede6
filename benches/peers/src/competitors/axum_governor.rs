use axum_governor::extractor::Extension;
use axum_governor::{GovernorConfigBuilder, GovernorLayer, Quota};
use tower::{Layer, service_fn};

use super::governor::quota;
use crate::calls::{Key, Limit, inner};
use crate::runner::Runner;

/// All that it does by default but for its sweeping task, which takes a runtime and would run once
/// a minute. It keeps statistics of its own of the last 65,536 callers. A refusal makes two new
/// clocks, see `tower_governor`.
pub fn runner(limit: Limit) -> Box<dyn Runner> {
    let config = GovernorConfigBuilder::default()
        .with_extractor(Extension::<Key>::new())
        .quota_default(Quota::from(quota(limit)))
        .gc_disable()
        .finish()
        .expect("the configuration is valid");
    Box::new(GovernorLayer::new(config).layer(service_fn(inner)))
}
