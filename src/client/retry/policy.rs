//! When and after how long a request is retried.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Extensions, Request, Response, StatusCode};
use tokio::time::Instant;
use tower::retry::Policy;

use super::backoff::Backoff;
use super::bodies::{CloneBodies, CloneBody};
use super::broken::{Broken, broken};
use super::budget::SharedBudget;
use super::builder::RetryPolicyBuilder;
use super::delay::RetryDelay;
use super::{Again, Delay, Paused};
use crate::client::hints::retry_after;
use crate::client::log::Retries;
use crate::client::max_wait::MaxWait;
use crate::client::refusals::Refusals;
use crate::client::waited::Waited;

/// Retries requests that were refused because of a rate limit: a [`Policy`] for [`tower::retry`].
///
/// * **Which requests:** those with the response 429, whatever the method, POST included: the
///   policy assumes that a request refused with 429 had no effect. RFC 6585 does not promise that;
///   [this crate's layer](crate::BolnaRateLimitLayer) does. Requests with the response
///   [503](RetryPolicyBuilder::retry_unavailable) or [403](RetryPolicyBuilder::retry_forbidden) are
///   retried only on demand, and only if the response shows that a rate limit is meant; but [each
///   503](RetryPolicyBuilder::retry_any_unavailable) can be too.
/// * **Broken connections:** a request whose connection broke is sent again if its method is
///   idempotent ([RFC 9110, section 9.2.2][idempotent]): GET, HEAD, OPTIONS, TRACE, PUT or DELETE.
///   A server that refuses an upload early may close the connection, so that the client gets an
///   error in place of the refusal. With other methods, a request is sent again only
///   [on demand](RetryPolicyBuilder::retry_broken_uploads), and only if it was not sent to its end.
///   A connection is broken if the error, or one of its sources, is an
///   [`io::Error`](std::io::Error) of the kind `BrokenPipe`, `ConnectionReset`, `ConnectionAborted`
///   or `UnexpectedEof`, or hyper's error for a connection that was closed without a response. The
///   error of the service has to be a [`BoxError`](tower::BoxError), as that of the client, or an
///   `io::Error`. Other errors are handed back, as are those of HTTP/2, which do not show whether
///   the server has processed the request.
/// * **When:** after the time that the response asks for, plus a random time. Whatever says when a
///   request may be sent again is [understood](crate::client#how-times-are-read): `Retry-After` in
///   seconds, with units or as a date, `retry-after-ms` and others. If nothing is understood, the
///   retry waits for at least 1 s, then 2 s, 4 s and so on, up to the longest
///   [backoff](RetryPolicyBuilder::backoff), plus the random time. The random time is at most
///   100 ms before the first retry, and at most twice as long before each further one, up to 10 s.
///   It can be anything up to that ("full jitter"), so that requests that were refused together are
///   [not retried together][jitter]. If a [`Pacer`](crate::client::Pacer) below has paused the
///   endpoint, a refused request is retried when the pause ends, without a random time: the pacer
///   sends one request after the other. A request whose connection broke is retried after the
///   random time alone.
/// * **Until when:** no retry begins later than [5 minutes](RetryPolicyBuilder::total_time) after
///   the first refusal or broken connection, nor than the request's
///   [`MaxWait`](crate::client::MaxWait) allows. The time in which the process did not run before a
///   retry, for example because the machine was suspended, does not count. The number of
///   [attempts](RetryPolicyBuilder::attempts) is not bounded by default, with one exception: if the
///   connection is closed without a response for the fifth time in a row, the error is handed back.
///   A connection that breaks while the request is being written does not count for this.
/// * **How many at once:** all requests together, including those of clones of the policy, keep to
///   a [budget](RetryPolicyBuilder::budget). By default, it is for retries that no pacer bounds.
/// * **After that**, the caller gets the last response unchanged. One case is different: if a pacer
///   is below, and a retry that has begun can't be sent in time, the caller gets a
///   [`WaitError`](crate::client::WaitError).
///
/// A point in time is compared with the system's clock if it agrees with the response's own `Date`,
/// or else with that `Date`. A delay in a response that comes from a cache is shortened by its
/// `Age`.
///
/// A request has to be cloned before it is sent. Some bodies, such as streams, can't be cloned: see
/// [`CloneBody`].
///
/// [idempotent]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
/// [jitter]: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::client::RetryPolicy;
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{ServiceBuilder, retry::RetryLayer};
///
/// let policy = RetryPolicy::builder().total_time(Duration::from_secs(20)).build()?;
/// let client = ServiceBuilder::new()
///     .layer(RetryLayer::new(policy))
///     .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
/// # fn is_service<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
/// # is_service(client);
/// # Ok::<(), bolna_rate_limit::client::RetryPolicyError>(())
/// ```
///
/// # Panics
/// If a request is to be retried outside of a tokio runtime with timers enabled.
#[derive(Clone)]
pub struct RetryPolicy<C = CloneBodies> {
    rules: Arc<Rules>,
    bodies: C,
    // The state of the request that this clone belongs to.
    retries: u32,
    /// When the total time began: with the first refusal, or later by as much as the process did
    /// not run since.
    began: Option<Instant>,
    /// The delay before the next retry.
    delay: Option<Arc<Delay>>,
    /// How many times in a row its connection broke before a response.
    unanswered: u32,
    /// What its earlier attempts have waited, with the delays after them.
    waited: Option<Box<Waited>>,
}

