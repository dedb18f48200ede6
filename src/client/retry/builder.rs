//! The builder of a retry policy.

use std::fmt;
use std::time::Duration;

use tower::retry::budget::Budget;

use super::backoff::Backoff;
use super::bodies::{CloneBodies, SendOnce};
use super::budget::{SharedBudget, default_budget};
use super::error::RetryPolicyError;
use super::policy::{RetryPolicy, Rules};
use crate::client::log::Retries;
use crate::client::refusals::Refusals;

/// Collects the settings of a [`RetryPolicy`]; [`build`](Self::build) checks them.
#[must_use = "a retry policy builder does nothing until it is built"]
pub struct RetryPolicyBuilder<C = CloneBodies> {
    attempts: Option<u32>,
    total_time: Duration,
    backoff: Backoff,
    refusals: Refusals,
    broken_uploads: bool,
    budget: Option<SharedBudget>,
    bodies: C,
}

impl RetryPolicyBuilder {
    pub(super) fn new() -> Self {
        Self {
            attempts: None,
            total_time: Duration::from_secs(300),
            backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(10) },
            refusals: Refusals::new(),
            broken_uploads: false,
            budget: None,
            bodies: CloneBodies,
        }
    }
}

impl<C> RetryPolicyBuilder<C> {
    /// How often a request is sent at most, the first time included, at least 1. With 1, no request
    /// is sent again.
    ///
    /// By default there is no such bound: a refused request is retried until the
    /// [total time](Self::total_time) is over. A server that is stricter than the client expects
    /// may refuse a request many times, and still admit it within that time.
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: Some(attempts), ..self }
    }

    /// How long after the first refusal or broken connection a retry may still begin, more than 0.
    /// Defaults to 5 minutes, which is also how long a new request may
    /// [wait](crate::client::PacerBuilder::max_wait) by default. A job that may take hours can be
    /// given hours.
    ///
    /// A retry that would begin later is not made: a response that asks for such a long wait is
    /// returned at once, not after the wait. Where a [`Pacer`](crate::client::Pacer) is below, a
    /// retry also waits in its queue, and that time counts too. If it can't be sent from there in
    /// time, the caller gets a [`WaitError`](crate::client::WaitError), because the response is
    /// gone by then. The time in which the inner service gets ready before a retry counts, too.
    pub fn total_time(self, total_time: Duration) -> Self {
        Self { total_time, ..self }
    }

    /// The longest random part of a delay: `base` before the first retry, twice as long before each
    /// further one, and at most `max`. Defaults to 100 ms and 10 s. `base` has to be more than 0,
    /// and `max` not less than `base`.
    ///
    /// Where the server does not say when a request may be sent again, a delay is 1 s, 2 s, 4 s and
    /// so on, but at most `max`, and the random part in addition.
    ///
    /// If a [`Pacer`](crate::client::Pacer) below has paused the endpoint, as in a
    /// [`BolnaClientLayer`](crate::client::BolnaClientLayer), a refused request waits for the end
    /// of the pause instead, and this setting concerns broken connections and other hosts.
    pub fn backoff(self, base: Duration, max: Duration) -> Self {
        Self { backoff: Backoff { base, max }, ..self }
    }

    /// Also takes responses with the status 503 for [refusals](Refusals::unavailable) that say when
    /// the request may be sent again, in `Retry-After` or another field of the [first three
    /// kinds](crate::client#how-times-are-read). Their requests are retried if the method is
    /// idempotent (RFC 9110, section 9.2.2): GET, HEAD, OPTIONS, TRACE, PUT or DELETE. With another
    /// method, the request may already have had its effect.
    ///
    /// In a [`BolnaClientLayer`](crate::client::BolnaClientLayer) they pause the endpoint for all
    /// callers, whatever the method. Off by default.
    pub fn retry_unavailable(self) -> Self {
        Self { refusals: self.refusals.unavailable(), ..self }
    }

    /// The same with all responses with the status 503, also [those](Refusals::any_unavailable)
    /// that do not say when, as nginx's `limit_req` sends them. Choose it only if the server's 503
    /// means a rate limit. Off by default.
    pub fn retry_any_unavailable(self) -> Self {
        Self { refusals: self.refusals.any_unavailable(), ..self }
    }

    /// Also takes responses with the status 403 for [refusals](Refusals::forbidden) that have
    /// `X-RateLimit-Remaining: 0` or say when the request may be sent again, as those of
    /// GitHub's API. Their requests are retried whatever the method.
    ///
    /// In a [`BolnaClientLayer`](crate::client::BolnaClientLayer) they pause the endpoint for all
    /// callers, until the time in `X-RateLimit-Reset` if there is no other. Off by default.
    pub fn retry_forbidden(self) -> Self {
        Self { refusals: self.refusals.forbidden(), ..self }
    }

    /// Also sends a request again whose connection broke while it was being sent, if its method is
    /// not idempotent (POST, PATCH). With an idempotent method this is done in any case.
    ///
    /// A server that refuses an upload early may close the connection while the client still
    /// writes. The client then gets an error in place of the refusal. That the request was not sent
    /// to its end is certain: a write to the connection has failed.
    ///
    /// **The danger:** the server had the beginning of the request, and may have acted on it. A
    /// server that reads whole bodies first, as most do, has done nothing. One that handles the
    /// body as it arrives, or only looks at the head, may do the same thing twice.
    ///
    /// Off by default. A request that was sent to its end and got no response is never sent again,
    /// unless its method is idempotent.
    pub fn retry_broken_uploads(self) -> Self {
        Self { broken_uploads: true, ..self }
    }

    /// The budget for the retries of all requests together. It keeps the client from sending
    /// several times as many requests to a server that refuses all of them.
    ///
    /// A retry withdraws from the budget, and is not made if nothing is left. A response that is
    /// neither a refusal nor 503 deposits into it. The default allows 500 retries in about ten
    /// seconds, as many as Bolna's largest burst to one named endpoint, and one more for every five
    /// responses in that time that deposit. So 500 requests that are refused together may all be
    /// sent again, and another 500 about ten seconds later.
    ///
    /// Retries of refused requests that a [`Pacer`](crate::client::Pacer) below bounds do not
    /// withdraw from the default budget: after a refusal the pacer sends one request after the
    /// other, however many wait, and a job that needs many retries should lose no request because
    /// of that. They do withdraw from a budget that is set here. Requests whose connection broke
    /// withdraw from either.
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Self { budget: Some(Box::new(budget)), ..self }
    }

    /// Sends each request only once, whatever its body is. Use it for bodies that can't be copied,
    /// such as streams.
    pub fn send_once(self) -> RetryPolicyBuilder<SendOnce> {
        self.clone_bodies_with(SendOnce)
    }

    /// Sets how to keep a copy of a body for a retry: a closure `Fn(&B) -> Option<B>`, or a type
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
    ///         let empty = || Outgoing::new(Empty::new().map_err(|never| match never {}));
    ///         body.is_end_stream().then(empty)
    ///     })
    ///     .build()?;
    /// # Ok::<(), bolna_rate_limit::client::RetryPolicyError>(())
    /// ```
    pub fn clone_bodies_with<D>(self, bodies: D) -> RetryPolicyBuilder<D> {
        RetryPolicyBuilder {
            attempts: self.attempts,
            total_time: self.total_time,
            backoff: self.backoff,
            refusals: self.refusals,
            broken_uploads: self.broken_uploads,
            budget: self.budget,
            bodies,
        }
    }

    /// Checks the settings and creates the policy.
    ///
    /// # Errors
    /// If the attempts, the total time or the base of the backoff are zero, or the maximum of the
    /// backoff is shorter than its base. The error names the value and the rule.
    pub fn build(self) -> Result<RetryPolicy<C>, RetryPolicyError> {
        let Backoff { base, max } = self.backoff;
        if self.attempts == Some(0) {
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
            refusals: self.refusals,
            broken_uploads: self.broken_uploads,
            budgets_paced: self.budget.is_some(),
            log: Retries::default(),
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
            .field("refusals", &self.refusals)
            .field("retry_broken_uploads", &self.broken_uploads)
            .finish_non_exhaustive()
    }
}
