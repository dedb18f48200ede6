//! One endpoint: its part of a group, with a clock; and the requests that were sent to it.

use std::sync::Arc;
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
use super::state::Arrival;
use super::sync::MutexGuard;
use crate::client::hints::{self, Exchange};
use crate::client::max_wait::{MaxWait, WaitOptions};
use crate::client::retry::{Again, Paused};
use crate::client::usage::Usage;
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
}

/// A request that was sent and has no response yet.
#[derive(Debug)]
pub(super) struct Sent {
    endpoint: Arc<PacedEndpoint>,
    at: u64,
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

    /// A request arrives. `again` is the mark of a request that has been refused before. Only a
    /// request that has to wait needs its options.
    #[inline]
    pub(super) fn enter(
        self: &Arc<Self>,
        again: Option<Again>,
        options: impl FnOnce() -> WaitOptions,
    ) -> Entered {
        let now = self.now();
        let mut group = self.lock();
        if group.pass(self.at, now, again.is_some()) {
            drop(group);
            return Entered::Sent(Sent::new(Arc::clone(self), now));
        }
        self.wait(group, now, again, options())
    }

    /// A request can't be sent at once.
    fn wait(
        self: &Arc<Self>,
        mut group: MutexGuard<'_, Group>,
        now: u64,
        again: Option<Again>,
        options: WaitOptions,
    ) -> Entered {
        let again = again.map(|again| now.saturating_add(nanos(again.left())));
        let (arrival, is_news) = group.wait(self.at, now, options, again);
        drop(group);
        if is_news {
            self.notify();
        }
        match arrival {
            Arrival::Waits { ticket, .. } => {
                let bound =
                    if again.is_some() { Bound::Retries } else { self.bound(options.max_wait) };
                Entered::Queued(QueuedRequest::new(Arc::clone(self), ticket, bound))
            }
            Arrival::Full { wait, lack } => {
                let bound = Bound::Waiting(self.settings.max_waiting);
                Entered::Failed(WaitError::new(self.endpoint, wait, lack, bound))
            }
            Arrival::TooLong { wait, lack } => {
                let bound = self.bound(options.max_wait);
                Entered::Failed(WaitError::new(self.endpoint, wait, lack, bound))
            }
        }
    }

    /// How long a request may wait.
    fn bound(&self, max_wait: Option<MaxWait>) -> Bound {
        max_wait.map_or(Bound::Wait(self.settings.max_wait), |MaxWait(wait)| Bound::OwnWait(wait))
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Takes permits, whether there are any or not.
    pub(super) fn occupy(&self) {
        let mut group = self.lock();
        let (state, pairs) = group.endpoint(self.at);
        state.occupy(pairs);
    }

    /// Gives permits back that were kept after a response, or occupied.
    pub(super) fn release(&self) {
        let mut group = self.lock();
        let (state, pairs) = group.endpoint(self.at);
        state.release(pairs);
        let is_news = group.has_waiting();
        drop(group);
        if is_news {
            self.notify();
        }
    }

    /// Ends all pauses of the endpoint and of its limits. If it `forgets`, nothing is left of what
    /// responses have taught.
    pub(super) fn resume(&self, forgets: bool) {
        let now = self.now();
        let mut group = self.lock();
        let (state, pairs) = group.endpoint(self.at);
        if forgets {
            state.unlearn(pairs, now);
        } else {
            state.resume(pairs, now);
        }
        drop(group);
        self.notify();
        // The refused requests wait for the end of the pause to arrive again.
        self.common.resumed.send_replace(());
    }

    pub(super) fn usage(&self) -> Usage {
        let now = self.now();
        self.lock().usage(self.at, now)
    }

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
    #[inline]
    pub(super) fn new(endpoint: Arc<PacedEndpoint>, at: u64) -> Self {
        Self { endpoint, at, is_answered: false }
    }

    /// Updates the endpoint with what the response reports. Returns what keeps the request in
    /// flight from now on.
    pub(super) fn answered<B>(
        mut self,
        response: &mut Response<B>,
        is_refused: bool,
    ) -> Option<Share> {
        self.is_answered = true;
        let endpoint = &self.endpoint;
        let mut group = endpoint.lock();
        let (state, pairs) = group.endpoint(endpoint.at);
        let exchange = Exchange::new(response.headers(), &endpoint.common.clock, self.at);
        let standings = hints::standings(&exchange, &state.names, &mut state.memo);
        let is_news = if is_refused {
            let standings = standings.as_ref();
            let wait = hints::wait(&exchange, standings);
            let paused = state.refuse(pairs, self.at, endpoint.now(), wait, standings, random);
            // A limit of requests in flight pauses nothing, but asks for a wait too.
            let asked = wait.unwrap_or_default().min(endpoint.settings.max_pause);
            let wait = Duration::from_nanos(paused).max(asked);
            let resumed = endpoint.common.resumed.subscribe();
            response.extensions_mut().insert(Paused { at: Instant::now(), wait, resumed });
            true
        } else if let Some(standings) = &standings {
            group.hear(endpoint.at, self.at, endpoint.now(), standings)
        } else {
            state.hear_nothing(pairs, self.at, || endpoint.now())
        };
        let holds = !is_refused && group.endpoint(endpoint.at).0.hold();
        drop(group);
        if is_news {
            endpoint.notify();
        }
        holds.then(|| {
            let share = Share::new(Arc::clone(&self.endpoint));
            share.insert_into(response.extensions_mut());
            share
        })
    }

    /// The request was sent in another way, and no response will be seen.
    pub(super) fn outlive(mut self) -> Share {
        self.is_answered = true;
        let mut group = self.endpoint.lock();
        let (state, pairs) = group.endpoint(self.endpoint.at);
        state.outlive(pairs);
        drop(group);
        Share::new(Arc::clone(&self.endpoint))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.is_answered {
            let mut group = self.endpoint.lock();
            let (state, pairs) = group.endpoint(self.endpoint.at);
            state.abandon(pairs);
            let is_news = state.may_wait_for_answers(pairs) && group.has_waiting();
            drop(group);
            if is_news {
                self.endpoint.notify();
            }
        }
    }
}

/// A random number from 0 to `most`.
fn random(most: u64) -> u64 {
    HasherRng::new().next_u64() % most.saturating_add(1).max(1)
}
