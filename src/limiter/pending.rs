//! Waiting for a store, and perhaps for what it says to the candidate as well.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::decision::Decision;
use crate::store::{Answer, StoreError};

/// What the store says about a request.
pub(crate) struct Answers {
    pub(crate) enforced: Result<Decision, StoreError>,
    /// By the candidate's rules, of the bucket beside.
    pub(crate) candidate: Option<Decision>,
}

pin_project! {
    #[project = PendingProjection]
    pub(crate) enum Pending<F>
    where
        F: Future,
    {
        One {
            #[pin]
            check: F,
        },
        // In a box, since there seldom is a candidate.
        Both {
            both: Box<[Half<F>; 2]>,
        },
    }
}

impl<F: Future> Pending<F> {
    /// Waits for both: the candidate's check has to be seen to its end for its unit to be charged.
    pub(crate) fn both(enforced: Answer<F>, candidate: Answer<F>) -> Self {
        Self::Both { both: Box::new([Half::of(enforced), Half::of(candidate)]) }
    }
}

impl<F: Future<Output = Result<Decision, StoreError>>> Future for Pending<F> {
    type Output = Answers;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answers> {
        match self.project() {
            PendingProjection::One { check } => {
                Poll::Ready(Answers { enforced: ready!(check.poll(cx)), candidate: None })
            }
            PendingProjection::Both { both } => {
                let [enforced, candidate] = &mut **both;
                let done = [enforced.poll(cx), candidate.poll(cx)];
                if done == [true; 2] {
                    let candidate = candidate.take().ok();
                    Poll::Ready(Answers { enforced: enforced.take(), candidate })
                } else {
                    Poll::Pending
                }
            }
        }
    }
}

pub(crate) enum Half<F: Future> {
    Asked(Pin<Box<F>>),
    Answered(Option<F::Output>),
}

impl<F: Future> Half<F> {
    fn of(answer: Answer<F>) -> Self {
        match answer {
            Answer::Now(output) => Self::Answered(Some(output)),
            Answer::Later(check) => Self::Asked(Box::pin(check)),
        }
    }

    /// Whether it has been answered.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if let Self::Asked(check) = self {
            let Poll::Ready(output) = check.as_mut().poll(cx) else { return false };
            *self = Self::Answered(Some(output));
        }
        true
    }

    fn take(&mut self) -> F::Output {
        match self {
            Self::Answered(output) => output.take().expect("polled after completion"),
            Self::Asked(_) => unreachable!("taken when answered"),
        }
    }
}
