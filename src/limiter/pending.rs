//! Waiting for the store's answer, and perhaps for its answer to the candidate's check.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::store::{Answer, Checked, Decisions};

/// The store's answers about a request.
pub(super) struct Answers {
    /// About the buckets of the active policy, or of the account's own.
    pub(super) active: Checked,
    /// About the candidate's buckets.
    pub(super) candidate: Option<Decisions>,
}

impl Answers {
    fn of(active: Checked, candidate: Option<Checked>) -> Self {
        Self { active, candidate: candidate.and_then(Result::ok) }
    }
}

pin_project! {
    /// One or two checks that wait for the store. Every variant holds a check, so that there is no
    /// value of this type for a store that always answers at once.
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
            // In a box, because there seldom is a candidate.
            other: Box<Other<F>>,
        },
    }
}

/// The second of two answers, and the output of the first check once it is there.
pub(super) struct Other<F: Future> {
    /// Whether this is the answer for the active policy, and the first check is the candidate's.
    is_active: bool,
    answer: Half<F>,
    /// The output of the first check.
    first: Option<F::Output>,
}

enum Half<F: Future> {
    Asked(Pin<Box<F>>),
    Answered(Option<F::Output>),
}

impl<F: Future<Output = Checked>> Pending<F> {
    /// Both answers, if they are there, or else a future that waits for both. The candidate's check
    /// has to be polled to its end for its unit to be charged.
    ///
    /// # Errors
    /// The future.
    pub(super) fn both(active: Answer<F>, candidate: Option<Answer<F>>) -> Result<Answers, Self> {
        let other = |is_active, answer| Box::new(Other { is_active, answer, first: None });
        match (active, candidate) {
            (Answer::Now(active), None) => Ok(Answers::of(active, None)),
            (Answer::Now(active), Some(Answer::Now(candidate))) => {
                Ok(Answers::of(active, Some(candidate)))
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

impl<F: Future<Output = Checked>> Future for Pending<F> {
    type Output = Answers;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answers> {
        match self.project() {
            PendingProjection::One { check } => {
                Poll::Ready(Answers::of(ready!(check.poll(cx)), None))
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
                        Poll::Ready(Answers::of(active, candidate))
                    }
                    _ => Poll::Pending,
                }
            }
        }
    }
}

impl<F: Future> Half<F> {
    /// The place of the answer, once it is there.
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
