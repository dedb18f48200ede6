//! A check of the limiter that is not answered at once.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::in_force::InForce;
use super::pending::Pending;
use super::watch::Watched;
use crate::decision::Decision;
use crate::principal::Principal;
use crate::store::StoreError;

pin_project! {
    /// The check of a [`Limiter`](crate::Limiter) whose store can't answer at once.
    #[must_use = "futures do nothing unless polled"]
    pub struct LimiterCheck<F>
    where
        F: Future,
    {
        #[pin]
        pending: Pending<F>,
        watched: Option<Box<Later>>,
    }
}

/// What it takes to tell observers.
struct Later {
    in_force: Arc<InForce>,
    class: usize,
    principal: Principal,
    asked: Instant,
}

impl<F: Future> LimiterCheck<F> {
    pub(super) fn plain(check: F) -> Self {
        Self { pending: Pending::One { check }, watched: None }
    }

    pub(super) fn watched(
        pending: Pending<F>,
        in_force: Arc<InForce>,
        class: usize,
        principal: &Principal,
    ) -> Self {
        let later = Later { in_force, class, principal: principal.clone(), asked: Instant::now() };
        Self { pending, watched: Some(Box::new(later)) }
    }
}

impl<F: Future<Output = Result<Decision, StoreError>>> Future for LimiterCheck<F> {
    type Output = Result<Decision, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answers = ready!(this.pending.poll(cx));
        if let Some(Later { in_force, class, principal, asked }) = this.watched.as_deref() {
            let class = in_force.policy.class(*class);
            let watched = Watched { class, principal, waited: Some(asked.elapsed()) };
            in_force.conclude_uncalled(&watched, &answers.enforced, answers.candidate);
        }
        Poll::Ready(answers.enforced)
    }
}

impl<F: Future> fmt::Debug for LimiterCheck<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterCheck").finish_non_exhaustive()
    }
}
