//! Logging with `tracing`.

use std::error::Error;
use std::fmt::{self, Write};
use std::time::Duration;

use tracing::{Level, debug, enabled, info, warn};

use super::throttle::Throttle;
use super::{Event, Observation, Observer};
use crate::store::StoreEvent;
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{Decision, Endpoint, Outcome, Quota};

const TARGET: &str = "bolna_rate_limit";

/// An observer that logs with [`tracing`](https://docs.rs/tracing), under the target
/// `bolna_rate_limit`.
///
/// * `debug`: a request was refused, or would have been. Fields: `endpoint`, `outcome`, `mode`
///   (`enforced` or `shadow`), `retry_after_ms`, `error`, `left_out`, and `principal` if it is
///   [asked for](Self::with_principals).
/// * `warn`: the store is lost, the cap is reached, a setting seems wrong. Fields: `event`,
///   `left_out`, for a store that is lost the [`kind`](crate::store::StoreError::kind) of the
///   cause, and for an [`Advice`](super::Advice) its `code` and `help`.
/// * `info`: the store is back, there is room under the cap again, limits were changed. Fields:
///   `event`, `left_out`.
///
/// The number of lines is bounded. For each kind of event it is at most ten at once and one a
/// second after that, and the same for the refusals of each endpoint and outcome. The field
/// `left_out` of the next line is the number of lines that were left out before it: of refusals of
/// any endpoint and outcome, or of events of any kind.
///
/// ```
/// use bolna_rate_limit::Limiter;
/// use bolna_rate_limit::observe::Log;
///
/// Limiter::default().observe(Log::new());
/// ```
pub struct Log<C = MonotonicClock> {
    refusals: Throttle<C>,
    events: Throttle<C>,
    principals: bool,
}

impl Log {
    /// A log without the ids of principals.
    #[must_use]
    pub fn new() -> Self {
        Self::on(MonotonicClock::default())
    }
}

impl<C: Clock + Clone> Log<C> {
    fn on(clock: C) -> Self {
        let quota = Quota::per_second(1).burst(10);
        Self {
            refusals: Throttle::new(quota, clock.clone()),
            events: Throttle::new(quota, clock),
            principals: false,
        }
    }
}

impl<C> Log<C> {
    /// Sets the clock by which the number of lines is bounded. Defaults to a [`MonotonicClock`].
    #[must_use]
    pub fn with_clock<D: Clock + Clone>(self, clock: D) -> Log<D> {
        Log { principals: self.principals, ..Log::on(clock) }
    }

    /// Adds the field `principal` to refusals, such as `user u-17`. Off by default, because the ids
    /// of customers do not belong in every log. Control characters in an id, such as a line break,
    /// are escaped, so that no id can forge a line.
    #[must_use]
    pub fn with_principals(self) -> Self {
        Self { principals: true, ..self }
    }
}

impl<C: Clock> Log<C> {
    #[cold]
    fn refused(&self, observation: &Observation<'_>) {
        let ruling = observation.ruling;
        let outcome = ruling.outcome().name();
        let endpoint = ruling.endpoint().unwrap_or(Endpoint::DEFAULT);
        let Some(left_out) = self.refusals.admit(outcome, endpoint) else { return };
        let wait = ruling.decision().and_then(Decision::retry_after);
        let millis = |wait: Duration| wait.as_nanos().div_ceil(1_000_000);
        let principal = observation.principal.filter(|_| self.principals);
        debug!(
            target: TARGET,
            endpoint = ruling.endpoint().map(|endpoint| endpoint.name()),
            outcome,
            mode = if ruling.is_enforced() { "enforced" } else { "shadow" },
            retry_after_ms = wait.map(|wait| u64::try_from(millis(wait)).unwrap_or(u64::MAX)),
            error = observation.error.map(|error| tracing::field::display(Escaped(Reasons(error)))),
            principal = principal.map(|principal| tracing::field::display(Escaped(principal))),
            left_out,
            "{}",
            if ruling.is_admitted() {
                "a request would have been refused"
            } else {
                "a request was refused"
            },
        );
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clock> Observer for Log<C> {
    #[inline]
    fn on_decision(&self, observation: &Observation<'_>) {
        if observation.ruling.outcome() != Outcome::Allowed
            && enabled!(target: TARGET, Level::DEBUG)
        {
            self.refused(observation);
        }
    }

    fn on_event(&self, event: &Event) {
        let name = event.name();
        let Some(left_out) = self.events.admit(name, Endpoint::DEFAULT) else { return };
        match event {
            Event::Advice(advice) => {
                let (code, help) = (advice.code(), advice.help());
                warn!(target: TARGET, event = name, code, help, left_out, "{event}");
            }
            Event::Store(StoreEvent::Lost { kind, .. } | StoreEvent::StillLost { kind, .. }) => {
                warn!(target: TARGET, event = name, kind, left_out, "{event}");
            }
            _ if event.is_warning() => warn!(target: TARGET, event = name, left_out, "{event}"),
            _ => info!(target: TARGET, event = name, left_out, "{event}"),
        }
    }

    fn shows_advice(&self) -> bool {
        true
    }
}

impl<C> fmt::Debug for Log<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("principals", &self.principals).finish_non_exhaustive()
    }
}

/// An error and its sources in one line.
struct Reasons<'a>(&'a dyn Error);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self(mut error) = self;
        write!(f, "{error}")?;
        while let Some(source) = error.source() {
            error = source;
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

/// A text with its control characters escaped. Callers may have chosen their ids, and an error may
/// quote a server's answer.
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())
            } else {
                self.0.write_char(c)
            }
        })
    }
}
