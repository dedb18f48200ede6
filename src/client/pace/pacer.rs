//! The pace of all endpoints of a policy.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::Request;

use super::endpoint::{Entered, PacedEndpoint};
use super::error::{PacerError, WaitError};
use super::hosts::{self, Host};
use super::permit::{Permit, Share};
use super::queued::Readied;
use super::settings::Settings;
#[cfg(feature = "metrics")]
use super::table::Active;
use super::table::Table;
use crate::client::max_wait::{MaxWait, WaitOptions};
use crate::client::retry::Again;
#[cfg(feature = "metrics")]
use crate::client::usage::Counted;
use crate::client::usage::Usage;
use crate::policy::{Policy, PolicyError};
#[cfg(feature = "metrics")]
use crate::values::Endpoint;
use crate::values::QuotaBuilder;

/// Keeps outgoing requests within the limits of a [`Policy`], and within what the server reports.
///
/// A request is sent when all limits of its endpoint that count an account or a user have the units
/// that it costs: the endpoint's own limit, further ones, and those that it shares with other
/// endpoints. Rates for everyone are not paced, since other accounts take most of their units. But
/// a refusal by one of them pauses the endpoint, as any other refusal does.
///
/// A request is also sent only when each limit of
/// [requests in flight](crate::policy::PolicyBuilder::concurrent) of its endpoint has a place for
/// it, whether it counts an account, a user or everyone. A [`Permit`] keeps the place for what
/// outlives the request.
///
/// If the path of a request is charged to [several endpoints](Policy::endpoints_of), as that of an
/// id with `%2F` in it may be, the request is paced by the first of them only. The server charges
/// all of them, and may refuse it; it is then retried as any other.
///
/// Clones share everything: all services with clones of one pacer keep to the limits together. One
/// pacer stands for one principal, that is, for one API key, or for all keys of one organization.
/// If the policy limits each user, one pacer stands for one user. Use another pacer for another
/// principal.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
///
/// let pacer = Pacer::builder()
///     .evenly()
///     .max_wait(Duration::from_secs(30))
///     .build()?;
/// let layer = BolnaClientLayer::with_pacer(pacer.clone());
/// for usage in pacer.usage() {
///     println!("{}: {} left, {} waiting", usage.endpoint(), usage.remaining(), usage.waiting());
/// }
/// # Ok::<(), bolna_rate_limit::client::PacerError>(())
/// ```
#[derive(Clone)]
pub struct Pacer {
    table: Arc<Table>,
    /// The hosts that the policy is for, if not all.
    hosts: Option<Arc<[Host]>>,
}

impl Pacer {
    /// Bolna's documented limits, sent in bursts.
    #[must_use]
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    /// Other limits, sent in bursts.
    #[must_use]
    pub fn with_policy(policy: Policy) -> Self {
        Self::builder().policy(policy).into_pacer()
    }

    /// A builder for other limits and settings.
    pub fn builder() -> PacerBuilder {
        PacerBuilder::default()
    }

