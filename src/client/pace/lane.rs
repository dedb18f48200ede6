//! One endpoint: its state, behind a lock, with a clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tower::util::rng::{HasherRng, Rng};

use super::bucket::nanos;
use super::drive::drive;
use super::error::WaitError;
use super::queue::{Fate, Turn};
use super::settings::Settings;
use super::state::{Arrival, State, Verdict};
use crate::client::hints;
use crate::client::retry::{Again, Paused};
use crate::client::usage::Usage;
use crate::endpoint::Endpoint;
use crate::quota::Quota;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: Endpoint,
    settings: Settings,
    origin: Instant,
    state: Mutex<State>,
    /// Tells the task that lets those go who wait that somebody may have become due earlier.
    pub(super) changed: Notify,
}

/// What becomes of a request.
pub(super) enum Entry {
    Go(Sent),
    Wait(Place),
    Refused(WaitError),
}

/// A place among those who wait, which is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    turn: Turn,
    /// By when it wants to be sent.
    deadline: u64,
    is_retry: bool,
    is_left: bool,
}

/// A request that was sent and waits for its response.
#[derive(Debug)]
pub(super) struct Sent {
    lane: Arc<Lane>,
    at: u64,
    is_answered: bool,
}

impl Lane {
    pub(super) fn new(
        endpoint: Endpoint,
        quota: Quota,
        settings: Settings,
        origin: Instant,
    ) -> Self {
        let state = Mutex::new(State::new(quota, settings));
        Self { endpoint, settings, origin, state, changed: Notify::new() }
    }

    /// A request arrives; with the mark of a retry, if it has been refused before.
    pub(super) fn enter(self: &Arc<Self>, again: Option<Again>) -> Entry {
        let now = self.now();
        let again = again.map(|again| {
            again.deadline.map_or(u64::MAX, |at| nanos(at.saturating_duration_since(self.origin)))
        });
        let arrival = self.lock().arrive(now, again);
        match arrival {
            Arrival::Go => Entry::Go(Sent { lane: Arc::clone(self), at: now, is_answered: false }),
            Arrival::Wait(turn) => {
                if again.is_some() {
                    self.changed.notify_one();
                }
                let deadline =
                    again.unwrap_or_else(|| now.saturating_add(nanos(self.settings.max_wait)));
                Entry::Wait(Place {
                    lane: Arc::clone(self),
                    turn,
                    deadline,
                    is_retry: again.is_some(),
                    is_left: false,
                })
            }
            Arrival::Full { wait } => {
                let wait = Duration::from_nanos(wait);
                Entry::Refused(WaitError::full(self.endpoint, wait, self.settings.max_waiting))
            }
            Arrival::TooLong { wait } => {
                let wait = Duration::from_nanos(wait);
                Entry::Refused(WaitError::too_long(self.endpoint, wait, self.settings.max_wait))
            }
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let now = self.now();
        self.lock().usage(self.endpoint, now)
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    pub(super) fn instant(&self, at: u64) -> Instant {
        // A day is as good as never: whoever waits for it asks again.
        let day = Duration::from_secs(86_400);
        self.origin.checked_add(Duration::from_nanos(at)).unwrap_or_else(|| Instant::now() + day)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in there panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the request may get ready to be sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        // The one that it had is dropped after the lock.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.lane.lock();
        match state.look(self.turn, &mut waker, self.deadline) {
            Fate::MayGo => Poll::Ready(Ok(())),
            Fate::SentAway { wait } => {
                drop(state);
                self.is_left = true;
                let wait = Duration::from_nanos(wait);
                let Lane { endpoint, settings, .. } = *self.lane;
                Poll::Ready(Err(if self.is_retry {
                    WaitError::too_late(endpoint, wait)
                } else {
                    WaitError::too_long(endpoint, wait, settings.max_wait)
                }))
            }
            fate @ (Fate::Waits | Fate::Lapsed) => {
                if fate == Fate::Lapsed {
                    self.lane.changed.notify_one();
                }
                self.drive(state);
                Poll::Pending
            }
        }
    }

    /// The request, which is ready, is sent; or it stays ready, and waits for its moment; or it has
    /// to come back.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
        let at = self.lane.now();
        let mut waker = Some(cx.waker().clone());
        let mut state = self.lane.lock();
        let verdict = state.send(self.turn, at, self.is_retry, &mut waker);
        if verdict == Verdict::Hold {
            self.drive(state);
            self.lane.changed.notify_one();
            return Poll::Pending;
        }
        let is_news = verdict == Verdict::Back || state.has_ready();
        drop(state);
        if is_news {
            self.lane.changed.notify_one();
        }
        self.is_left = verdict == Verdict::Go;
        Poll::Ready(self.is_left.then(|| Sent {
            lane: Arc::clone(&self.lane),
            at,
            is_answered: false,
        }))
    }

    /// Sees to it that a task lets those go who wait.
    fn drive(&self, mut state: MutexGuard<'_, State>) {
        if state.is_driven {
            return;
        }
        // Whoever has no runtime, or no timers on it, is told here rather than in the task.
        let (runtime, _) = (Handle::current(), sleep(Duration::ZERO));
        state.is_driven = true;
        drop(state);
        let driver = runtime.spawn(drive(Arc::clone(&self.lane)));
        // It would be woken, and try again, for ever.
        let is_in_vain = || self.lane.lock().is_left_alone(self.turn);
        assert!(
            !driver.is_finished() || !is_in_vain(),
            "a request waits on a tokio runtime that has been shut down"
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let (is_sooner, _waker) = self.lane.lock().leave(self.turn);
        if is_sooner {
            self.lane.changed.notify_one();
        }
    }
}

impl Sent {
    /// The response is there: what it says of the endpoint is taken to heart.
    pub(super) fn answered<B>(mut self, response: &mut Response<B>) {
        self.is_answered = true;
        let lane = &self.lane;
        let mut state = lane.lock();
        let standing = hints::standing(response.headers(), lane.endpoint, &mut state.memo);
        let is_news = if response.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait = wait(response.headers(), standing);
            let paused = state.refuse(self.at, lane.now(), wait, random);
            response.extensions_mut().insert(Paused(Duration::from_nanos(paused)));
            true
        } else if let Some(standing) = standing {
            state.hear(self.at, lane.now(), standing)
        } else {
            state.hear_nothing(self.at);
            false
        };
        drop(state);
        if is_news {
            lane.changed.notify_one();
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.is_answered {
            self.lane.lock().abandon();
        }
    }
}

/// How long a refusal asks to wait.
fn wait(headers: &HeaderMap, standing: Option<hints::Standing>) -> Option<Duration> {
    hints::retry_after(headers).or_else(|| standing?.exhausted)
}

/// A number from 0 to `most`.
fn random(most: u64) -> u64 {
    HasherRng::new().next_u64() % most.saturating_add(1).max(1)
}
