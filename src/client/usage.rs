//! The usage of an endpoint.

use std::time::Duration;

use super::priority::Priority;
use crate::values::{Endpoint, LimitName, Quota};

/// The current state of one endpoint of a [`Pacer`](super::Pacer), and what it has counted since
/// the pacer was created. An endpoint that leaves the policy and comes back goes on counting.
///
/// ```
/// use bolna_rate_limit::client::Pacer;
///
/// let pacer = Pacer::new();
/// let call = pacer.peek("/call").expect("/call is not exempt");
/// // Five units of the burst are held back.
/// assert_eq!((call.quota().burst(), call.remaining()), (500, 495));
/// // A line of progress:
/// println!("{} sent, {} waiting, {:?} to go", call.sent(), call.waiting(), call.wait());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub(super) endpoint: Endpoint,
    pub(super) quota: Quota,
    pub(super) remaining: u32,
    /// Of each priority.
    pub(super) waiting: [usize; 2],
    pub(super) unanswered: u64,
    /// Of each priority.
    pub(super) waits: [Duration; 2],
    pub(super) paused: Duration,
    pub(super) counted: Counted,
    pub(super) learned_rate: Option<LearnedRate>,
    pub(super) concurrency: Option<Concurrency>,
}

/// What an endpoint has counted since the pacer was created. The methods of [`Usage`] explain it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) refused: u64,
    pub(super) unsent: u64,
    pub(super) handed_back: u64,
    pub(super) pauses: u64,
}

/// A rate that refusals have taught: the server admits fewer requests than the policy says.
///
/// ```
/// use bolna_rate_limit::client::Pacer;
///
/// let pacer = Pacer::new();
/// for usage in pacer.usage() {
///     if let Some(rate) = usage.learned_rate() {
///         println!("{}: {:.1} requests a minute", usage.endpoint(), rate.per_minute());
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedRate {
    pub(super) interval: Duration,
    pub(super) measured: Duration,
}

/// The current state of an endpoint's limit of requests in flight.
///
/// ```
/// use bolna_rate_limit::Policy;
/// use bolna_rate_limit::client::Pacer;
///
/// let pacer = Pacer::with_policy(Policy::bolna().concurrent("call", 10).build()?);
/// let _permit = pacer.try_acquire("/call")?;
/// let calls = pacer.peek("/call").and_then(|usage| usage.concurrency()).expect("it has a limit");
/// assert_eq!((calls.in_flight(), calls.most()), (1, 10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub(super) limit: Option<LimitName>,
    pub(super) most: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: usize,
}