    /// The policy that the pacer keeps to.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.table.read(|active| active.policy.clone())
    }

    /// Makes another policy the active one, for all clones of the pacer and all services made with
    /// them, as [`Limiter::set_policy`](crate::Limiter::set_policy) does on the server.
    ///
    /// * Requests that wait go on waiting by the new policy, in their order and with their
    ///   deadlines: they are sent earlier if it is faster, and later or not at all if it is
    ///   stricter. Each waits for the endpoint to which its path now belongs. If the path is exempt
    ///   now, the request is sent at once, even if its wait was found to be too long and its caller
    ///   does not know that yet.
    /// * Limits and endpoints that keep their names keep their state: what was spent, learned,
    ///   paused, reported and counted. A bucket that would have been full again in 30 s still will
    ///   be, or sooner if a full refill by its new quota takes less time. Requests that are in
    ///   flight go on counting against such limits, also if their endpoint is gone.
    /// * An endpoint that is gone has no [usage](Self::usage). If another policy has it again, it
    ///   goes on counting where it stopped.
    /// * A limit that is gone keeps its state too, for as long as that makes a difference: a policy
    ///   that has it again finds no full bucket, and no pause ended. A limit of another name is
    ///   another limit, which begins with a full bucket.
    /// * The settings of the [builder](PacerBuilder) and the hosts stay the same.
    ///
    /// It takes about a microsecond for each request that waits, and no request is sent in that
    /// time.
    ///
    /// ```
    /// use bolna_rate_limit::client::Pacer;
    /// use bolna_rate_limit::{Policy, Quota};
    ///
    /// let pacer = Pacer::new();
    /// // While requests run: the plan was changed.
    /// pacer.set_policy(Policy::bolna().quota("call", Quota::per_minute(2000)).build()?);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn set_policy(&self, policy: Policy) {
        let Ok(()) = self.table.replace(|_| Ok::<_, Infallible>(policy));
    }

    /// Gives a limit of the active policy another quota, and keeps the rest of the policy: see
    /// [`set_policy`](Self::set_policy). An endpoint's own limit has the name of the endpoint.
    ///
    /// ```
    /// use bolna_rate_limit::Quota;
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::new();
    /// pacer.set_quota("call", Quota::per_minute(100))?;
    /// let error = pacer.set_quota("calls", Quota::per_minute(100)).unwrap_err();
    /// assert!(error.to_string().contains("calls"));
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such limit, if the quota is not [valid](crate::values::QuotaBuilder::build),
    /// if its burst is less than the cost of a request, or if the own limit of an endpoint would be
    /// one of [requests in flight](crate::Quota::concurrent). Nothing changes then.
    pub fn set_quota(
        &self,
        limit: &str,
        quota: impl Into<QuotaBuilder>,
    ) -> Result<(), PolicyError> {
        self.table.replace(|policy| policy.with_quota(limit, quota.into()))
    }

    /// The usage of each endpoint now, in the order of the policy's endpoints. Takes a lock per
    /// endpoint, for about 100 ns.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        self.endpoints().into_iter().filter_map(PacedEndpoint::usage).collect()
    }

    /// The usage of the [endpoint](Policy::endpoint_of) to which a path belongs, or `None` if the
    /// path is exempt. With it, a caller can ask how long a request would wait without sending it:
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::new();
    /// let is_soon =
    ///     |path| pacer.peek(path).is_none_or(|usage| usage.wait() < Duration::from_secs(2));
    /// assert!(is_soon("/call"));
    /// ```
    #[must_use]
    pub fn peek(&self, path: &str) -> Option<Usage> {
        self.table.of_path(path)?.usage()
    }

    /// Waits until a request to this path may be sent, and counts it as sent. Use it for requests
    /// that are not sent through the layer. The request is in flight until the permit is dropped.
    ///
    /// It waits in the same queue as the requests that are sent through the layer, and takes units
    /// and a place as they do. If the path is exempt, there is no wait and nothing to keep.
    ///
    /// Cancel safe: dropping the future gives everything back.
    ///
    /// ```no_run
    /// # async fn call() -> Result<(), Box<dyn std::error::Error>> {
    /// use bolna_rate_limit::Policy;
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::with_policy(Policy::bolna().concurrent("call", 10).build()?);
    /// let permit = pacer.acquire("/call").await?;
    /// // ... send the request with any client, and wait until the call has ended.
    /// drop(permit);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`WaitError`](super::WaitError), as for any other request.
    ///
    /// # Panics
    /// If it has to wait outside of a tokio runtime with timers enabled, or on one that has been
    /// shut down.
    pub async fn acquire(&self, path: &str) -> Result<Permit, WaitError> {
        self.acquire_with(path, WaitOptions::default()).await
    }

    /// Like [`acquire`](Self::acquire), with a [`Priority`](crate::client::Priority), a [`MaxWait`]
    /// or both.
    ///
    /// ```no_run
    /// # async fn call() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use bolna_rate_limit::client::{MaxWait, Pacer, Priority};
    ///
    /// let pacer = Pacer::new();
    /// let options = (Priority::Bulk, MaxWait(Duration::from_secs(3600)));
    /// let permit = pacer.acquire_with("/call", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`WaitError`](super::WaitError), as for any other request.
    ///
    /// # Panics
    /// If it has to wait outside of a tokio runtime with timers enabled, or on one that has been
    /// shut down.
    pub async fn acquire_with(
        &self,
        path: &str,
        options: impl Into<WaitOptions>,
    ) -> Result<Permit, WaitError> {
        let options = options.into();
        let sent = match self.enter_path(path, None, || options) {
            Entered::Exempt => return Ok(Permit::new(None)),
            Entered::Sent(sent) => sent,
            Entered::Failed(error) => return Err(error),
            Entered::Queued(mut place) => loop {
                poll_fn(|cx| place.poll(cx)).await?;
                match poll_fn(|cx| place.send(cx)).await {
                    Readied::Sent(sent) => break sent,
                    Readied::Exempt => return Ok(Permit::new(None)),
                    Readied::Back => {}
                }
            },
        };
        Ok(Permit::new(Some(sent.outlive())))
    }

    /// Like [`acquire`](Self::acquire), but fails at once if a request could not be sent now, as
    /// tokio's [`Semaphore::try_acquire`](tokio::sync::Semaphore::try_acquire) does. It needs no
    /// runtime. A request that is sent through the layer can [do the same](MaxWait::ZERO).
    ///
    /// ```
    /// use bolna_rate_limit::client::Pacer;
    /// use bolna_rate_limit::{Policy, Quota};
    ///
    /// let quota = Quota::per_minute(6).burst(1);
    /// let pacer = Pacer::with_policy(Policy::bolna().quota("call", quota).build()?);
    /// assert!(pacer.try_acquire("/call").is_ok());
    /// let error = pacer.try_acquire("/call").unwrap_err();
    /// assert!(error.wait().as_secs() >= 9);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// A [`WaitError`](super::WaitError) that says how long a request would have to wait.
    pub fn try_acquire(&self, path: &str) -> Result<Permit, WaitError> {
        match self.enter_path(path, None, || MaxWait::ZERO.into()) {
            Entered::Exempt => Ok(Permit::new(None)),
            Entered::Sent(sent) => Ok(Permit::new(Some(sent.outlive()))),
            Entered::Failed(error) => Err(error),
            Entered::Queued(place) => {
                unreachable!("{place:?} waits, and may not wait")
            }
        }
    }

    /// Ends the pauses of the endpoint to which a path belongs, and of the limits that it shares
    /// with others, for an operator who knows that the server is fine again. Requests that wait are
    /// sent as far as the policy and the rest of what was learned allow, refused ones included
    /// whose retry waited for the end of the pause. These are the requests to the endpoint and to
    /// those that share a limit with it.
    ///
    /// Since it is not known what the server admits now, only a tenth of the burst is sent at
    /// first, at least 10 requests, and more with each that is admitted. The next refusal pauses
    /// the endpoint again, as the first one of a series. A refusal counts also if it belongs to a
    /// request that was sent before.
    ///
    /// What refusals have taught about the server's rate stays: see [`forget`](Self::forget). If
    /// the path is exempt, nothing happens. To bound all pauses, set
    /// [`max_pause`](PacerBuilder::max_pause).
    ///
    /// ```
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::new();
    /// // ... a response with `Retry-After: 99999999999`.
    /// pacer.resume("/call");
    /// assert!(pacer.peek("/call").is_some_and(|usage| usage.paused().is_zero()));
    /// ```
    pub fn resume(&self, path: &str) {
        self.end_pauses_of(path, false);
    }

    /// Ends the pauses of all endpoints and limits, also of those that are not in the policy any
    /// more, and the waits of retries for them: see [`resume`](Self::resume).
    pub fn resume_all(&self) {
        self.end_all_pauses(false);
    }

    /// Ends the pauses of the endpoint to which a path belongs, as [`resume`](Self::resume) does,
    /// and forgets all that responses have taught about its limits: the rate that was measured by
    /// refusals, quotas and remaining units that the server has reported, and its limits of
    /// requests in flight. What this client has spent itself still counts.
    ///
    /// This is for a server whose limits were raised, or that was replaced. If the path is exempt,
    /// nothing happens.
    pub fn forget(&self, path: &str) {
        self.end_pauses_of(path, true);
    }

    /// The same for all endpoints: see [`forget`](Self::forget).
    pub fn forget_all(&self) {
        self.end_all_pauses(true);
    }

    fn end_pauses_of(&self, path: &str, forgets: bool) {
        let endpoint = self.table.of_path(path);
        if let Some((resumed, events)) = endpoint.and_then(|endpoint| endpoint.resume(forgets)) {
            // The refused requests wait for the end of the pause to arrive again.
            self.table.common.resumed.resume(resumed);
            events.log();
        }
    }

    fn end_all_pauses(&self, forgets: bool) {
        self.table.resume_all(forgets);
        self.table.common.resumed.resume_all();
    }

    /// Counts one more request to this path as in flight, whether the limits allow it or not, until
    /// the permit is dropped. It takes no units.
    ///
    /// This is for what runs already and counts on the server: calls that were made before this
    /// process started, or calls that came in. While more are in flight than allowed, no request is
    /// sent. If the path is exempt, there is nothing to keep.
    ///
    /// ```
    /// use bolna_rate_limit::Policy;
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::with_policy(Policy::bolna().concurrent("call", 10).build()?);
    /// // The API says that three calls run.
    /// let running: Vec<_> = (0..3).map(|_| pacer.occupy("/call")).collect();
    /// assert_eq!(pacer.peek("/call").map(|usage| usage.remaining()), Some(7));
    /// drop(running);
    /// assert_eq!(pacer.peek("/call").map(|usage| usage.remaining()), Some(10));
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn occupy(&self, path: &str) -> Permit {
        let share = self.table.of_path(path).map(|endpoint| {
            let is_taken = Arc::clone(&endpoint).occupy();
            Share::new(endpoint, is_taken)
        });
        Permit::new(share)
    }

    /// A request arrives.
    #[inline]
    pub(super) fn enter<B>(
        &self,
        request: &Request<B>,
        again: Option<&Again>,
        options: impl Fn() -> WaitOptions,
    ) -> Entered {
        if self.hosts.as_ref().is_some_and(|hosts| !hosts::contain(hosts, request)) {
            return Entered::Exempt;
        }
        self.enter_path(request.uri().path(), again, options)
    }

    #[inline]
    fn enter_path(
        &self,
        path: &str,
        again: Option<&Again>,
        options: impl Fn() -> WaitOptions,
    ) -> Entered {
        loop {
            let entered = self.table.read(|active| match active.of_path(path) {
                Some(endpoint) => endpoint.enter(path, again, &options),
                None => Some(Entered::Exempt),
            });
            // Otherwise the policy was replaced meanwhile.
            if let Some(entered) = entered {
                return entered;
            }
        }
    }

    /// What endpoints have counted that are not in the policy any more.
    #[cfg(feature = "metrics")]
    pub(in crate::client) fn counted_by_others(&self) -> Vec<(Endpoint, Counted)> {
        self.table.read(Active::counted_by_others)
    }

    /// The endpoints of the policy.
    fn endpoints(&self) -> Vec<Arc<PacedEndpoint>> {
        self.table.read(|active| active.in_policy().to_vec())
    }
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.usage()).finish()
    }
}

