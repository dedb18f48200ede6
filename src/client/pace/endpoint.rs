//! One endpoint: its part of a group, with a clock; and the requests that were sent to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;
use tower::util::rng::{HasherRng, Rng};

use super::bucket::nanos;
use super::common::Common;
use super::error::{Bound, WaitError};
use super::group::Group;
use super::permit::Share;
use super::queued::QueuedRequest;
use super::settings::Settings;
use super::shared::Shared;
use super::state::{self, Arrival, Newcomer};
use super::sync::MutexGuard;
use crate::client::hints::{self, Exchange};
use crate::client::log::Pending;
use crate::client::max_wait::{MaxWait, WaitOptions};
use crate::client::retry::{Again, Paused, Refusal};
use crate::client::usage::Usage;
use crate::client::waited::Waited;
use crate::values::Endpoint;

#[derive(Debug)]
pub(super) struct PacedEndpoint {
    pub(super) endpoint: Endpoint,
    pub(super) settings: Settings,
    origin: Instant,
    common: Arc<Common>,
    /// The index of the endpoint in its group.
    pub(super) at: usize,
    pub(super) group: Arc<Shared>,
}

/// What happens to a request that arrives.
pub(super) enum Entered {
    Sent(Sent),
    Queued(QueuedRequest),
    Failed(WaitError),
    /// Its path is exempt, or it goes to another host.
    Exempt,
}

/// A request that was sent and has no response yet.
#[derive(Debug)]
pub(super) struct Sent {
    endpoint: Arc<PacedEndpoint>,
    at: u64,
    /// How long it was in the queue.
    waited: u64,
    is_answered: bool,
}

impl PacedEndpoint {
    /// The endpoint with the index `at` of a group.
    pub(super) fn new(
        endpoint: Endpoint,
        settings: Settings,
        origin: Instant,
        common: Arc<Common>,
        at: usize,
        group: Arc<Shared>,
    ) -> Self {
        Self { endpoint, settings, origin, common, at, group }
    }

