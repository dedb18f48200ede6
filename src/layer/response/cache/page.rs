//! The values of header fields that are rendered together.

use http::HeaderValue;

use super::shared::Leaked;
use crate::layer::response::buffer::Buffer;
use crate::layer::response::fields::draft11;
use crate::values::{Decision, LimitName, Quota};

/// How many values of `RateLimit` are rendered together. It takes about 10 us.
const LIMITS: u32 = 128;

/// The values of header fields for a run of remaining units.
pub(super) struct Page {
    policy: HeaderValue,
    limits: Box<[HeaderValue]>,
}

/// What the texts of a page depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PageKey {
    name: LimitName,
    quota: Quota,
    number: u32,
}

impl PageKey {
    /// The page for a decision, and the index in it. `None` if no unit remains: then the value of
    /// `RateLimit` depends on the time until one comes back.
    #[inline]
    pub(super) fn of(decision: &Decision) -> Option<(Self, usize)> {
        let index = decision.remaining().checked_sub(1)?;
        let (name, quota) = (decision.name(), decision.quota());
        Some((Self { name, quota, number: index / LIMITS }, (index % LIMITS) as usize))
    }

    /// Pages of one quota have places in a row, so that none takes the place of another.
    #[inline]
    pub(super) fn hash(&self) -> usize {
        hash(self.name, self.quota).wrapping_add(self.number as usize)
    }
}

impl Page {
    pub(super) fn new(PageKey { name, quota, number }: PageKey) -> Self {
        let first = number * LIMITS + 1;
        let last = first.saturating_add(LIMITS - 1).min(quota.burst());
        // The texts of a page share an allocation, so that they do not keep blocks of the thread's
        // buffer in use.
        let texts = LIMITS as usize + 1;
        let mut buffer = Buffer::with_room(texts * (name.name().len() + 24));
        Self {
            policy: draft11::policy(&mut buffer, name, quota),
            limits: (first..=last)
                .map(|remaining| draft11::limit_with(&mut buffer, name, quota, remaining))
                .collect(),
        }
    }

    /// The same page in memory that is never freed.
    pub(super) fn leaked(mut self) -> Self {
        let length = self.limits.iter().map(HeaderValue::len).sum::<usize>();
        let mut leaked = Leaked::with_room(self.policy.len() + length);
        for value in self.limits.iter_mut().chain([&mut self.policy]) {
            *value = leaked.value(value);
        }
        self
    }

    /// The values of `RateLimit-Policy` and `RateLimit`.
    #[inline]
    pub(super) fn fields(&self, index: usize) -> (&HeaderValue, &HeaderValue) {
        (&self.policy, &self.limits[index])
    }
}

/// The hash of a limit's name and quota. All of a quota counts: the plans of a platform may differ
/// in their bursts or periods alone.
#[inline]
pub(super) fn hash(name: LimitName, quota: Quota) -> usize {
    // 2^64 divided by the golden ratio: neighbouring numbers end up far apart.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let (period, number) = (quota.period(), u64::from(name.number()));
    let units = u64::from(quota.limit()) << 32 | u64::from(quota.burst());
    let time = period.as_secs() ^ u64::from(period.subsec_nanos());
    let hash = (units ^ time).wrapping_add(number).wrapping_mul(GOLDEN);
    // The highest bits depend on all others.
    (hash >> (u64::BITS - 16)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::hash;
    use crate::values::{Endpoint, Quota};

    #[test]
    fn quotas_that_differ_in_one_number_are_spread_over_the_places() {
        let all = || 1..=1000_u32;
        let second = Duration::from_secs(1);
        let limits = all().map(|limit| Quota::per(limit, second)).collect::<Vec<_>>();
        let one_burst = all().map(|limit| Quota::per(limit, second).burst(1)).collect();
        let bursts = all().map(|burst| Quota::per_minute(500).burst(burst)).collect();
        let periods = all().map(|seconds| Quota::per(500, seconds * second)).collect();
        let millis = all().map(|millis| Quota::per(5, Duration::from_millis(millis.into())));
        for quotas in [limits, one_burst, bursts, periods, millis.collect()] {
            let mut places = HashMap::<_, usize>::new();
            for quota in quotas {
                let quota = quota.build().expect("the quota is valid");
                *places.entry(hash(Endpoint::CALL.into(), quota) % 256).or_default() += 1;
            }
            let most = places.into_values().max();
            assert!(most <= Some(14), "{most:?} of 1000 quotas have one place");
        }
    }
}
