//! Logging with `tracing`.

use std::error::Error;
use std::fmt::{self, Write};
use std::time::Duration;

use tracing::{Level, debug, enabled, info, warn};

use super::throttle::Throttle;
use super::{Event, Observation, Observer};
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{Decision, Endpoint, Outcome, Quota};

const TARGET: &str = "bolna_rate_limit";

/// Logs what a limiter decides and what happens to it with [`tracing`](https://docs.rs/tracing),
/// under the target `bolna_rate_limit`.
///
/// * `debug`: a request was refused, or would have been. Fields: `endpoint`, `outcome`, `mode`,
///   `retry_after_ms`, `error`, `left_out`, and on demand `principal`.
/// * `warn`: the store is lost, the cap is reached, a setting seems wrong. Fields: `event`,
///   `left_out`, and of an [`Advice`](super::Advice) its `code` and `help`.
/// * `info`: the store is back, there is room again, limits were changed. Fields: `event`,
///   `left_out`.
///
/// It does not flood the log: of each kind of event it logs ten at once and then one a second, and
/// of refusals as many for each endpoint and outcome. It counts what it leaves out: the next
/// refusal that it logs, of whatever endpoint, says in `left_out` how many refusals were left out,
/// and the next event, of whatever kind, how many events.
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
    /// Logs everything but ids.
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
    /// Measures on that clock how much it has logged. By default on the operating system's.
    #[must_use]
    pub fn with_clock<D: Clock + Clone>(self, clock: D) -> Log<D> {
        Log { principals: self.principals, ..Log::on(clock) }
    }

    /// Logs also which principal was refused, in the field `principal`: `user u-17`. Off by
    /// default, since not every log is a place for customers' ids. A control character in an id is
    /// escaped, `\n` say, so that no id can forge a line.
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
            error = observation.error.map(|error| tracing::field::display(OneLine(Reasons(error)))),
            principal = principal.map(|principal| tracing::field::display(OneLine(principal))),
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
            _ if event.is_warning() => warn!(target: TARGET, event = name, left_out, "{event}"),
            _ => info!(target: TARGET, event = name, left_out, "{event}"),
        }
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