/// Collects the settings of a [`Pacer`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct PacerBuilder {
    policy: Policy,
    hosts: Option<Vec<String>>,
    settings: Settings,
}

impl PacerBuilder {
    /// The limits. Defaults to Bolna's documented limits.
    ///
    /// If your plan has other limits, set those. The limits that a server reports in its
    /// `RateLimit-Policy` field are adopted only where they are stricter.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The hosts that the policy is for, each as `host` or `host:port`. By default, it is for all
    /// requests to any host.
    ///
    /// Requests to other hosts, such as a store of recordings, are sent at once as they are. If one
    /// of them is refused, its retries follow what its response says, and no endpoint of the policy
    /// is paused.
    ///
    /// The host of a request is that of its URI, or else of its `Host` field. A request with
    /// neither is one to these hosts. Names are compared without case. A host without a port stands
    /// for the default port, 443 for `https` and 80 for `http`.
    ///
    /// ```
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::builder().hosts(["api.bolna.ai", "127.0.0.1:3000"]).build()?;
    /// let error = Pacer::builder().hosts(["https://api.bolna.ai"]).build().unwrap_err();
    /// assert!(error.to_string().contains("without a scheme"));
    /// # Ok::<(), bolna_rate_limit::client::PacerError>(())
    /// ```
    pub fn hosts<H: Into<String>>(self, hosts: impl IntoIterator<Item = H>) -> Self {
        Self { hosts: Some(hosts.into_iter().map(Into::into).collect()), ..self }
    }

