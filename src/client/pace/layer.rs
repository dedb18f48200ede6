use tower_layer::Layer;

use super::pacer::Pacer;
use super::service::Pace;
use crate::client::refusals::Refusals;

/// Paces the requests to the wrapped service, and retries nothing. It is the part of
/// [`BolnaClientLayer`](crate::client::BolnaClientLayer) for stacks that have retries of their own.
///
/// Clones of the layer, and all services made from them, share one [`Pacer`].
///
/// ```
/// use bolna_rate_limit::client::{PaceLayer, Pacer};
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let pacer = Pacer::new();
/// let layer = PaceLayer::new(pacer.clone());
/// let client = ServiceBuilder::new().layer(layer).service(service_fn(
///     async |_: Request<String>| {
///         let refusal = Response::builder().status(429).header("retry-after", "30");
///         Ok::<_, BoxError>(refusal.body(String::new())?)
///     },
/// ));
/// let response = client.oneshot(Request::post("/call").body(String::new())?).await?;
/// // The caller gets the refusal, and later requests to the endpoint wait.
/// assert_eq!(response.status(), 429);
/// assert!(pacer.peek("/call").is_some_and(|usage| !usage.paused().is_zero()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct PaceLayer {
    pacer: Pacer,
    refusals: Refusals,
}

impl PaceLayer {
    /// Uses this pacer. Other layers may share it.
    pub const fn new(pacer: Pacer) -> Self {
        Self { pacer, refusals: Refusals::new() }
    }

    /// Sets which responses are refusals, which pause their endpoint. Defaults to those with the
    /// status 429.
    pub const fn refusals(mut self, refusals: Refusals) -> Self {
        self.refusals = refusals;
        self
    }

    /// The pacer, for example to read the usage.
    #[must_use]
    pub const fn pacer(&self) -> &Pacer {
        &self.pacer
    }
}

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace::new(inner, self.pacer.clone(), self.refusals)
    }
}
