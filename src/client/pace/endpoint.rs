//! One endpoint: its state, behind the lock of its group, with a clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tower::util::rng::{HasherRng, Rng};

use super::bucket::nanos;
use super::error::WaitError;
use super::group::Group;
use super::pair::LONGEST_PAUSE;
use super::permit::Share;
use super::queue::{Fate, Ticket};
use super::settings::Settings;
use super::state::{Arrival, Verdict};
use super::worker::work;
use crate::client::hints::{self, Exchange, ServerClock};
use crate::client::retry::{Again, Paused};
use crate::client::usage::Usage;
use crate::values::Endpoint;

#[derive(Debug)]
pub(super) struct PacedEndpoint {
    endpoint: Endpoint,
    settings: Settings,
    origin: Instant,
    /// The clock of the server, which is one for all endpoints.
    clock: Arc<ServerClock>,
    /// The index of the endpoint in its group.
    at: usize,
    group: Arc<Shared>,
}

/// A group of endpoints, behind one lock.
#[derive(Debug)]
pub(super) struct Shared {
    group: Mutex<Group>,
    /// Tells the worker that a waiting request may be due at another time.
    changed: Notify,
}

impl Shared {
    pub(super) fn new(group: Group) -> Self {
        Self { group: Mutex::new(group), changed: Notify::new() }
    }
}

/// What happens to a request that arrives.
pub(super) enum Entered {
    Sent(Sent),
    Queued(QueuedRequest),
    Failed(WaitError),
}

/// A request's ticket in the queue. Dropping it removes the request.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    endpoint: Arc<PacedEndpoint>,
    ticket: Ticket,
    /// By when the request has to be sent.
    deadline: u64,
    is_retry: bool,
    is_left: bool,
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
        clock: Arc<ServerClock>,
        at: usize,
        group: Arc<Shared>,
    ) -> Self {
        Self { endpoint, settings, origin, clock, at, group }
    }

    /// A request arrives. `again` is the mark of a request that has been refused before.
    pub(super) fn enter(self: &Arc<Self>, again: Option<Again>) -> Entered {
        let now = self.now();
        let again = again.map(|again| now.saturating_add(nanos(again.left)));
        let (arrival, is_news) = self.lock().arrive(self.at, now, again);
        if is_news {
            self.notify();
        }
        match arrival {
            Arrival::Sent => {
                Entered::Sent(Sent { endpoint: Arc::clone(self), at: now, is_answered: false })
            }
            Arrival::Wait(ticket) => {
                let deadline =
                    again.unwrap_or_else(|| now.saturating_add(nanos(self.settings.max_wait)));
                Entered::Queued(QueuedRequest {
                    endpoint: Arc::clone(self),
                    ticket,
                    deadline,
                    is_retry: again.is_some(),
                    is_left: false,
                })
            }
            Arrival::Full { wait, lack } => {
                let (wait, most) = (Duration::from_nanos(wait), self.settings.max_waiting);
                Entered::Failed(WaitError::full(self.endpoint, wait, lack, most))
            }
            Arrival::TooLong { wait, lack } => {
                let (wait, longest) = (Duration::from_nanos(wait), self.settings.max_wait);
                Entered::Failed(WaitError::too_long(self.endpoint, wait, lack, longest))
            }
        }
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

    pub(super) fn usage(&self) -> Usage {
        let now = self.now();
        let mut group = self.lock();
        let (state, pairs) = group.endpoint(self.at);
        state.usage(pairs, now)
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
        // A panic leaves the state whole: no code panics in the middle of a change.
        self.group.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker is to look at the group again.
    pub(super) fn notify(&self) {
        self.group.changed.notify_one();
    }

    /// Waits until the worker is to look at the group again.
    pub(super) async fn changed(&self) {
        self.group.changed.notified().await;
    }
}

impl QueuedRequest {
    /// Waits until the request is dispatched.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        // The swapped-out waker is dropped after the lock is released.
        let mut waker = Some(cx.waker().clone());
        let mut group = self.endpoint.lock();
        match group.endpoint(self.endpoint.at).0.look(self.ticket, &mut waker, self.deadline) {
            Fate::Dispatched => Poll::Ready(Ok(())),
            Fate::Expired { wait, lack } => {
                drop(group);
                self.is_left = true;
                let wait = Duration::from_nanos(wait);
                let PacedEndpoint { endpoint, settings, .. } = *self.endpoint;
                Poll::Ready(Err(if self.is_retry {
                    WaitError::too_late(endpoint, wait, lack)
                } else {
                    WaitError::too_long(endpoint, wait, lack, settings.max_wait)
                }))
            }
            fate @ (Fate::Waits | Fate::Lapsed) => {
                if fate == Fate::Lapsed {
                    self.endpoint.notify();
                }
                self.ensure_worker(group);
                Poll::Pending
            }
        }
    }

    /// Sends the request, whose service is ready. It stays pending while the request has to be held
    /// for a moment, and returns `None` if the request has to wait in the queue again.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
        let at = self.endpoint.now();
        let mut waker = Some(cx.waker().clone());
        let mut group = self.endpoint.lock();
        let (state, pairs) = group.endpoint(self.endpoint.at);
        let verdict = state.send(pairs, self.ticket, at, self.is_retry, &mut waker);
        if verdict == Verdict::Hold {
            self.ensure_worker(group);
            self.endpoint.notify();
            return Poll::Pending;
        }
        let is_news = verdict == Verdict::Back || group.has_ready();
        drop(group);
        if is_news {
            self.endpoint.notify();
        }
        self.is_left = verdict == Verdict::Go;
        Poll::Ready(self.is_left.then(|| Sent {
            endpoint: Arc::clone(&self.endpoint),
            at,
            is_answered: false,
        }))
    }

    /// Starts a worker if there is none.
    fn ensure_worker(&self, mut group: MutexGuard<'_, Group>) {
        if group.has_worker {
            return;
        }
        // Without a runtime, or without timers on it, this panics here and not in the task.
        let (runtime, _) = (Handle::current(), sleep(Duration::ZERO));
        group.has_worker = true;
        drop(group);
        let worker = runtime.spawn(work(Arc::clone(&self.endpoint)));
        // On a runtime that has shut down, the request would be woken and try again for ever.
        let is_in_vain = || self.endpoint.lock().is_left_alone(self.endpoint.at, self.ticket);
        assert!(
            !worker.is_finished() || !is_in_vain(),
            "a request waits on a tokio runtime that has been shut down"
        );
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let mut group = self.endpoint.lock();
        let (state, pairs) = group.endpoint(self.endpoint.at);
        let (is_sooner, _waker) = state.leave(pairs, self.ticket);
        drop(group);
        if is_sooner {
            self.endpoint.notify();
        }
    }
}

impl Sent {
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
        let exchange = Exchange::new(response.headers(), &endpoint.clock, self.at);
        let standings = hints::standings(&exchange, &state.names, &mut state.memo);
        let is_news = if is_refused {
            let standings = standings.as_ref();
            let wait = hints::wait(&exchange, standings);
            let paused = state.refuse(pairs, self.at, endpoint.now(), wait, standings, random);
            // A limit of requests in flight pauses nothing, but asks for a wait too.
            let asked = wait.map_or(0, nanos).min(LONGEST_PAUSE);
            let wait = Duration::from_nanos(paused.max(asked));
            response.extensions_mut().insert(Paused { at: Instant::now(), wait });
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
