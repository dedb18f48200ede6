//! When a request is sent again, and after how long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower::retry::Policy;

use super::backoff::Backoff;
use super::bodies::{CloneBodies, CloneBody};
use super::budget::SharedBudget;
use super::builder::RetryPolicyBuilder;
use super::delay::RetryDelay;
use super::{Again, Paused};
use crate::client::hints::retry_after;

/// Sends a request again that was refused for its rate: a [`Policy`] for [`tower::retry`].
///
/// * **Which:** those that are answered 429, whatever the method, POST too: a request that was
///   refused for its rate is taken to have had no effect. RFC 6585 does not promise that; [this
///   crate's layer](crate::BolnaRateLimitLayer) does. Those that are answered 503 only [by
///   choice](RetryPolicyBuilder::retry_unavailable). Never after an error: what a broken connection
///   has let through, nobody knows.
/// * **When:** after the time that the response asks for in `retry-after-ms` or `Retry-After`, never before it, and a random
///   time on top: anything up to 100 ms before the first retry, and up to twice as much before each one after it, to 10 s at
///   most ("full jitter"), so that those who were refused together do not
///   [come back together](https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
///   Without such a field, or with one that makes no sense, only the random time.
/// * **How often:** a request is sent 5 times at most, and no retry begins later than 5 minutes
///   after the first refusal. All requests together, those of clones of the policy too, keep to a
///   [budget](RetryPolicyBuilder::budget).
/// * **After that** the last response is handed back as it came. Only where a
///   [`Pacer`](crate::client::Pacer) is below, and a retry that has begun can't be sent in time, is
///   it a [`WaitError`](crate::client::WaitError) instead.
///
/// `Retry-After` may be seconds or a date; a date is measured from the response's own `Date`, if it
/// has one, and not by the clock here.
///
/// A request has to be cloned before it is sent, and its body can't be if it is a stream:
/// [`CloneBody`] says how.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::client::RetryPolicy;
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{ServiceBuilder, retry::RetryLayer};
///
/// let policy = RetryPolicy::builder().attempts(3).total_time(Duration::from_secs(20)).build()?;
/// let client = ServiceBuilder::new()
///     .layer(RetryLayer::new(policy))
///     .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
/// # fn is_service<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
/// # is_service(client);
/// # Ok::<(), bolna_rate_limit::client::RetryPolicyError>(())
/// ```
///
/// # Panics
/// When a request is refused outside of a tokio runtime with its timers enabled.
#[derive(Clone)]
pub struct RetryPolicy<C = CloneBodies> {
    rules: Arc<Rules>,
    bodies: C,
    // Of the one request that this clone goes with.
    retries: u32,
    first_refusal: Option<Instant>,
}

/// What holds for all requests.
pub(super) struct Rules {
    /// At least 1.
    pub(super) attempts: u32,
    pub(super) total_time: Duration,
    pub(super) backoff: Backoff,
    pub(super) unavailable: bool,
    pub(super) budget: SharedBudget,
}

/// What a response means for its request.
enum Answer {
    /// It has been refused, and may be sent again after that time.
    Refused(Option<Duration>),
    /// The service is unavailable, and the request stays as it is.
    Unavailable,
    /// It has been handled.
    Handled,
}

impl RetryPolicy {
    /// The policy with every default.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().unchecked()
    }

    /// A policy with settings of its own.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder::new()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> RetryPolicy<C> {
    pub(super) fn with_rules(rules: Rules, bodies: C) -> Self {
        Self { rules: Arc::new(rules), bodies, retries: 0, first_refusal: None }
    }

    /// The delay before the next retry, if there may be one.
    fn delay(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.retries >= self.rules.attempts - 1 {
            return None;
        }
        let now = Instant::now();
        let first_refusal = *self.first_refusal.get_or_insert(now);
        let left = self.rules.total_time.saturating_sub(now - first_refusal);
        let delay =
            asked.unwrap_or_default().saturating_add(self.rules.backoff.delay(self.retries));
        // The budget comes last, so that nothing is withdrawn in vain.
        if delay > left || !self.rules.budget.withdraw() {
            return None;
        }
        self.retries += 1;
        Some(delay)
    }
}

impl<B, R, E, C: CloneBody<B>> Policy<Request<B>, Response<R>, E> for RetryPolicy<C> {
    type Future = RetryDelay;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<RetryDelay> {
        let response = result.as_ref().ok()?;
        match self.rules.answer(request, response) {
            Answer::Refused(asked) => {
                let delay = self.delay(asked)?;
                let deadline = self.first_refusal?.checked_add(self.rules.total_time);
                request.extensions_mut().insert(Again { deadline });
                Some(RetryDelay::new(delay))
            }
            Answer::Unavailable => None,
            Answer::Handled => {
                self.rules.budget.deposit();
                None
            }
        }
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        if self.rules.attempts == 1 {
            return None;
        }
        let mut clone = Request::new(self.bodies.clone_body(request.body())?);
        *clone.method_mut() = request.method().clone();
        *clone.uri_mut() = request.uri().clone();
        *clone.version_mut() = request.version();
        *clone.headers_mut() = request.headers().clone();
        *clone.extensions_mut() = request.extensions().clone();
        Some(clone)
    }
}

impl Rules {
    fn answer<B, R>(&self, request: &Request<B>, response: &Response<R>) -> Answer {
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => {
                let paused = response.extensions().get::<Paused>().map(|paused| paused.0);
                Answer::Refused(retry_after(response.headers()).max(paused))
            }
            StatusCode::SERVICE_UNAVAILABLE
                if self.unavailable && request.method().is_idempotent() =>
            {
                match retry_after(response.headers()) {
                    None => Answer::Unavailable,
                    asked => Answer::Refused(asked),
                }
            }
            StatusCode::SERVICE_UNAVAILABLE => Answer::Unavailable,
            _ => Answer::Handled,
        }
    }
}

impl<C> fmt::Debug for RetryPolicy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("attempts", &self.rules.attempts)
            .field("total_time", &self.rules.total_time)
            .field("backoff", &(self.rules.backoff.base, self.rules.backoff.max))
            .field("retry_unavailable", &self.rules.unavailable)
            .finish_non_exhaustive()
    }
}
