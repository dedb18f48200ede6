//! The costs that requests have themselves.

use std::sync::Arc;

use http::request::Parts;

use crate::values::{Costs, LimitName};

/// The cost of one limit, by a closure on the request's head.
#[derive(Clone)]
pub(super) struct CostOf {
    limit: LimitName,
    cost: Arc<Closure>,
}

type Closure = dyn Fn(&Parts) -> Option<u32> + Send + Sync;

impl CostOf {
    pub(super) fn new<C: IntoCost>(
        limit: LimitName,
        cost: impl Fn(&Parts) -> C + Send + Sync + 'static,
    ) -> Self {
        Self { limit, cost: Arc::new(move |head| cost(head).into_cost()) }
    }

    /// What a request with that head costs.
    pub(super) fn all(costs: &[Self], head: &Parts) -> Costs {
        let each = costs.iter().filter_map(|it| Some((it.limit, (it.cost)(head)?)));
        each.fold(Costs::default(), |costs, (limit, units)| costs.of(limit, units))
    }
}

/// Types that a closure for [`cost`](crate::BolnaRateLimitLayer::cost) can return: a number of
/// units, or an `Option` of one.
///
/// ```
/// use bolna_rate_limit::{BolnaRateLimitLayer, Endpoint};
///
/// let layer = BolnaRateLimitLayer::new();
/// // `u32`: a batch costs as much as ten calls.
/// let by_path = layer.clone().cost(Endpoint::CALL, |head| {
///     if head.uri.query() == Some("batch") { 10 } else { 1 }
/// });
/// // `Option<u32>`: as many calls as the field says, which the handler has to hold the caller to;
/// // without it, the cost of the policy.
/// let by_header = layer.cost(Endpoint::CALL, |head| {
///     head.headers.get("x-calls")?.to_str().ok()?.parse::<u32>().ok()
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no cost",
    label = "the closure returns this",
    note = "it must return a `u32`, or an `Option<u32>`, where `None` is the policy's cost"
)]
pub trait IntoCost {
    /// The units, or `None` for the policy's cost.
    fn into_cost(self) -> Option<u32>;
}

impl IntoCost for u32 {
    fn into_cost(self) -> Option<u32> {
        Some(self)
    }
}

impl IntoCost for Option<u32> {
    fn into_cost(self) -> Option<u32> {
        self
    }
}