    /// Calls `act` with the group of this endpoint, or of the one of the same name if the policy
    /// was replaced. Returns `None` if there is none any more.
    pub(super) fn with<T>(
        self: &mut Arc<Self>,
        act: impl FnOnce(&Arc<Self>, MutexGuard<'_, Group>) -> T,
    ) -> Option<T> {
        loop {
            let group = self.lock();
            let Some(table) = group.moved().cloned() else { return Some(act(self, group)) };
            drop(group);
            *self = table.named(self.endpoint)?;
        }
    }

    /// A request arrives. Returns `None` if the policy was replaced meanwhile. `again` is the mark
    /// of a request that has been refused before. Only a request that has to wait needs its
    /// options.
    #[inline]
    pub(super) fn enter(
        self: &Arc<Self>,
        path: &str,
        again: Option<&Again>,
        options: impl FnOnce() -> WaitOptions,
    ) -> Option<Entered> {
        let now = self.now();
        let mut group = self.lock();
        if group.moved().is_some() {
            return None;
        }
        if group.pass(self.at, now, again.is_some()) {
            drop(group);
            return Some(Entered::Sent(Sent::new(Arc::clone(self), now, now)));
        }
        Some(self.wait(group, now, path, again, options()))
    }

    /// A request can't be sent at once.
    fn wait(
        self: &Arc<Self>,
        mut group: MutexGuard<'_, Group>,
        now: u64,
        path: &str,
        again: Option<&Again>,
        options: WaitOptions,
    ) -> Entered {
        let again = again.map(|again| now.saturating_add(nanos(again.left())));
        // The numbers of a group are in the order in which it was locked.
        let number = self.common.arrivals.fetch_add(1, Ordering::Relaxed);
        let path: Arc<str> = path.into();
        let newcomer = Newcomer { number, options, again, path: Arc::clone(&path) };
        let (arrival, is_news) = group.wait(self.at, now, newcomer);
        let events = group.drain_events();
        drop(group);
        if is_news {
            self.notify();
        }
        let entered = match arrival {
            Arrival::Waits { ticket, .. } => {
                let bound =
                    if again.is_some() { Bound::Retries } else { self.bound(options.max_wait) };
                Entered::Queued(QueuedRequest::new(Arc::clone(self), ticket, now, path, bound))
            }
            Arrival::Full { wait, lack } => {
                let bound = Bound::Waiting(self.settings.max_waiting);
                Entered::Failed(WaitError::new(self.endpoint, wait, lack, bound))
            }
            Arrival::TooLong { wait, lack } => {
                let bound = self.bound(options.max_wait);
                Entered::Failed(WaitError::new(self.endpoint, wait, lack, bound))
            }
        };
        events.log();
        entered
    }

    /// How long a request may wait.
    fn bound(&self, max_wait: Option<MaxWait>) -> Bound {
        max_wait.map_or(Bound::Wait(self.settings.max_wait), |MaxWait(wait)| Bound::OwnWait(wait))
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Takes permits, whether there are any or not. Returns `false` if the policy has no such
    /// endpoint any more.
    pub(super) fn occupy(mut self: Arc<Self>) -> bool {
        let occupied = self.with(|endpoint, mut group| {
            let (state, pairs) = group.endpoint(endpoint.at);
            state.occupy(pairs);
        });
        occupied.is_some()
    }

    /// Gives permits back that were kept after a response, or occupied.
    pub(super) fn release(mut self: Arc<Self>) {
        self.with(|endpoint, mut group| {
            let (state, pairs) = group.endpoint(endpoint.at);
            state.release(pairs);
            let is_news = group.has_waiting();
            drop(group);
            if is_news {
                endpoint.notify();
            }
        });
    }

    /// Ends all pauses of the endpoint and of its limits. If it `forgets`, nothing is left of what
    /// responses have taught. Returns the endpoints with these limits, and what is to be logged.
    pub(super) fn resume(mut self: Arc<Self>, forgets: bool) -> Option<(Vec<Endpoint>, Pending)> {
        let now = self.now();
        self.with(|endpoint, mut group| {
            let sharing = group.sharing(endpoint.at);
            let (state, pairs) = group.endpoint(endpoint.at);
            if forgets {
                state.unlearn(pairs, now);
            } else {
                state.resume(pairs, now);
            }
            let events = group.drain_events();
            drop(group);
            endpoint.notify();
            (sharing, events)
        })
    }

    pub(super) fn usage(mut self: Arc<Self>) -> Option<Usage> {
        let now = self.now();
        self.with(|endpoint, mut group| group.usage(endpoint.at, now))
    }

    /// A request that was sent has its response.
    fn answered<B>(
        self: &Arc<Self>,
        mut group: MutexGuard<'_, Group>,
        sent_at: u64,
        response: &mut Response<B>,
        is_refused: bool,
    ) -> Option<Share> {
        let (state, pairs) = group.endpoint(self.at);
        let exchange = Exchange::new(response.headers(), &self.common.clock, sent_at);
        let standings = hints::standings(&exchange, &state.names, &mut state.memo);
        let is_news = if is_refused {
            let standings = standings.as_ref();
            let wait = hints::wait(&exchange, standings);
            let refusal = state::Refusal { status: response.status(), named: wait, standings };
            let paused = state.refuse(pairs, sent_at, self.now(), refusal, random);
            // A limit of requests in flight pauses nothing, but asks for a wait too.
            let asked = wait.unwrap_or_default().min(self.settings.max_pause);
            let wait = Duration::from_nanos(paused).max(asked);
            let resumed = self.common.resumed.next(self.endpoint);
            let refusal = Refusal::counted_by(Arc::clone(&state.counts.handed_back));
            let (at, endpoint) = (Instant::now(), self.endpoint);
            let paused = Paused { at, wait, endpoint, resumed, refusal };
            response.extensions_mut().insert(paused);
            true
        } else if let Some(standings) = &standings {
            group.hear(self.at, sent_at, self.now(), standings)
        } else {
            state.hear_nothing(pairs, sent_at, || self.now())
        };
        let holds = !is_refused && group.endpoint(self.at).0.hold();
        let events = group.drain_events();
        drop(group);
        if is_news {
            self.notify();
        }
        let share = holds.then(|| {
            let share = Share::new(Arc::clone(self), true);
            share.insert_into(response.extensions_mut());
            share
        });
        events.log();
        share
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    pub(super) fn instant(&self, at: u64) -> Instant {
        // A day is as good as never: after it, the worker asks again.
        let day = Duration::from_secs(86_400);
        self.origin.checked_add(Duration::from_nanos(at)).unwrap_or_else(|| Instant::now() + day)
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock()
    }

    /// The worker is to look at the group again.
    pub(super) fn notify(&self) {
        self.group.notify();
    }
}

impl Sent {
    /// A request that arrived and was sent at these times.
    #[inline]
    pub(super) fn new(endpoint: Arc<PacedEndpoint>, arrived: u64, at: u64) -> Self {
        Self { endpoint, at, waited: at.saturating_sub(arrived), is_answered: false }
    }

    /// Updates the endpoint with what the response reports. Returns what keeps the request in
    /// flight from now on.
    pub(super) fn answered<B>(
        mut self,
        response: &mut Response<B>,
        is_refused: bool,
    ) -> Option<Share> {
        self.is_answered = true;
        if self.waited > 0 {
            let waited = Duration::from_nanos(self.waited);
            Waited::add_queue(response.extensions_mut(), waited);
        }
        let sent_at = self.at;
        let answered = self
            .endpoint
            .with(|endpoint, group| endpoint.answered(group, sent_at, response, is_refused));
        answered.flatten()
    }

    /// The request was sent in another way, and no response will be seen.
    pub(super) fn outlive(mut self) -> Share {
        self.is_answered = true;
        let sent_at = self.at;
        let outlived = self.endpoint.with(|endpoint, mut group| {
            let (state, pairs) = group.endpoint(endpoint.at);
            state.outlive(pairs, sent_at);
            // It is not without an answer any more.
            let is_news = state.may_wait_for_answers(pairs) && group.has_waiting();
            drop(group);
            if is_news {
                endpoint.notify();
            }
        });
        Share::new(Arc::clone(&self.endpoint), outlived.is_some())
    }
}

impl Drop for Sent {
    #[inline]
    fn drop(&mut self) {
        if !self.is_answered {
            let sent_at = self.at;
            self.endpoint.with(|endpoint, mut group| {
                let (state, pairs) = group.endpoint(endpoint.at);
                state.abandon(pairs, sent_at);
                let is_news = state.may_wait_for_answers(pairs) && group.has_waiting();
                drop(group);
                if is_news {
                    endpoint.notify();
                }
            });
        }
    }
}

/// A random number from 0 to `most`.
fn random(most: u64) -> u64 {
    HasherRng::new().next_u64() % most.saturating_add(1).max(1)
}
