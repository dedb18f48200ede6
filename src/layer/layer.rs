use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tower_layer::Layer;

use super::gate::{Fallback, Gate};
use super::service::BolnaRateLimit;
use crate::enforcement::Enforcement;
use crate::identity::Identify;
use crate::insight::{Event, Observe};
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::store::{MemoryStore, Store};
use crate::wire::{Dialect, LegacyReset, Refusal};

/// Limits the requests to the services that it wraps. See the [crate's documentation](crate).
///
/// Clones, and all services made from them, share one limiter: wherever they stand, they count
/// together.
///
/// ```
/// use bolna_rate_limit::{BolnaRateLimitLayer, LegacyReset, Policy};
///
/// let policy = Policy::bolna().exempt(["/healthz"]).build()?;
/// let layer = BolnaRateLimitLayer::with_policy(policy)
///     .legacy_headers(LegacyReset::DeltaSeconds)
///     .retry_after_ms();
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct BolnaRateLimitLayer<St = MemoryStore> {
    gate: Arc<Gate<St>>,
}

impl BolnaRateLimitLayer {
    /// Bolna's documented limits, counted in this process.
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    /// Other limits, counted in this process.
    pub fn with_policy(policy: Policy) -> Self {
        Self::with_limiter(Limiter::new(policy))
    }
}

impl<St> BolnaRateLimitLayer<St> {
    /// Limits by that limiter, which may be in use elsewhere.
    pub fn with_limiter(limiter: Limiter<St>) -> Self {
        Self { gate: Arc::new(Gate::new(limiter)) }
    }

    /// The limiter: to look at buckets and to change limits while requests run.
    #[must_use]
    pub fn limiter(&self) -> &Limiter<St> {
        &self.gate.limiter
    }

    /// Finds out in another way who pays: from a type of your own in the request's extensions. By
    /// default from an [`Account`](crate::Account).
    pub fn identify(self, identify: impl Identify) -> Self {
        self.with(|gate| gate.identify = Some(Arc::new(identify)))
    }

    /// What becomes of a request that nobody can be billed for. By default it is refused with 401.
    pub fn on_unidentified(self, fallback: Fallback) -> Self {
        self.with(|gate| gate.unidentified = fallback)
    }

    /// What becomes of a request when the store can't be asked. By default it is refused with 503.
    pub fn on_store_failure(self, fallback: Fallback) -> Self {
        self.with(|gate| gate.store_failed = fallback)
    }

    /// The form of the `RateLimit` and `RateLimit-Policy` header fields. By default the newest
    /// draft's.
    pub fn dialect(self, dialect: Dialect) -> Self {
        self.with(|gate| gate.format.dialect = dialect)
    }

    /// Sends `X-RateLimit-Limit`, `-Remaining` and `-Reset` as well, for clients that know nothing
    /// newer. Off by default.
    ///
    /// The limit that they tell is the burst, of which the rest is what remains. A browser sees
    /// them only if CORS exposes them.
    pub fn legacy_headers(self, reset: LegacyReset) -> Self {
        self.with(|gate| gate.format.legacy = Some(reset))
    }

    /// Sends `retry-after-ms` with refusals as well: the wait in milliseconds, rounded up, for
    /// clients that read it (the `OpenAI` and `Anthropic` SDKs do). Off by default. A browser
    /// sees it only if CORS exposes it.
    pub fn retry_after_ms(self) -> Self {
        self.with(|gate| gate.format.retry_after_ms = true)
    }

    /// Renders refusals in another way than as `application/problem+json`.
    ///
    /// What the renderer makes is completed: `Cache-Control` and, on 429, `Retry-After` are added
    /// unless it has set them, the `RateLimit` fields are appended, and a HEAD request gets no
    /// content.
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Reason, Refusal};
    /// use bytes::Bytes;
    /// use http::Response;
    ///
    /// let layer = BolnaRateLimitLayer::new().render_refusals(|refusal: &Refusal<'_>| match refusal.reason() {
    ///     Reason::Limited(_) => {
    ///         let mut response = Response::new(Bytes::from_static(b"slow down\n"));
    ///         *response.status_mut() = refusal.status();
    ///         response
    ///     }
    ///     _ => refusal.problem(),
    /// });
    /// ```
    pub fn render_refusals<F>(self, render: F) -> Self
    where
        F: Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static,
    {
        self.with(|gate| gate.renderer = Some(Arc::new(render)))
    }

    /// On whom limits are enforced, by whatever policy: [`Enforcement::SHADOW`] refuses nobody and
    /// reports what it would have refused. It can be changed at any time with
    /// [`Limiter::set_enforcement`]. By default on everybody.
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Enforcement};
    ///
    /// let layer = BolnaRateLimitLayer::new().enforcement(Enforcement::SHADOW);
    /// // A week later, for every fourth principal:
    /// layer.limiter().set_enforcement(Enforcement::percent(25));
    /// ```
    pub fn enforcement(self, enforcement: Enforcement) -> Self {
        self.limiter().set_enforcement(enforcement);
        self
    }

    /// Sends the `RateLimit` fields also to those on whom the limit is not enforced, so that they
    /// can adapt to it before it is. Off by default: they are told nothing.
    pub fn fields_in_shadow(self) -> Self {
        self.with(|gate| gate.fields_in_shadow = true)
    }

    /// Leaves the [`Decision`](crate::Decision) in the extensions of each request that goes on, for
    /// the handler: how much is left, and in shadow mode whether the request would have been
    /// refused. Off by default, since it is an allocation for each request. There is none for
    /// exempt paths, nor where the store could not be asked.
    pub fn decision_in_extensions(self) -> Self {
        self.with(|gate| gate.hands_over = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Gate<St>)) -> Self {
        change(Arc::make_mut(&mut self.gate));
        self
    }
}

impl<St: Store> BolnaRateLimitLayer<St> {
    /// Tells `observer` of every request, as [`Limiter::observe`] does.
    pub fn observe(self, observer: impl Observe) -> Self {
        self.limiter().observe(observer);
        self
    }

    /// Calls `listener` when something happens to the limiter, as [`Limiter::on_event`] does.
    pub fn on_event(self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.limiter().on_event(listener);
        self
    }
}

impl<S, St> Layer<S> for BolnaRateLimitLayer<St> {
    type Service = BolnaRateLimit<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        BolnaRateLimit::new(inner, Arc::clone(&self.gate))
    }
}

impl<St> Clone for BolnaRateLimitLayer<St> {
    fn clone(&self) -> Self {
        Self { gate: Arc::clone(&self.gate) }
    }
}

impl Default for BolnaRateLimitLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<St: fmt::Debug> fmt::Debug for BolnaRateLimitLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BolnaRateLimitLayer").field("gate", &self.gate).finish()
    }
}
