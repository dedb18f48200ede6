//! Answers that are there at once, or later.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::StoreError;
use crate::values::Decisions;

/// The answer of a store: now, or later. `.await` returns it in both cases.
///
/// An answer that is given at once costs the request no box, no clone and no trip through the
/// executor.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::{Answer, Charge, Checked, Store, StoreError};
///
/// /// A timer only for answers that are not there.
/// async fn check(store: &impl Store, charge: Charge<'_>) -> Checked {
///     match store.check(charge) {
///         Answer::Now(checked) => checked,
///         Answer::Later(check) => tokio::time::timeout(Duration::from_millis(50), check)
///             .await
///             .map_err(|late| StoreError::new(late).of_kind("deadline"))?,
///     }
/// }
/// ```
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

    /// Waits for the answer, if it was not given at once, and returns it. This is what `.await`
    /// does, for where a future is needed.
    pub fn wait(self) -> AnswerFuture<F> {
        let state = match self {
            Self::Now(output) => AnswerState::Now { output: Some(output) },
            Self::Later(future) => AnswerState::Later { future },
        };
        AnswerFuture { state }
    }
}

impl<F: Future> IntoFuture for Answer<F> {
    type Output = F::Output;
    type IntoFuture = AnswerFuture<F>;

    fn into_future(self) -> AnswerFuture<F> {
        self.wait()
    }
}

pin_project! {
    /// The future of an [`Answer`].
    ///
    /// Where an answer is matched, as in the [example of `Answer`](Answer), it is not needed.
    ///
    /// # Panics
    /// If it is polled again after it has given the answer.
    #[must_use = "futures do nothing unless polled"]
    pub struct AnswerFuture<F>
    where
        F: Future,
    {
        #[pin]
        state: AnswerState<F>,
    }
}

pin_project! {
    #[project = AnswerStateProjection]
    enum AnswerState<F>
    where
        F: Future,
    {
        // The output is there until it is returned.
        Now { output: Option<F::Output> },
        Later { #[pin] future: F },
    }
}

impl<F: Future> Future for AnswerFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            AnswerStateProjection::Now { output } => {
                Poll::Ready(output.take().expect("polled after completion"))
            }
            AnswerStateProjection::Later { future } => future.poll(cx),
        }
    }
}

impl<F: Future> fmt::Debug for AnswerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
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
///
/// The [example of `Conclude`](Conclude) looks at one.
pub type Checked = Result<Decisions, StoreError>;

/// The [`Store::Check`](super::Store::Check) of a store that always answers at once. This type has
/// no value.
///
/// A store in the [example in the guide](crate::guide::own_store) has it.
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
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use bolna_rate_limit::store::{Answer, Charge, Checked, Conclude, Concluding, Store};
///
/// struct Failures(Arc<AtomicU64>);
///
/// impl Conclude for Failures {
///     fn conclude(self, answer: Checked) -> Checked {
///         self.0.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
///         answer
///     }
/// }
///
/// struct Counting<St> { inner: St, failures: Arc<AtomicU64> }
///
/// impl<St: Store> Counting<St> {
///     /// What `Store::check` does, with `Concluding` as its `Check`.
///     fn check(&self, charge: Charge<'_>) -> Answer<Concluding<St::Check, Failures>> {
///         self.inner.check(charge).conclude_with(Failures(Arc::clone(&self.failures)))
///     }
/// }
/// ```
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
    /// The [example of `Conclude`](Conclude) returns it.
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

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::marker::PhantomPinned;

    use tokio_test::{assert_pending, assert_ready_eq, task};

    use super::Answer;

    #[test]
    fn an_answer_that_is_there_is_given_at_the_first_poll() {
        let answer = Answer::<Ready<u8>>::Now(1);
        assert_ready_eq!(task::spawn(answer.into_future()).poll(), 1);
    }

    #[test]
    fn an_answer_that_is_not_there_is_waited_for() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let answer = Answer::Later(async {
            // A future that can't be moved once it has been polled.
            let _pinned = PhantomPinned;
            receiver.await
        });
        let mut waiting = task::spawn(answer.into_future());
        assert_pending!(waiting.poll());
        sender.send(2).expect("the future waits for it");
        assert!(waiting.is_woken());
        assert_ready_eq!(waiting.poll(), Ok(2));
    }

    #[tokio::test]
    async fn await_and_wait_are_the_same() {
        assert_eq!(Answer::<Ready<u8>>::Now(3).await, 3);
        assert_eq!(Answer::Later(ready(4)).await, 4);
        assert_eq!(Answer::Later(ready(5)).wait().await, 5);
    }
}
