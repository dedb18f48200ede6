//! The pace of all endpoints.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::PacerError;
use super::lane::Lane;
use super::settings::Settings;
use crate::client::usage::Usage;
use crate::policy::Policy;

/// Keeps outgoing requests within the limits of a [`Policy`], and within what the server says.
///
/// Clones share everything: all services that go by one pacer keep to the limits together. One
/// pacer stands for one principal, so for one API key, or for all keys of one organization; use
/// another one for another.
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
    shared: Arc<Shared>,
}

struct Shared {
    policy: Policy,
    /// In the order of the policy's endpoints.
    lanes: Box<[Arc<Lane>]>,
}

impl Pacer {
    /// Bolna's documented limits, in bursts as they allow.
    #[must_use]
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    /// Other limits, in bursts as they allow.
    #[must_use]
    pub fn with_policy(policy: Policy) -> Self {
        Self::builder().policy(policy).into_pacer()
    }

    /// Other limits, and the other settings.
    pub fn builder() -> PacerBuilder {
        PacerBuilder::default()
    }

    /// The policy that it keeps to.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// How each endpoint stands now, in the order of the policy's endpoints. Takes a lock for each,
    /// for some 100 ns.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        self.shared.lanes.iter().map(|lane| lane.usage()).collect()
    }

    /// How the endpoint stands now to which requests for that path go; `None` if the path is
    /// exempt. For whoever would rather know how long a request would wait than send it:
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::client::Pacer;
    ///
    /// let pacer = Pacer::new();
    /// let is_soon = |path| pacer.peek(path).is_none_or(|usage| usage.wait() < Duration::from_secs(2));
    /// assert!(is_soon("/call"));
    /// ```
    #[must_use]
    pub fn peek(&self, path: &str) -> Option<Usage> {
        self.lane_of(path).map(|lane| lane.usage())
    }

    /// The lane of a path, unless the path is exempt.
    pub(super) fn lane_of(&self, path: &str) -> Option<&Arc<Lane>> {
        self.shared.policy.table().class_index_of(path).map(|index| &self.shared.lanes[index])
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

/// Settings of a [`Pacer`], not yet checked.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct PacerBuilder {
    policy: Policy,
    settings: Settings,
}

impl PacerBuilder {
    /// The limits. Bolna's documented ones unless they are set.
    ///
    /// If your plan has others, set those. A server that tells others by its `RateLimit-Policy`
    /// field is believed where they are stricter.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Sends requests evenly spread, one in each
    /// [`emission_interval`](crate::Quota::emission_interval), instead of as many at
    /// once as the quota's burst allows.
    ///
    /// A job takes longer by one burst then: 1,500 calls at 500 a minute take 3 minutes instead of
    /// 2, since the first 500 are no longer sent at once.
    pub fn evenly(mut self) -> Self {
        self.settings.is_even = true;
        self
    }

    /// How many requests may wait for one endpoint, at least 1. One more fails at once, with a
    /// [`WaitError`](super::WaitError). 10,000 unless it is set.
    ///
    /// Requests that have been refused and are sent again may wait beyond that: to lose them would
    /// be worse.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.settings.max_waiting = requests;
        self
    }

    /// For how long a request may wait for its turn, more than 0. A request that would have to wait
    /// for longer fails at once, and one that already waits fails when that turns out. 5
    /// minutes unless it is set.
    ///
    /// In 5 minutes 2,500 requests have their turn at 500 a minute: of calls that are handed over
    /// at once some 2,995 are taken, with the first burst. Let a larger job wait for longer, or
    /// hand it over little by little.
    ///
    /// It is the wait for a turn that is bounded, and not the time that the service behind takes to
    /// get ready then.
    ///
    /// Requests that have been refused and are sent again go before others, and their
    /// [`RetryPolicy`](crate::client::RetryPolicyBuilder::total_time) says until when they may
    /// wait.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = wait;
        self
    }

    /// How much the delay of a request on its way to the server may vary before one is refused. 500
    /// ms unless it is set.
    ///
    /// Requests that are sent a unit's time apart may arrive closer together, and what others spend
    /// from the same bucket is known only when a response tells. So what comes back in that
    /// time is held back of the burst, at most half of it, and a job takes that much longer: at
    /// 500 a minute five requests of a burst of 500, so that 495 are sent at once.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// Checks the settings and makes the pacer.
    ///
    /// # Errors
    /// When no request may wait, or for no time. A limit of zero is an error of the policy's own
    /// [`build`](crate::PolicyBuilder::build).
    pub fn build(self) -> Result<Pacer, PacerError> {
        match self.settings {
            Settings { max_waiting: 0, .. } => Err(PacerError::ZeroWaiting),
            Settings { max_wait: Duration::ZERO, .. } => Err(PacerError::ZeroWait),
            _ => Ok(self.into_pacer()),
        }
    }

    fn into_pacer(self) -> Pacer {
        let origin = Instant::now();
        let lane = |(endpoint, quota)| Arc::new(Lane::new(endpoint, quota, self.settings, origin));
        let lanes = self.policy.endpoints().map(lane).collect();
        Pacer { shared: Arc::new(Shared { policy: self.policy, lanes }) }
    }
}
