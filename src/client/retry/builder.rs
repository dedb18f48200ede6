//! Building a retry policy.

use std::fmt;
use std::time::Duration;

use tower::retry::budget::Budget;

use super::backoff::Backoff;
use super::bodies::{CloneBodies, SendOnce};
use super::budget::{SharedBudget, default_budget};
use super::error::RetryPolicyError;
use super::policy::{RetryPolicy, Rules};

/// Collects the settings of a [`RetryPolicy`]; [`build`](Self::build) checks them.
#[must_use = "a retry policy builder does nothing until it is built"]
pub struct RetryPolicyBuilder<C = CloneBodies> {
    attempts: u32,
    total_time: Duration,
    backoff: Backoff,
    unavailable: bool,
    budget: Option<SharedBudget>,
    bodies: C,
}

impl RetryPolicyBuilder {
    pub(super) fn new() -> Self {
        Self {
            attempts: 5,
            total_time: Duration::from_secs(300),
            backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(10) },
            unavailable: false,
            budget: None,
            bodies: CloneBodies,
        }
    }
}

impl<C> RetryPolicyBuilder<C> {
    /// How often a request is sent at most, the first time included: 5 by default. With 1 nothing
    /// is sent again.
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// How long after the first refusal a retry may still begin: 5 minutes by default, as long as a
    /// request may [wait](crate::client::PacerBuilder::max_wait) to be sent at first.
    ///
    /// A retry that would begin later is not made: the response which asks to wait beyond that is
    /// handed back at once, not after waiting. Where a [`Pacer`](crate::client::Pacer) is
    /// below, a retry waits for its turn; if it turns out there that this will be too late, the
    /// error is a [`WaitError`](crate::client::WaitError), since the response is gone by then.
    pub fn total_time(self, total_time: Duration) -> Self {
        Self { total_time, ..self }
    }

    /// How long the random part of a delay is at most: `base` before the first retry, twice as long
    /// before each one after it, and never longer than `max`. By default 100 ms and 10 s.
    pub fn backoff(self, base: Duration, max: Duration) -> Self {
        Self { backoff: Backoff { base, max }, ..self }
    }

    /// Sends a request again after 503 too, if the response says in `Retry-After` when, and the
    /// method is idempotent (RFC 9110, section 9.2.2): GET, HEAD, OPTIONS, TRACE, PUT or
    /// DELETE. Otherwise the request may have had its effect.
    pub fn retry_unavailable(self) -> Self {
        Self { unavailable: true, ..self }
    }

    /// What the retries of all requests together may amount to, by which a server that refuses
    /// everything is not sent several times as much.
    ///
    /// A retry withdraws from the budget, and is not made if there is nothing to withdraw. A
    /// response that is neither 429 nor 503 makes a deposit. By default it is
    /// `TpsBudget::new(Duration::from_secs(10), 50, 0.2)`, in which the rule of one
    /// retry for five requests has a reserve that is as large as Bolna's largest burst to one named
    /// endpoint: 500 requests that are refused at once may all be sent again at once, and
    /// another 500 about ten seconds later.
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Self { budget: Some(Box::new(budget)), ..self }
    }

    /// Sends each request once, whatever its body is. For bodies of which there is only one, such
    /// as streams.
    pub fn send_once(self) -> RetryPolicyBuilder<SendOnce> {
        self.clone_bodies_with(SendOnce)
    }

    /// How a body is kept for a second attempt: by a closure `Fn(&B) -> Option<B>`, or by a type
    /// that implements [`CloneBody`](super::CloneBody).
    ///
    /// ```
    /// use bolna_rate_limit::client::RetryPolicy;
    /// use bytes::Bytes;
    /// use http_body::Body;
    /// use http_body_util::{BodyExt, Empty, combinators::BoxBody};
    ///
    /// type Outgoing = BoxBody<Bytes, std::io::Error>;
    ///
    /// // Requests without a body are sent again, others are not.
    /// let policy = RetryPolicy::builder()
    ///     .clone_bodies_with(|body: &Outgoing| {
    ///         body.is_end_stream().then(|| Outgoing::new(Empty::new().map_err(|never| match never {})))
    ///     })
    ///     .build()?;
    /// # Ok::<(), bolna_rate_limit::client::RetryPolicyError>(())
    /// ```
    pub fn clone_bodies_with<D>(self, bodies: D) -> RetryPolicyBuilder<D> {
        RetryPolicyBuilder {
            attempts: self.attempts,
            total_time: self.total_time,
            backoff: self.backoff,
            unavailable: self.unavailable,
            budget: self.budget,
            bodies,
        }
    }

    /// Checks the settings and makes the policy.
    ///
    /// # Errors
    /// When there are no attempts, the total time or the backoff's base is zero, or the backoff's
    /// maximum is shorter than its base. The error names the value and the rule.
    pub fn build(self) -> Result<RetryPolicy<C>, RetryPolicyError> {
        let Backoff { base, max } = self.backoff;
        if self.attempts == 0 {
            return Err(RetryPolicyError::ZeroAttempts);
        }
        if self.total_time.is_zero() {
            return Err(RetryPolicyError::ZeroTotalTime);
        }
        if base.is_zero() {
            return Err(RetryPolicyError::ZeroBackoff);
        }
        if max < base {
            return Err(RetryPolicyError::BackoffAboveMax { base, max });
        }
        Ok(self.unchecked())
    }

    pub(super) fn unchecked(self) -> RetryPolicy<C> {
        let rules = Rules {
            attempts: self.attempts,
            total_time: self.total_time,
            backoff: self.backoff,
            unavailable: self.unavailable,
            budget: self.budget.unwrap_or_else(default_budget),
        };
        RetryPolicy::with_rules(rules, self.bodies)
    }
}

impl<C> fmt::Debug for RetryPolicyBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicyBuilder")
            .field("attempts", &self.attempts)
            .field("total_time", &self.total_time)
            .field("backoff", &(self.backoff.base, self.backoff.max))
            .field("retry_unavailable", &self.unavailable)
            .finish_non_exhaustive()
    }
}
