use tower::retry::Retry;
use tower_layer::Layer;

use super::pace::{PaceLayer, Pacer};
use super::retry::{CloneBodies, RetryPolicy};
use super::service::BolnaClient;
use super::usage::Usage;

/// Keeps the requests to the services that it wraps within the limits, and retries those that are refused all the same. See
/// [the module](crate::client).
///
/// Clones, and all services made from them, share one [`Pacer`] and one retry budget: wherever they stand, they keep to the limits
/// together.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::client::{BolnaClientLayer, Pacer, RetryPolicy};
///
/// let pacer = Pacer::builder().evenly().max_wait(Duration::from_secs(30)).build()?;
/// let retries = RetryPolicy::builder().attempts(3).retry_unavailable().build()?;
/// let layer = BolnaClientLayer::new().pacer(pacer).retry(retries);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct BolnaClientLayer<C = CloneBodies> {
    pace: PaceLayer,
    retry: RetryPolicy<C>,
}

impl BolnaClientLayer {
    /// Bolna's documented limits in bursts as they allow, and the defaults of [`RetryPolicy`].
    pub fn new() -> Self {
        Self { pace: PaceLayer::default(), retry: RetryPolicy::new() }
    }
}

impl<C> BolnaClientLayer<C> {
    /// Paces by that pacer, which may be in use elsewhere: by other limits, evenly, or with other bounds.
    pub fn pacer(self, pacer: Pacer) -> Self {
        Self { pace: PaceLayer::new(pacer), ..self }
    }

    /// Retries by that policy.
    pub fn retry<D>(self, retry: RetryPolicy<D>) -> BolnaClientLayer<D> {
        BolnaClientLayer { pace: self.pace, retry }
    }

    /// How each endpoint stands now, in the order of the policy's endpoints.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        self.pace.pacer().usage()
    }
}

impl<S, C: Clone> Layer<S> for BolnaClientLayer<C> {
    type Service = BolnaClient<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BolnaClient::new(Retry::new(self.retry.clone(), self.pace.layer(inner)))
    }
}

impl Default for BolnaClientLayer {
    fn default() -> Self {
        Self::new()
    }
}