/// How many times in a row a request is sent again that gets no response.
const UNANSWERED: u32 = 4;

/// A delay that ends later than planned by more than this: the process did not run meanwhile, for
/// example because it was stopped or the machine was suspended.
const LATE: Duration = Duration::from_secs(1);

/// The settings, which are the same for all requests.
pub(super) struct Rules {
    /// At least 1, if there is a bound.
    pub(super) attempts: Option<u32>,
    pub(super) total_time: Duration,
    pub(super) backoff: Backoff,
    pub(super) refusals: Refusals,
    pub(super) broken_uploads: bool,
    pub(super) budget: SharedBudget,
    /// Whether retries withdraw from the budget also if a pacer bounds them.
    pub(super) budgets_paced: bool,
    pub(super) log: Retries,
}

/// What a response means for its request.
enum Answer {
    /// The request was refused, and may be sent again after the time that the response asks for
    /// and the pause of a pacer.
    Refused(Option<Duration>, Option<Paused>),
    /// The service is unavailable, and the request is not retried.
    Unavailable,
    /// The request was handled.
    Handled,
}

impl RetryPolicy {
    /// The policy with all defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().unchecked()
    }

    /// A builder for a policy with other settings.
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
    /// Which responses are refusals.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        self.rules.refusals
    }

    pub(super) fn with_rules(rules: Rules, bodies: C) -> Self {
        Self {
            rules: Arc::new(rules),
            bodies,
            retries: 0,
            began: None,
            delay: None,
            unanswered: 0,
            waited: None,
        }
    }

    /// Plans the next retry of a request, unless there is none. `asked` is what the response asks
    /// for, `paused` what a pacer makes of it, and `waited` what the request has waited before it.
    /// A response has a `status`.
    fn plan<B>(
        &mut self,
        request: &mut Request<B>,
        asked: Option<Duration>,
        paused: Option<&Paused>,
        waited: Waited,
        status: Option<StatusCode>,
    ) -> Option<RetryDelay> {
        let retries = self.retries.saturating_add(1);
        if self.rules.attempts.is_some_and(|attempts| retries >= attempts) {
            return None;
        }
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let delay = match &paused {
            // The pacer sends one request after the other. A random time would only be lost.
            Some(Paused { resumed, .. }) if resumed.has_come() => Duration::ZERO,
            Some(Paused { at, wait, .. }) if !wait.is_zero() => wait.saturating_sub(now - *at),
            Some(_) => self.rules.backoff.delay(self.retries),
            None => {
                let asked = asked.unwrap_or_else(|| self.rules.backoff.cautious(self.retries));
                asked.saturating_add(self.rules.backoff.delay(self.retries))
            }
        };
        let longest = request.extensions().get::<MaxWait>().map_or(Duration::MAX, |wait| wait.0);
        if longest.is_zero() {
            return None;
        }
        let total = self.rules.total_time.min(longest);
        let left = total.saturating_sub(now - began).checked_sub(delay)?;
        // The budget is asked last, so that no withdrawal is in vain.
        let is_bounded = paused.is_some() && !self.rules.budgets_paced;
        if !is_bounded && !self.rules.budget.withdraw() {
            return None;
        }
        if let Some(paused) = paused {
            paused.refusal.retry();
        }
        self.retries = retries;
        let ends = now.checked_add(delay);
        self.delay = ends.map(|ends| Arc::new(Delay { ends, ended: OnceLock::new() }));
        request.extensions_mut().insert(Again { left, delay: self.delay.clone() });
        let waited = self.waited.take().map_or(waited, |before| before.then(waited));
        self.waited = Some(Box::new(waited.delayed(delay)));
        let endpoint = paused.map(|paused| paused.endpoint);
        self.rules.log.planned(endpoint, status, retries.saturating_add(1), delay, left);
        let resumed = paused.map(|paused| paused.resumed.clone());
        Some(RetryDelay::new(delay, resumed, self.delay.clone()))
    }

    /// Plans the next retry of a request that has failed with this error, unless there is none.
    fn plan_after_break<B, E: 'static>(
        &mut self,
        request: &mut Request<B>,
        error: &E,
    ) -> Option<RetryDelay> {
        let broken = broken(error)?;
        let is_safe = request.method().is_idempotent()
            || (broken == Broken::Sending && self.rules.broken_uploads);
        if !is_safe || (broken == Broken::Unanswered && self.unanswered >= UNANSWERED) {
            return None;
        }
        self.unanswered += u32::from(broken == Broken::Unanswered);
        self.plan(request, Some(Duration::ZERO), None, Waited::of(&Extensions::new()), None)
    }

    /// A retry begins. The time in which the process did not run during the delay does not count;
    /// that in which the inner service got ready after it does.
    fn resume(&mut self) {
        if let (Some(delay), Some(began)) = (self.delay.take(), self.began) {
            let now = Instant::now();
            if let Some(waited) = &mut self.waited {
                let later = now.saturating_duration_since(delay.ends);
                **waited = waited.moved(later, delay.ends.saturating_duration_since(now));
            }
            let late = delay.ended(now).saturating_duration_since(delay.ends);
            if late > LATE {
                self.began = began.checked_add(late);
            }
        }
    }
}

