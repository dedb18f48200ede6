use tower_layer::Layer;

use super::pacer::Pacer;
use super::service::Pace;

/// Paces the requests to the services that it wraps, and retries nothing: a part of
/// [`BolnaClientLayer`](crate::client::BolnaClientLayer), for stacks that retry in a way of their
/// own.
///
/// Clones, and all services made from them, share one [`Pacer`].
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct PaceLayer {
    pacer: Pacer,
}

impl PaceLayer {
    /// Paces by that pacer, which may be in use elsewhere.
    pub const fn new(pacer: Pacer) -> Self {
        Self { pacer }
    }

    /// The pacer: to see how much is left.
    #[must_use]
    pub const fn pacer(&self) -> &Pacer {
        &self.pacer
    }
}

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace::new(inner, self.pacer.clone())
    }
}
