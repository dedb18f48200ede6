//! Logging with `tracing`.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::{Level, debug, enabled, info, warn};

use super::throttle::Throttle;
use super::{Event, Observation, Observe, Outcome};
use crate::clock::{Clock, MonotonicClock};
use crate::endpoint::Endpoint;
use crate::quota::Quota;

const TARGET: &str = "bolna_rate_limit";

/// Logs what a limiter decides and what happens to it with [`tracing`](https://docs.rs/tracing), under the target
/// `bolna_rate_limit`.
///
/// | level | what | fields |
/// |---|---|---|
/// | `debug` | a request was refused, or would have been | `endpoint`, `outcome`, `mode`, `retry_after_ms`, `error`, on demand `principal` |
/// | `warn` | the store is lost, the cap is reached, a setting looks wrong | `event`, `code` and `help` of a [`Diagnosis`](super::Diagnosis) |
/// | `info` | the store is back, there is room again, limits were changed | `event` |
///
/// It does not drown the log: of each kind of event it logs ten at once and then one a second, of
/// refusals as many for each endpoint and outcome. What is left out is counted, and the next
/// refusal, of whatever endpoint, says in `left_out` how many refusals it was; so does the next of
/// the other events, of whatever kind, of those.
///
/// ```
/// use bolna_rate_limit::BolnaRateLimitLayer;
/// use bolna_rate_limit::insight::Traces;
///
/// let layer = BolnaRateLimitLayer::new().observe(Traces::new());
/// ```
pub struct Traces<C = MonotonicClock> {
    refusals: Throttle<C>,
    events: Throttle<C>,
    with_principals: bool,
}

impl Traces {
    /// Logs everything but ids.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(MonotonicClock::default())
    }
}

impl<C: Clock + Clone> Traces<C> {
    /// The same, on that clock.
    #[must_use]
    pub fn with_clock(clock: C) -> Self {
        let quota = Quota::per_second(1).burst(10);
        Self {
            refusals: Throttle::new(quota, clock.clone()),
            events: Throttle::new(quota, clock),
            with_principals: false,
        }
    }
}

impl<C> Traces<C> {
    /// Logs also who was refused, in the field `principal`: `user u-17`. Off by default, for not
    /// every log is a place for customers' ids. A control character in an id is escaped, `\n`
    /// say, so that no id can make up a line.
    #[must_use]
    pub fn with_principals(self) -> Self {
        Self { with_principals: true, ..self }
    }
}

impl<C: Clock> Traces<C> {
    #[cold]
    fn refused(&self, observation: &Observation<'_>) {
        let endpoint = observation.endpoint.unwrap_or(Endpoint::DEFAULT);
        let Some(left_out) = self.refusals.admit(observation.outcome.name(), endpoint) else {
            return;
        };
        let wait = observation.outcome.decision().and_then(|decision| decision.retry_after());
        let error = match observation.outcome {
            Outcome::StoreFailed(error) => Some(Reasons(error)),
            _ => None,
        };
        let principal = observation.principal.filter(|_| self.with_principals);
        debug!(
            target: TARGET,
            endpoint = observation.endpoint.map(|endpoint| endpoint.name()),
            outcome = observation.outcome.name(),
            mode = observation.mode.name(),
            retry_after_ms = wait.map(|wait| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)),
            error = error.map(|error| tracing::field::display(OneLine(error))),
            principal = principal.map(|principal| tracing::field::display(OneLine(principal))),
            left_out,
            "{}",
            if observation.admitted { "a request would have been refused" } else { "a request was refused" },
        );
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clock> Observe for Traces<C> {
    #[inline]
    fn decided(&self, observation: &Observation<'_>) {
        if !matches!(observation.outcome, Outcome::Allowed(_))
            && enabled!(target: TARGET, Level::DEBUG)
        {
            self.refused(observation);
        }
    }

    fn happened(&self, event: &Event) {
        let Some(left_out) = self.events.admit(event.name(), Endpoint::DEFAULT) else { return };
        let name = event.name();
        match event {
            Event::Diagnosis(diagnosis) => {
                warn!(target: TARGET, event = name, code = diagnosis.code(), help = diagnosis.help(), left_out, "{event}");
            }
            _ if event.is_warning() => warn!(target: TARGET, event = name, left_out, "{event}"),
            _ => info!(target: TARGET, event = name, left_out, "{event}"),
        }
    }
}

impl<C> fmt::Debug for Traces<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces")
            .field("with_principals", &self.with_principals)
            .finish_non_exhaustive()
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

/// A text whose control characters are escaped: callers may have chosen their ids, and an error may
/// quote what a server has said.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
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
