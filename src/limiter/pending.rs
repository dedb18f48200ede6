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
    /// Every variant holds a check, so that there is no value of this type for a store that always answers at once.
    #[project = PendingProjection]
    pub(crate) enum Pending<F>
    where
        F: Future,
    {
        One {
            #[pin]
            check: F,
        },
        Both {
            #[pin]
            check: F,
            // In a box, since there seldom is a candidate.
            other: Box<Other<F>>,
        },
    }
}

/// The other one of two answers, and what was said first.
pub(crate) struct Other<F: Future> {
    /// Whether it is that by the policy in force, and the check beside it the candidate's.
    is_enforced: bool,
    answer: Half<F>,
    first: Option<F::Output>,
}

enum Half<F: Future> {
    Asked(Pin<Box<F>>),
    Answered(Option<F::Output>),
}

impl<F: Future<Output = Result<Decision, StoreError>>> Pending<F> {
    /// Waits for both, or has both: the candidate's check has to be seen to its end for its unit to
    /// be charged.
    pub(crate) fn both(enforced: Answer<F>, candidate: Option<Answer<F>>) -> Result<Answers, Self> {
        let other = |is_enforced, answer| Box::new(Other { is_enforced, answer, first: None });
        match (enforced, candidate) {
            (Answer::Now(enforced), None) => Ok(Answers { enforced, candidate: None }),
            (Answer::Now(enforced), Some(Answer::Now(candidate))) => {
                Ok(Answers { enforced, candidate: candidate.ok() })
            }
            (Answer::Later(check), None) => Err(Self::One { check }),
            (Answer::Later(check), Some(candidate)) => {
                let candidate = match candidate {
                    Answer::Now(output) => Half::Answered(Some(output)),
                    Answer::Later(check) => Half::Asked(Box::pin(check)),
                };
                Err(Self::Both { check, other: other(false, candidate) })
            }
            (Answer::Now(enforced), Some(Answer::Later(check))) => {
                Err(Self::Both { check, other: other(true, Half::Answered(Some(enforced))) })
            }
        }
    }
}

impl<F: Future<Output = Result<Decision, StoreError>>> Future for Pending<F> {
    type Output = Answers;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answers> {
        match self.project() {
            PendingProjection::One { check } => {
                Poll::Ready(Answers { enforced: ready!(check.poll(cx)), candidate: None })
            }
            PendingProjection::Both { check, other } => {
                let Other { is_enforced, answer, first } = &mut **other;
                if first.is_none() {
                    *first = match check.poll(cx) {
                        Poll::Ready(output) => Some(output),
                        Poll::Pending => None,
                    };
                }
                let second = answer.poll(cx);
                match (second, first) {
                    (Some(second), first @ Some(_)) => {
                        let (first, second) = (first.take(), second.take());
                        let (enforced, candidate) =
                            if *is_enforced { (second, first) } else { (first, second) };
                        let enforced = enforced.expect("polled after completion");
                        Poll::Ready(Answers { enforced, candidate: candidate.and_then(Result::ok) })
                    }
                    _ => Poll::Pending,
                }
            }
        }
    }
}

impl<F: Future> Half<F> {
    /// Where the answer is, when it is there.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<&mut Option<F::Output>> {
        if let Self::Asked(check) = self {
            let Poll::Ready(output) = check.as_mut().poll(cx) else { return None };
            *self = Self::Answered(Some(output));
        }
        match self {
            Self::Answered(output) => Some(output),
            Self::Asked(_) => None,
        }
    }
}
