//! What a request costs.

use smallvec::SmallVec;

use super::charge::Entry;
use super::limit::LimitName;

/// Costs that replace those of the policy.
///
/// ```
/// use bolna_rate_limit::values::{Costs, LimitName};
///
/// // As much as five requests, from every limit:
/// let five = Costs::times(5);
/// assert_eq!(five, 5.into());
/// // What the policy says, but 900 units of the limit `rows`:
/// let rows = Costs::default().of(LimitName::new("rows")?, 900);
/// # Ok::<(), bolna_rate_limit::values::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    times: u32,
    of: SmallVec<[(LimitName, u32); 2]>,
}

impl Costs {
    /// Multiplies the policy's cost of every limit by `requests`. 0 is treated as 1, so that no
    /// request is free by mistake. Limits of [requests in flight](super::Quota::is_concurrent) are
    /// not multiplied: however much it costs, it is one request in flight.
    #[must_use]
    pub fn times(requests: u32) -> Self {
        Self { times: requests.max(1), of: SmallVec::new() }
    }

    /// Sets the cost of one limit, in units. It replaces the policy's, and is not multiplied. 0 is
    /// treated as 1. A limit that does not apply to the request is ignored. The last of several
    /// costs of one limit counts.
    #[must_use]
    pub fn of(mut self, limit: impl Into<LimitName>, units: u32) -> Self {
        let limit = limit.into();
        self.of.retain(|(known, _)| *known != limit);
        self.of.push((limit, units.max(1)));
        self
    }

    /// The units of an entry, which may be more than its bucket can hold.
    pub(crate) fn units(&self, entry: &Entry) -> u32 {
        let own = self.of.iter().find(|(limit, _)| *limit == entry.name());
        let times = if entry.is_concurrent() { 1 } else { self.times };
        own.map_or_else(|| entry.cost().saturating_mul(times), |(_, units)| *units)
    }
}

/// What the policy says.
impl Default for Costs {
    fn default() -> Self {
        Self::times(1)
    }
}

/// As much as that many requests: see [`Costs::times`].
impl From<u32> for Costs {
    fn from(requests: u32) -> Self {
        Self::times(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::Costs;
    use crate::values::{Endpoint, Entry, Limit, LimitName, Quota};

    #[test]
    fn several_requests_at_once_are_one_request_in_flight() {
        let name = LimitName::new("places").expect("the name is valid");
        let in_flight = Quota::concurrent(10).build().expect("the quota is valid");
        let in_flight = Entry::of(Limit::new(name, in_flight)).with_cost(2).expect("below 10");
        let rate = Quota::per_minute(500).build().expect("the quota is valid");
        let rate = Entry::new(Endpoint::CALL, rate).with_cost(2).expect("below 500");
        let units = |costs: &Costs| (costs.units(&rate), costs.units(&in_flight));
        assert_eq!(units(&Costs::default()), (2, 2));
        assert_eq!(units(&Costs::times(5)), (10, 2));
        // Unless the request itself says how many it counts as.
        assert_eq!(units(&Costs::times(5).of(name, 7)), (10, 7));
    }
}
