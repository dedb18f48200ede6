use tower::retry::Retry;
use tower_layer::Layer;

use super::pace::{PaceLayer, Pacer};
use super::retry::{CloneBodies, RetryPolicy};
use super::service::BolnaClient;
use crate::policy::Policy;

/// Keeps the requests to the wrapped service within the limits, and retries refused requests. See
/// [the module](crate::client).
///
/// Clones of the layer, and all services made from them, share one [`Pacer`] and one retry budget:
/// they keep to the limits together.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::client::{BolnaClientLayer, Pacer, RetryPolicy};
///
/// let pacer = Pacer::builder().evenly().max_wait(Duration::from_secs(30)).build()?;
/// let retry = RetryPolicy::builder().attempts(3).retry_unavailable().build()?;
/// let layer = BolnaClientLayer::with_pacer(pacer).retry(retry);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct BolnaClientLayer<C = CloneBodies> {
    pace: PaceLayer,
    retry: RetryPolicy<C>,
}

impl BolnaClientLayer {
    /// Bolna's documented limits, sent in bursts, with the defaults of [`RetryPolicy`].
    pub fn new() -> Self {
        Self::with_pacer(Pacer::new())
    }

    /// Other limits, sent in bursts.
    pub fn with_policy(policy: Policy) -> Self {
        Self::with_pacer(Pacer::with_policy(policy))
    }

    /// Uses this pacer, for example to send evenly or with other bounds. Other layers may share it.
    pub fn with_pacer(pacer: Pacer) -> Self {
        Self { pace: PaceLayer::new(pacer), retry: RetryPolicy::new() }
    }
}

impl<C> BolnaClientLayer<C> {
    /// Retries with this policy, which also decides which responses are
    /// [refusals](RetryPolicy::refusals) that pause an endpoint.
    pub fn retry<D>(self, retry: RetryPolicy<D>) -> BolnaClientLayer<D> {
        BolnaClientLayer { pace: self.pace.refusals(retry.refusals()), retry }
    }

    /// The pacer, for example to read the usage or to share it with another layer.
    #[must_use]
    pub const fn pacer(&self) -> &Pacer {
        self.pace.pacer()
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
