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
    /// For stores around stores: what `conclude` makes of the answer, when it is there.
    #[inline]
    pub fn then<L: Conclude>(self, conclude: L) -> Answer<Concluding<F, L>> {
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

/// What a check ends with.
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

/// What a store around another store makes of the other store's answer to a check: see
/// [`Answer::then`]. For example, it counts the answer, or replaces an error.
pub trait Conclude {
    /// The answer of the store around, from the answer of the store within. Called once.
    ///
    /// # Errors
    /// As the store around answers: the error of the store within, if it does not replace it.
    fn conclude(self, answer: Checked) -> Checked;
}

pin_project! {
    /// The [`Store::Check`](super::Store::Check) of a store around another store: the check of the
    /// store within, and what is made of its answer.
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
