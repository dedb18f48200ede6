//! Admitting a request that can be corrected afterwards and is in flight, without Tower.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::admission::{Admission, Corrects, Held};
use super::decide::{Asked, Conclusion, Decided, Terms};
use super::deciding::Deciding;
use super::{Limiter, LimiterState};
use crate::observe::Nothing;
use crate::policy::Account;
use crate::store::{Answer, Store, StoreError};
use crate::values::{Costs, Endpoint, Ruling};

/// What [`Limiter::admit`] has decided.
///
/// The [example of `Limiter::admit`](Limiter::admit) reads it.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "the request has been charged: the ruling says whether it is admitted"]
pub struct Admitted {
    /// What the limits say, and whether the request is admitted.
    pub ruling: Ruling,
    /// What the request has paid, and its places. `None` if it is refused, or has paid nothing and
    /// is not counted as in flight.
    pub admission: Option<Admission>,
}

impl<St: Store> Limiter<St> {
    /// The same as [`check`](Self::check), for a request that may be corrected after it was
    /// admitted, and that is in flight as long as its [`Admission`] is kept. `None` if the path is
    /// exempt.
    ///
    /// # Errors
    /// As those of [`check`](Self::check).
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter, Policy};
    ///
    /// # tokio_test::block_on(async {
    /// let limiter = Limiter::new(Policy::bolna().concurrent("call", 1).build()?);
    /// let caller = Account::user("u-17");
    /// let first = limiter.admit(&caller, "/call").expect("/call is not exempt").await?;
    ///
    /// // At most one request in flight:
    /// let second = limiter.admit(&caller, "/call").expect("/call is not exempt").await?;
    /// assert!(!second.ruling.is_admitted());
    ///
    /// // The call could not be placed, so the request is refunded, and is over.
    /// let admission = first.admission.expect("the first request was admitted");
    /// admission.refund();
    /// drop(admission);
    /// let third = limiter.admit(&caller, "/call").expect("/call is not exempt").await?;
    /// assert!(third.ruling.is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use = "the request has been charged: the ruling says whether it is admitted"]
    pub fn admit(&self, account: &Account, path: &str) -> Option<Answer<LimiterAdmit<St>>> {
        self.admitted(&Asked::of(Some(account), path))
    }

    /// The same as [`check_endpoint`](Self::check_endpoint), for work that may be corrected after
    /// it was admitted, and that is in flight as long as its [`Admission`] is kept.
    ///
    /// # Errors
    /// As those of [`check_endpoint`](Self::check_endpoint).
    #[must_use = "it has been charged: the ruling says whether it is admitted"]
    pub fn admit_endpoint(
        &self,
        account: &Account,
        endpoint: Endpoint,
        costs: impl Into<Costs>,
    ) -> Answer<LimiterAdmit<St>> {
        let costs = costs.into();
        let answer = self.admitted(&Asked::by_name(account, endpoint, &costs));
        answer.unwrap_or_else(|| {
            let ruling = self.without_endpoint(account, endpoint);
            Answer::Now(ruling.map(|ruling| Admitted { ruling, admission: None }))
        })
    }

    fn admitted(&self, asked: &Asked<'_>) -> Option<Answer<LimiterAdmit<St>>> {
        let terms = Terms { corrects: true, ..Terms::default() };
        match self.decide(asked, &terms, &asked.target) {
            Decided::Exempt => None,
            Decided::Now(conclusion) => Some(Answer::Now(self.conclude_admission(conclusion))),
            Decided::Later(deciding) => {
                Some(Answer::Later(LimiterAdmit { deciding, limiter: self.clone() }))
            }
        }
    }

    fn conclude_admission(&self, mut conclusion: Conclusion) -> Result<Admitted, StoreError> {
        let rest = conclusion.rest.take();
        let ruling = conclusion.into_result()?;
        let held = rest.map(|rest| rest.held).filter(|held| !held.is_empty());
        let admission = held.map(|held| self.admission(held));
        Ok(Admitted { ruling, admission })
    }

    /// The admission of a request that has paid something or has a place.
    pub(crate) fn admission(&self, held: Held) -> Admission {
        let limiter: Arc<LimiterState<St>> = Arc::clone(&self.shared);
        let resets = limiter.resets.count();
        Admission::new(limiter as Arc<dyn Corrects>, resets, held)
    }
}

pin_project! {
    /// The future of [`Limiter::admit`], where the store can't answer at once. If it is dropped
    /// before its answer, the request is not in flight; its buckets may have been charged or not.
    ///
    /// It is awaited in the [example of `Limiter::admit`](Limiter::admit).
    #[must_use = "futures do nothing unless polled"]
    pub struct LimiterAdmit<St>
    where
        St: Store,
    {
        #[pin]
        deciding: Deciding<St::Check>,
        limiter: Limiter<St>,
    }
}

impl<St: Store> Future for LimiterAdmit<St> {
    type Output = Result<Admitted, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let conclusion = ready!(this.deciding.poll_conclusion(cx, &Nothing));
        Poll::Ready(this.limiter.conclude_admission(conclusion))
    }
}

impl<St: Store> fmt::Debug for LimiterAdmit<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterAdmit").finish_non_exhaustive()
    }
}
