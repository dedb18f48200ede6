//! What is left to do about an admitted request once its response is there: to correct what it was
//! charged, and to end its time in flight.

use std::fmt;
use std::sync::Arc;

use http::Response;
use http::response::Parts;

use super::cost::IntoCost;
use crate::limiter::Admission;
use crate::values::LimitName;

/// The rules by which charges are corrected.
#[derive(Clone, Default)]
pub(super) struct Corrections {
    refund_on: Vec<Arc<RefundOn>>,
    costs: Vec<FinalCost>,
    /// Whether a request is refunded if the inner service fails.
    pub(super) refund_errors: bool,
    /// Whether a request is refunded if its future is dropped before the response is there.
    pub(super) refund_dropped: bool,
}

type RefundOn = dyn Fn(&Parts) -> bool + Send + Sync;

/// How many units of one limit a request costs in the end, by a closure on the response's head.
#[derive(Clone)]
struct FinalCost {
    limit: LimitName,
    cost: Arc<CostOf>,
}

type CostOf = dyn Fn(&Parts) -> Option<u32> + Send + Sync;

impl Corrections {
    pub(super) fn refund_on(&mut self, refund: impl Fn(&Parts) -> bool + Send + Sync + 'static) {
        self.refund_on.push(Arc::new(refund));
    }

    pub(super) fn settle<C: IntoCost>(
        &mut self,
        limit: LimitName,
        cost: impl Fn(&Parts) -> C + Send + Sync + 'static,
    ) {
        let cost = Arc::new(move |head: &Parts| cost(head).into_cost());
        self.costs.push(FinalCost { limit, cost });
    }

    fn apply(&self, admission: &Admission, head: &Parts) {
        if self.refund_on.iter().any(|refund| refund(head)) {
            return admission.refund();
        }
        for FinalCost { limit, cost } in &self.costs {
            if let Some(units) = cost(head) {
                admission.settle(*limit, units);
            }
        }
    }
}

/// What is left to do about one request. Dropped before [`answered`](Self::answered) or
/// [`failed`](Self::failed): the request ended without a response.
pub(super) struct After {
    admission: Admission,
    /// `None` if there is nothing to correct, or it is done.
    corrections: Option<Arc<Corrections>>,
    is_in_flight: bool,
}

impl After {
    pub(super) fn new(
        admission: Admission,
        corrections: Option<Arc<Corrections>>,
        is_in_flight: bool,
    ) -> Self {
        Self { admission, corrections, is_in_flight }
    }

    /// The response is there. Returns what its body has to keep for as long as it lasts.
    pub(super) fn answered<B>(mut self, response: Response<B>) -> (Response<B>, Option<Admission>) {
        let mut response = response;
        if let Some(corrections) = &self.corrections {
            let (head, body) = response.into_parts();
            corrections.apply(&self.admission, &head);
            response = Response::from_parts(head, body);
        }
        self.corrections = None;
        (response, self.is_in_flight.then(|| self.admission.clone()))
    }

    /// The inner service has failed.
    pub(super) fn failed(mut self) {
        if self.corrections.take().is_some_and(|it| it.refund_errors) {
            self.admission.refund();
        }
    }
}

impl Drop for After {
    fn drop(&mut self) {
        if self.corrections.as_ref().is_some_and(|it| it.refund_dropped) {
            self.admission.refund();
        }
    }
}

impl fmt::Debug for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After").field("admission", &self.admission).finish_non_exhaustive()
    }
}
