//! Waiting for a store, and perhaps for what it says to the candidate as well.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::store::{Answer, StoreError};
use crate::values::Decision;

/// What the store says about a request.
pub(super) struct Answers {
    /// By the policy that counts.
    pub(super) active: Result<Decision, StoreError>,
    /// By the candidate's rules, about the candidate's bucket.
    pub(super) candidate: Option<Decision>,
}

pin_project! {
    /// Every variant holds a check, so that there is no value of this type for a store that always
    /// answers at once.
    #[project = PendingProjection]
    pub(super) enum Pending<F>
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

/// The other one of two answers, and the one that came first.
pub(super) struct Other<F: Future> {
    /// Whether it is the active policy's, and the check beside it the candidate's.
    is_active: bool,
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
    pub(super) fn both(active: Answer<F>, candidate: Option<Answer<F>>) -> Result<Answers, Self> {
        let other = |is_active, answer| Box::new(Other { is_active, answer, first: None });
        match (active, candidate) {
            (Answer::Now(active), None) => Ok(Answers { active, candidate: None }),
            (Answer::Now(active), Some(Answer::Now(candidate))) => {
                Ok(Answers { active, candidate: candidate.ok() })
            }
            (Answer::Later(check), None) => Err(Self::One { check }),
            (Answer::Later(check), Some(candidate)) => {
                let candidate = match candidate {
                    Answer::Now(output) => Half::Answered(Some(output)),
                    Answer::Later(check) => Half::Asked(Box::pin(check)),
                };
                Err(Self::Both { check, other: other(false, candidate) })
            }
            (Answer::Now(active), Some(Answer::Later(check))) => {
                Err(Self::Both { check, other: other(true, Half::Answered(Some(active))) })
            }
        }
    }
}

impl<F: Future<Output = Result<Decision, StoreError>>> Future for Pending<F> {
    type Output = Answers;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answers> {
        match self.project() {
            PendingProjection::One { check } => {
                Poll::Ready(Answers { active: ready!(check.poll(cx)), candidate: None })
            }
            PendingProjection::Both { check, other } => {
                let Other { is_active, answer, first } = &mut **other;
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
                        let (active, candidate) =
                            if *is_active { (second, first) } else { (first, second) };
                        let active = active.expect("polled after completion");
                        Poll::Ready(Answers { active, candidate: candidate.and_then(Result::ok) })
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
