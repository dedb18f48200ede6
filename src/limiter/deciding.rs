//! A decision that waits for the store.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::active::Active;
use super::decide::{Carried, Conclusion, Request, Terms};
use super::pending::Pending;
use crate::observe::{Nothing, Seen};
use crate::policy::Policy;
use crate::store::{Checked, Immediate, StoreError};
use crate::values::{Endpoint, Enforced, OwnedCharge, Ruling};

pin_project! {
    /// A decision that waits for the store. The request is decided by the policy and the settings
    /// that were active when it came, even if others have become active meanwhile.
    pub(crate) struct Deciding<F>
    where
        F: Future,
    {
        #[pin]
        pending: Pending<F>,
        // `None` if the request is unidentified.
        endpoint: Option<Endpoint>,
        terms: Terms,
        // `None` if the request only has to be decided about.
        full: Option<Box<Full>>,
    }
}

/// What is needed for enforcement, the candidate and observers.
struct Full {
    active: Arc<Active>,
    policy: Policy,
    charge: OwnedCharge,
    enforced: Enforced,
    asked: Instant,
    /// What the request carries to its conclusion.
    carried: Option<Box<Carried>>,
}

impl<F: Future> Deciding<F> {
    pub(super) fn plain(check: F, endpoint: Endpoint, terms: Terms) -> Self {
        Self { pending: Pending::One { check }, endpoint: Some(endpoint), terms, full: None }
    }

    pub(super) fn full(
        pending: Pending<F>,
        active: &Arc<Active>,
        request: &Request<'_>,
        carried: Option<Box<Carried>>,
        terms: &Terms,
    ) -> Self {
        let full = Full {
            active: Arc::clone(active),
            policy: request.policy.clone(),
            charge: OwnedCharge::of(&request.charge),
            enforced: request.enforced,
            asked: Instant::now(),
            carried,
        };
        let (endpoint, full) = (request.endpoint, Some(Box::new(full)));
        Self { pending, endpoint, terms: *terms, full }
    }
}

impl Deciding<Immediate> {
    /// Shows the compiler that this can't happen: there is no value of this type.
    pub(super) fn never(self) -> ! {
        match self.pending {
            Pending::One { check } | Pending::Both { check, .. } => match check {},
        }
    }
}

impl<F: Future<Output = Checked>> Deciding<F> {
    /// Polls for the conclusion. `seen` is the request, as it is when the store has answered.
    #[inline]
    pub(crate) fn poll_conclusion(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        seen: &impl Seen,
    ) -> Poll<Conclusion> {
        let this = self.project();
        let answers = ready!(this.pending.poll(cx));
        Poll::Ready(match (this.full.as_deref_mut(), *this.endpoint) {
            (None, endpoint) => {
                let endpoint = endpoint.unwrap_or(Endpoint::DEFAULT);
                Conclusion::plain(answers.active, endpoint, this.terms)
            }
            (Some(Full { active, policy, charge, enforced, asked, carried }), endpoint) => {
                let carried = carried.take();
                let (charge, enforced) = (charge.borrow(), *enforced);
                let waited = Some(asked.elapsed());
                let request = Request { policy, endpoint, charge, enforced, waited };
                active.conclude(
                    &request,
                    answers.active,
                    answers.candidate,
                    carried,
                    this.terms,
                    seen,
                )
            }
        })
    }
}

pin_project! {
    /// The future of a [check](crate::Limiter::check) that the store can't answer at once.
    ///
    /// It is awaited in the [example of `Limiter::check`](crate::Limiter::check).
    #[must_use = "futures do nothing unless polled"]
    pub struct LimiterCheck<F>
    where
        F: Future,
    {
        #[pin]
        deciding: Deciding<F>,
    }
}

impl<F: Future> LimiterCheck<F> {
    pub(super) fn new(deciding: Deciding<F>) -> Self {
        Self { deciding }
    }
}

impl<F: Future<Output = Checked>> Future for LimiterCheck<F> {
    type Output = Result<Ruling, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let conclusion = ready!(self.project().deciding.poll_conclusion(cx, &Nothing));
        Poll::Ready(conclusion.into_result())
    }
}

impl<F: Future> fmt::Debug for LimiterCheck<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterCheck").finish_non_exhaustive()
    }
}
