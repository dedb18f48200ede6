//! The trait of observers, and the observers of a limiter.

use std::sync::Arc;

use super::advice::{Checkup, print};
use super::{Event, Observation};

/// Receives what a limiter decides and what happens to it. Add an observer with
/// [`Limiter::observe`](crate::Limiter::observe).
///
/// Observers run on the request path and on several threads at once. So keep them fast, and let
/// them only count, or pass something on. If an observer panics, the request panics.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use bolna_rate_limit::Limiter;
/// use bolna_rate_limit::observe::{Observation, Observer};
///
/// #[derive(Default)]
/// struct Refusals(AtomicU64);
///
/// impl Observer for Refusals {
///     fn on_decision(&self, observation: &Observation<'_>) {
///         if !observation.ruling.is_admitted() {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let refusals = Arc::new(Refusals::default());
/// Limiter::default().observe(Arc::clone(&refusals));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Observer`",
    label = "an observer is a type that implements `Observer`",
    note = "a closure on events goes to `Limiter::on_event`; for decisions, implement `on_decision`"
)]
pub trait Observer: Send + Sync + 'static {
    /// A request was decided about. By default this does nothing.
    ///
    /// It is called once for each request, except for requests to exempt paths, and for requests
    /// that are dropped before the store has answered.
    fn on_decision(&self, observation: &Observation<'_>) {
        let _ = observation;
    }

    /// Something happened that does not concern a single request. By default this does nothing.
    ///
    /// Events from concurrent changes may arrive in any order; ask the limiter for the current
    /// state. Events of one store arrive in order.
    fn on_event(&self, event: &Event) {
        let _ = event;
    }

    /// Whether it shows each [advice](super::Advice) that it receives to those who run the limiter.
    /// By default it does not.
    ///
    /// With such an observer the limiter no longer prints advice itself, as it does in
    /// [debug builds](crate::Limiter::print_advice). A closure of
    /// [`on_event`](crate::Limiter::on_event) and `Log` are such observers.
    fn shows_advice(&self) -> bool {
        false
    }
}

/// An observer can be shared, for example to read later what it has counted.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_decision(&self, observation: &Observation<'_>) {
        (**self).on_decision(observation);
    }

    fn on_event(&self, event: &Event) {
        (**self).on_event(event);
    }

    fn shows_advice(&self) -> bool {
        (**self).shows_advice()
    }
}

/// The observers of a limiter.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    all: Vec<Arc<dyn Observer>>,
    /// Whether advice is printed on standard error.
    pub(super) prints: bool,
    pub(super) checkup: Arc<Checkup>,
}

impl Observers {
    /// Those that a limiter has at its start: in debug builds none but standard error.
    pub(crate) fn at_start() -> Option<Self> {
        cfg!(debug_assertions).then(|| Self { prints: true, ..Self::default() })
    }

    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        if observer.shows_advice() {
            self.will_show_advice();
            self.prints = false;
        }
        self.all.push(observer);
    }

    /// Advice is shown from now on. What was found before, and shown to no one, may be found again.
    fn will_show_advice(&self) {
        if !self.prints && !self.all.iter().any(Observer::shows_advice) {
            self.checkup.forget_given();
        }
    }

    /// The same, but that advice is printed or not. `None` if there is no observer left.
    pub(crate) fn printing(all: Option<Self>, prints: bool) -> Option<Self> {
        let all = all.unwrap_or_default();
        if prints {
            all.will_show_advice();
        }
        let all = Self { prints, ..all };
        (prints || !all.all.is_empty()).then_some(all)
    }

    #[inline]
    pub(crate) fn on_decision(&self, observation: &Observation<'_>) {
        for observer in &self.all {
            observer.on_decision(observation);
        }
    }

    pub(crate) fn on_event(&self, event: &Event) {
        for observer in &self.all {
            observer.on_event(event);
        }
        if let (true, Event::Advice(advice)) = (self.prints, event) {
            print(advice);
        }
    }
}

/// A closure as an observer of events.
pub(crate) struct Listener<F>(pub(crate) F);

impl<F: Fn(&Event) + Send + Sync + 'static> Observer for Listener<F> {
    fn on_event(&self, event: &Event) {
        (self.0)(event);
    }

    fn shows_advice(&self) -> bool {
        true
    }
}