impl Usage {
    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The quota of the endpoint's own limit in the policy. If the server reports a stricter one,
    /// the client keeps to that one, but it is not returned here.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many requests the limits allow at once now, by the one that allows the fewest; 0 while
    /// the endpoint is paused or requests wait. A new client, and one that was refused, [sends
    /// fewer](crate::client#what-is-learned-from-refusals) before the first answers, which is not
    /// counted here. The number follows from the policy, from the
    /// requests that this client has sent, and from the remaining units that the server has
    /// reported, after the units spent by other clients. [A part](super::PacerBuilder::jitter) of
    /// the burst is held back: of Bolna's 500, 495 are left at the beginning.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// How many requests wait to be sent, dispatched ones included. A refused request is counted
    /// again only after its [retry delay](super::RetryPolicy) has passed.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting[0] + self.waiting[1]
    }

    /// How many of the [waiting](Self::waiting) requests have that priority.
    #[must_use]
    pub const fn waiting_of(&self, priority: Priority) -> usize {
        self.waiting[priority as usize]
    }

    /// How many requests have been sent and have neither a response nor an error yet. For a limit
    /// of requests in flight they count for longer: see [`Concurrency::in_flight`].
    #[must_use]
    pub const fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// How long one more [interactive](Priority::Interactive) request would have to wait, by the
    /// limit that takes the longest. Bulk requests that wait delay it only by [their
    /// share](super::PacerBuilder::bulk_share). Not counted are:
    /// * requests to other endpoints that wait for a shared limit;
    /// * the time until a request in flight ends, which is not known;
    /// * the time until earlier requests are answered, while a client that is new or was refused
    ///   [sends only a few](crate::client#what-is-learned-from-refusals).
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait_of(Priority::Interactive)
    }

    /// The same for a request of that priority. It is true as long as no other request arrives that
    /// goes before that one.
    #[must_use]
    pub const fn wait_of(&self, priority: Priority) -> Duration {
        self.waits[priority as usize]
    }

    /// How long the endpoint is still paused: no request is sent in that time, because the server
    /// has refused a request or has reported that one of the limits has no units left. Zero if the
    /// endpoint is not paused.
    #[must_use]
    pub const fn paused(&self) -> Duration {
        self.paused
    }

    /// How many requests have been sent, retries included.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.counted.sent
    }

    /// How many of the sent requests were retries.
    #[must_use]
    pub const fn retried(&self) -> u64 {
        self.counted.retried
    }

    /// How many of the sent requests were [refused](super::Refusals).
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.counted.refused
    }

    /// How many requests have not been sent, because the wait would have been too long or too many
    /// requests were waiting.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.counted.unsent
    }

    /// How many refusals were not followed by a retry of this client: the caller got them, or a
    /// layer around this client. A refusal is counted when the extensions of its response are
    /// dropped.
    #[must_use]
    pub const fn handed_back(&self) -> u64 {
        self.counted.handed_back
    }

    /// How many [pauses](Self::paused) have begun with a response to a request to this endpoint.
    /// One that begins while another lasts makes that one longer, and does not count.
    #[must_use]
    pub const fn pauses(&self) -> u64 {
        self.counted.pauses
    }

    /// The rate that refusals have taught, by the limit with the slowest one. `None` if nothing is
    /// refused, if the server has turned out to admit as many requests as the policy allows, or an
    /// hour after the last refusal. [`remaining`](Self::remaining) and [`wait`](Self::wait) follow
    /// it.
    #[must_use]
    pub const fn learned_rate(&self) -> Option<LearnedRate> {
        self.learned_rate
    }

    /// The limit of requests in flight that has the fewest places left, of those in the policy and
    /// those that the server reports. `None` if there is no such limit.
    #[must_use]
    pub const fn concurrency(&self) -> Option<Concurrency> {
        self.concurrency
    }
}

impl LearnedRate {
    /// The time between two requests now. After a refusal the rate begins at 0.85 of the
    /// [plateau](Self::plateau_interval), and grows until the next refusal, up to the rate of the
    /// policy.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// The time between two requests at the plateau, the rate to which requests are sped up at
    /// first. It is the rate that was measured between refusals, or, if requests were sent faster
    /// than that, one between the two: a slower rate is adopted in steps. At most 60 s, or the time
    /// between two requests by the policy if that is longer.
    #[must_use]
    pub const fn plateau_interval(&self) -> Duration {
        self.measured
    }

    /// How many requests are sent in a minute now.
    #[must_use]
    pub fn per_minute(&self) -> f64 {
        per_minute(self.interval)
    }
}

/// How many requests are sent in a minute, one in each interval.
#[expect(clippy::float_arithmetic, reason = "a rate for people to read")]
pub(super) fn per_minute(interval: Duration) -> f64 {
    60.0 / interval.as_secs_f64()
}

impl Concurrency {
    /// The name of the limit, or `None` if it is not in the policy and was reported by the server.
    #[must_use]
    pub const fn limit(&self) -> Option<LimitName> {
        self.limit
    }

    /// How many requests may be in flight now: what the policy allows, or less if the server
    /// reports a lower limit, or has refused a request because of those of other clients. Then it
    /// may be 0 for a while.
    #[must_use]
    pub const fn most(&self) -> u64 {
        self.most
    }

    /// How many requests are in flight, those to other endpoints that share the limit included:
    /// they have no response yet, the body of their response has not ended, or a
    /// [`Permit`](super::Permit) is kept. It may be more than [allowed](Self::most). If a request
    /// costs several units, each of them counts.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// How many requests to the endpoint wait until one in flight ends: 0, or all that
    /// [wait](Usage::waiting) and are not dispatched.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }
}