    /// Spreads requests evenly: sends one per
    /// [`emission_interval`](crate::Quota::emission_interval) of the endpoint's own limit, instead
    /// of as many at once as the burst of the quota allows. Its further limits, such as one for a
    /// day, are kept to with their whole bursts.
    ///
    /// A job then takes longer by one burst: 1,500 calls at 500 a minute take 3 minutes instead of
    /// 2, because the first 500 are not sent at once.
    pub fn evenly(mut self) -> Self {
        self.settings.is_even = true;
        self
    }

    /// How many requests may wait for one endpoint, at least 1. Defaults to 10,000. One more
    /// request fails at once with a [`WaitError`](super::WaitError).
    ///
    /// An interactive request is counted against other interactive requests only, a
    /// [bulk](crate::client::Priority::Bulk) request against all. So a bulk job that fills the
    /// queue keeps no interactive request out, and up to twice this number may wait.
    ///
    /// Retries may wait beyond this bound, because losing them would be worse. Requests that wait
    /// for the inner service to get ready [are not
    /// counted](crate::client#layers-in-which-requests-wait).
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.settings.max_waiting = requests;
        self
    }

    /// How long a request may wait to be dispatched, more than 0. Defaults to 5 minutes. A request
    /// that would have to wait longer fails at once with a [`WaitError`](super::WaitError). One
    /// that already waits fails as soon as it turns out that it would have to wait longer.
    ///
    /// At 500 a minute, 2,500 requests are dispatched in 5 minutes. Of calls that are submitted all
    /// at once, about 2,995 are accepted, which includes the first burst. For a larger job, allow a
    /// longer wait or submit the calls little by little.
    ///
    /// It is not known when a request in flight ends. A request that waits for that fails only
    /// after it has waited for this time.
    ///
    /// The bound does not include the time in which the inner service gets ready, before the
    /// request arrives in the queue and after the dispatch. So limit requests in flight [by the
    /// policy](crate::client#layers-in-which-requests-wait), and not by a layer further in.
    ///
    /// Retries are dispatched before other requests of their priority. How long they may wait is
    /// set by their [`RetryPolicy`](crate::client::RetryPolicyBuilder::total_time).
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = wait;
        self
    }

    /// The longest pause that the server can ask for, more than 0. Defaults to an hour.
    ///
    /// A refusal or a report pauses an endpoint for as long as the response
    /// [says](crate::client#how-times-are-read), and a response may say anything: `Retry-After:
    /// 99999999999` is a pause of 3,170 years. This bounds each pause, also those that the client
    /// chooses when one refusal follows another. After it, one request is sent, and its response
    /// may begin the next pause. The random time that is added to a pause, of at most 1 s, is not
    /// counted. [`Pacer::resume`] ends a pause early.
    ///
    /// If the server means its times, a bound that is shorter than those costs one refusal each
    /// time that it has passed. It does not shorten the interval of the policy.
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::builder().max_pause(Duration::from_secs(120)).build()?;
    /// # Ok::<(), bolna_rate_limit::client::PacerError>(())
    /// ```
    pub fn max_pause(mut self, pause: Duration) -> Self {
        self.settings.max_pause = pause;
        self
    }

    /// Which share of the requests are bulk ones while requests of both
    /// [priorities](crate::client::Priority) wait for the same units, in percent, from 0 to 99.
    /// Defaults to 10: of ten requests that are dispatched, at least one is a bulk request. With 0,
    /// bulk requests are sent only while no interactive one waits.
    ///
    /// The share holds for all requests of endpoints that have a limit in common. Interactive
    /// requests that arrive later go before bulk ones that wait, so a bulk request may turn out to
    /// be [too late](Self::max_wait).
    pub fn bulk_share(mut self, percent: u8) -> Self {
        self.settings.bulk_share = percent;
        self
    }

    /// By how much the delay of requests on their way to the server may vary before a request is
    /// refused. Defaults to 500 ms.
    ///
    /// Requests that are sent one interval apart may arrive closer together, and units spent by
    /// other clients become known only with the next response. The units that come back in the time
    /// `jitter` are therefore held back from the burst, at most half of the burst, and a job takes
    /// that much longer. At 500 a minute with a burst of 500, five units are held back, so that a
    /// burst has 495 requests. May be zero.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// Checks the settings and creates the pacer.
    ///
    /// # Errors
    /// If [`max_waiting`](Self::max_waiting), [`max_wait`](Self::max_wait) or
    /// [`max_pause`](Self::max_pause) is zero, or [`bulk_share`](Self::bulk_share) is 100 % or
    /// more. [`hosts`](Self::hosts) must not be empty, and each must be a host. A limit of zero is
    /// an error when the policy is [built](crate::policy::PolicyBuilder::build).
    pub fn build(self) -> Result<Pacer, PacerError> {
        match self.settings {
            Settings { max_waiting: 0, .. } => Err(PacerError::ZeroWaiting),
            Settings { max_wait: Duration::ZERO, .. } => Err(PacerError::ZeroWait),
            Settings { max_pause: Duration::ZERO, .. } => Err(PacerError::ZeroPause),
            Settings { bulk_share: percent @ 100.., .. } => Err(PacerError::BulkShare(percent)),
            _ => {
                let hosts = self.hosts.as_deref().map(parsed).transpose()?;
                Ok(Self { hosts: None, ..self }.into_pacer_for(hosts))
            }
        }
    }

    fn into_pacer(self) -> Pacer {
        self.into_pacer_for(None)
    }

    fn into_pacer_for(self, hosts: Option<Arc<[Host]>>) -> Pacer {
        Pacer { table: Arc::new(Table::new(self.policy, self.settings)), hosts }
    }
}

fn parsed(hosts: &[String]) -> Result<Arc<[Host]>, PacerError> {
    if hosts.is_empty() {
        return Err(PacerError::NoHosts);
    }
    let parse = |host: &String| Host::parse(host).ok_or_else(|| PacerError::Host(host.clone()));
    hosts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Quota;

    #[test]
    fn a_pacer_whose_policy_was_replaced_is_freed() {
        let pacer = Pacer::new();
        pacer.set_quota("call", Quota::per_minute(10)).expect("a limit of the policy");
        pacer.set_policy(Policy::bolna().build().expect("a policy"));
        let table = Arc::downgrade(&pacer.table);
        drop(pacer);
        assert!(table.upgrade().is_none());
    }
}