impl<B, R, E: 'static, C: CloneBody<B>> Policy<Request<B>, Response<R>, E> for RetryPolicy<C> {
    type Future = RetryDelay;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<RetryDelay> {
        let response = match result {
            Ok(response) => response,
            Err(error) => return self.plan_after_break(request, error),
        };
        self.unanswered = 0;
        match self.rules.answer(request, response) {
            Answer::Refused(asked, paused) => {
                let waited = Waited::of(response.extensions());
                let delay =
                    self.plan(request, asked, paused.as_ref(), waited, Some(response.status()));
                if delay.is_some() {
                    return delay;
                }
            }
            Answer::Unavailable => {}
            Answer::Handled => self.rules.budget.deposit(),
        }
        if let Some(before) = self.waited.take() {
            let waited = before.then(Waited::of(response.extensions()));
            response.extensions_mut().insert(waited);
        }
        None
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        if self.rules.attempts == Some(1) {
            return None;
        }
        // tower calls this when a retry begins, too.
        self.resume();
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
        let (status, headers) = (response.status(), response.headers());
        if self.refusals.contains(status, headers) {
            if !Refusals::may_be_repeated(status, request.method()) {
                return Answer::Unavailable;
            }
            // A pacer has read the response already, and knows more of the server's clock.
            let paused = response.extensions().get::<Paused>().cloned();
            let asked = if paused.is_none() { retry_after(headers) } else { None };
            return Answer::Refused(asked, paused);
        }
        match status {
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
            .field("refusals", &self.rules.refusals)
            .field("retry_broken_uploads", &self.rules.broken_uploads)
            .finish_non_exhaustive()
    }
}
