//! What is decided, for those who want to know: observers.
//!
//! A limiter tells its [observers](Observe) of every request that it decides about, and of what
//! happens to it: that limits were changed, that the store was lost, that it seems to be set up
//! [wrongly](Diagnosis). Without observers it tells nobody and spends nothing on it.
//!
//! | | |
//! |---|---|
//! | [`MostRefused`] | who is refused most, in bounded memory |
//! | a closure, with [`Limiter::on_event`](crate::Limiter::on_event) | what happens: a line for each is not too many |
//! | `Metrics`, with the feature `metrics` | counters and gauges for any recorder of the `metrics` facade |
//! | `Traces`, with the feature `tracing` | refusals and what happens, as events of `tracing` |
//! | a type of your own that implements [`Observe`] | everything |

mod checkup;
mod diagnosis;
mod event;
#[cfg(feature = "metrics")]
mod metrics;
mod most_refused;
mod observation;
#[cfg(feature = "tracing")]
mod throttle;
#[cfg(feature = "tracing")]
mod traces;

use std::sync::Arc;

pub use diagnosis::Diagnosis;
pub use event::Event;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metrics::Metrics;
pub use most_refused::{MostRefused, Refused};
pub use observation::{Mode, Observation, Outcome};
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use traces::Traces;

pub(crate) use checkup::{Checkup, Mark};

/// Is told what a limiter decides and what happens to it. See
/// [`Limiter::observe`](crate::Limiter::observe).
///
/// Both methods are called on the path of a request, from several threads at once: they should do
/// no more than to count, or to hand something on. What they do each request pays for. A panic is
/// the request's.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use bolna_rate_limit::BolnaRateLimitLayer;
/// use bolna_rate_limit::insight::{Observation, Observe};
///
/// #[derive(Default)]
/// struct Refusals(AtomicU64);
///
/// impl Observe for Refusals {
///     fn decided(&self, observation: &Observation<'_>) {
///         if !observation.admitted {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let refusals = Arc::new(Refusals::default());
/// let layer = BolnaRateLimitLayer::new().observe(Arc::clone(&refusals));
/// ```
pub trait Observe: Send + Sync + 'static {
    /// A request was decided about. Called once for each, but for those to exempt paths, about
    /// which nothing is decided, and those that are given up before the store has answered.
    fn decided(&self, observation: &Observation<'_>) {
        let _ = observation;
    }

    /// Something happened that is not of one request.
    ///
    /// What is changed by two threads at once may be told in either order: what is in force the
    /// limiter says. What a store tells comes in its order.
    fn happened(&self, event: &Event) {
        let _ = event;
    }
}

/// An observer can be kept, to be asked what it has seen.
impl<O: Observe + ?Sized> Observe for Arc<O> {
    fn decided(&self, observation: &Observation<'_>) {
        (**self).decided(observation);
    }

    fn happened(&self, event: &Event) {
        (**self).happened(event);
    }
}

/// The observers of a limiter.
#[derive(Clone, Default)]
pub(crate) struct Insight {
    observers: Vec<Arc<dyn Observe>>,
    pub(crate) checkup: Arc<Checkup>,
}

impl Insight {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observe>) {
        self.observers.push(observer);
    }

    #[inline]
    pub(crate) fn decided(&self, observation: &Observation<'_>) {
        for observer in &self.observers {
            observer.decided(observation);
        }
    }

    pub(crate) fn happened(&self, event: &Event) {
        for observer in &self.observers {
            observer.happened(event);
        }
    }
}

/// An observer of events only.
pub(crate) struct Listener<F>(pub(crate) F);

impl<F: Fn(&Event) + Send + Sync + 'static> Observe for Listener<F> {
    fn happened(&self, event: &Event) {
        (self.0)(event);
    }
}
