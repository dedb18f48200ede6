//! Answers that are there at once, or later.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::StoreError;
use crate::values::Decisions;

/// The answer of a store: now, or later.
///
/// An answer that is given at once costs the request no box, no clone and no trip through the
/// executor.
#[expect(
    clippy::exhaustive_enums,
    reason = "stores around stores match both, and there is no third"
)]
pub enum Answer<F: Future> {
    /// The answer itself.
    Now(F::Output),
    /// The answer will be the output of this future.
    Later(F),
}

impl<F: Future> Answer<F> {
    /// The answer, if it was given at once.
    #[must_use]
    pub fn now(self) -> Option<F::Output> {
        match self {
            Self::Now(output) => Some(output),
            Self::Later(_) => None,
        }
    }

    /// Waits for the answer, if it was not given at once, and returns it.
    pub async fn wait(self) -> F::Output {
        match self {
            Self::Now(output) => output,
            Self::Later(future) => future.await,
        }
    }
}

impl<F: Future<Output = Checked>> Answer<F> {
    /// For wrappers: passes the answer, once it is there, through `conclude`.
    #[inline]
    pub fn conclude_with<L: Conclude>(self, conclude: L) -> Answer<Concluding<F, L>> {
        match self {
            Self::Now(answer) => Answer::Now(conclude.conclude(answer)),
            Self::Later(check) => Answer::Later(Concluding { check, conclude: Some(conclude) }),
        }
    }
}

impl<F: Future> fmt::Debug for Answer<F>
where
    F::Output: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(output) => f.debug_tuple("Now").field(output).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}

/// The result of a check: the decisions, or the error for which there are none.
pub type Checked = Result<Decisions, StoreError>;

/// The [`Store::Check`](super::Store::Check) of a store that always answers at once. This type has
/// no value.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "that it has no value is the point")]
pub enum Immediate {}

impl Future for Immediate {
    type Output = Checked;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match *self {}
    }
}

/// What a wrapper makes of its inner store's answer to a check: see [`Answer::conclude_with`]. For
/// example, it counts the answer, or replaces an error.
pub trait Conclude {
    /// Turns the inner store's answer into the wrapper's. Called once; not at all if the check is
    /// dropped before its answer is there.
    ///
    /// # Errors
    /// Those of the wrapper: for example the inner store's error, if it is passed on.
    fn conclude(self, answer: Checked) -> Checked;
}

pin_project! {
    /// The [`Store::Check`](super::Store::Check) of a wrapper: the check of its inner store, and
    /// what the wrapper makes of the answer.
    ///
    /// # Panics
    /// If it is polled again after it has given its answer.
    #[must_use = "futures do nothing unless polled"]
    pub struct Concluding<F, L> {
        #[pin]
        check: F,
        conclude: Option<L>,
    }
}

impl<F: Future<Output = Checked>, L: Conclude> Future for Concluding<F, L> {
    type Output = Checked;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Checked> {
        let this = self.project();
        let answer = ready!(this.check.poll(cx));
        let conclude = this.conclude.take().expect("polled after completion");
        Poll::Ready(conclude.conclude(answer))
    }
}

impl<F, L> fmt::Debug for Concluding<F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Concluding").finish_non_exhaustive()
    }
}
