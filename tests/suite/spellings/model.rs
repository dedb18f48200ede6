//! Requests to sets of endpoints against an independent model: buckets of tokens, all or nothing.

use std::collections::HashMap;
use std::time::Duration;

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::{Enforcement, Policy, Quota, Ruling};
use proptest::prelude::*;

use super::{Stopped, caller};
use crate::support::stopped_limiter;

/// Paths of one endpoint and of several.
const PATHS: [&str; 9] = [
    "/call",
    "/user/me",
    "/v2/agent/x",
    "/v2/agent/x/executions",
    "/%63all",
    "/v2/agent/x%2Fexecutions",
    "/call%3f/../user/me",
    "/v2/agent/x%3f/../../../../call",
    "/v2/agent/x/executions%3f/../../../../../call",
];

/// A limit of some endpoints. The first four are the endpoints' own.
const NAMES: [&str; 6] = ["executions", "agent", "call", "default", "one", "two"];

#[derive(Clone, Copy, Debug)]
struct AnyLimit {
    /// A unit comes back in so many seconds.
    seconds: u64,
    burst: u32,
    cost: u32,
    shadow: bool,
    /// To which endpoints it belongs, besides its own: a bit for each.
    shared: u8,
}

fn any_limit() -> impl Strategy<Value = AnyLimit> {
    (1..=10_u64, 1..=6_u32, 1..=3_u32, prop::bool::weighted(0.3), 1..16_u8).prop_map(
        |(seconds, burst, cost, shadow, shared)| AnyLimit {
            seconds,
            burst,
            cost: cost.min(burst),
            shadow,
            shared,
        },
    )
}

impl AnyLimit {
    fn add_to(&self, policy: PolicyBuilder, index: usize) -> PolicyBuilder {
        let name = NAMES[index];
        let quota = Quota::per(1, Duration::from_secs(self.seconds)).burst(self.burst);
        let policy = if index < 4 {
            policy.quota(name, quota).cost(name, self.cost)
        } else {
            let endpoints = (0..4).filter(|at| self.shared & (1 << at) != 0).map(|at| NAMES[at]);
            let limit = LimitBuilder::account(name, quota).cost(self.cost);
            policy.shared(limit, endpoints.collect::<Vec<_>>())
        };
        policy.enforce(name, if self.shadow { Enforcement::SHADOW } else { Enforcement::FULL })
    }

    fn is_of(&self, index: usize, endpoint: &str) -> bool {
        let bit = |at: usize| NAMES[at] == endpoint && self.shared & (1 << at) != 0;
        if index < 4 { NAMES[index] == endpoint } else { (0..4).any(bit) }
    }
}

/// How many nanoseconds' worth of tokens each limit has, and what it decides.
struct Model<'a> {
    limits: &'a [AnyLimit],
    fill: HashMap<usize, u64>,
}

const SECOND: u64 = 1_000_000_000;

impl Model<'_> {
    fn capacity(limit: &AnyLimit) -> u64 {
        limit.seconds * SECOND * u64::from(limit.burst)
    }

    fn advance(&mut self, nanos: u64) {
        for (index, fill) in &mut self.fill {
            *fill = Self::capacity(&self.limits[*index]).min(*fill + nanos);
        }
    }

    /// Decides a request to these endpoints as the ruling has to.
    fn check(&mut self, endpoints: &[&str], ruling: &Ruling) {
        let mut charged: Vec<usize> = Vec::new();
        for endpoint in endpoints {
            // An endpoint's own limit is told first, then those that it shares.
            let own = (0..NAMES.len()).filter(|&it| self.limits[it].is_of(it, endpoint));
            own.for_each(|it| {
                if !charged.contains(&it) {
                    charged.push(it);
                }
            });
        }
        let names: Vec<_> = ruling.decisions().iter().map(|it| it.name().name()).collect();
        assert_eq!(names, charged.iter().map(|it| NAMES[*it]).collect::<Vec<_>>());
        let limit = |index: usize| &self.limits[index];
        let price = |index: usize| limit(index).seconds * SECOND * u64::from(limit(index).cost);
        let has: HashMap<usize, bool> =
            charged.iter().map(|it| (*it, self.fill[it] >= price(*it))).collect();
        let none_binds = charged.iter().all(|it| limit(*it).shadow);
        let all_have = |shadow| charged.iter().all(|it| limit(*it).shadow != shadow || has[it]);
        let (binding, shadow) = (all_have(false), all_have(true));
        assert_eq!(ruling.is_admitted(), binding);
        assert_eq!(ruling.is_allowed(), binding && shadow);
        for (decision, index) in ruling.decisions().iter().zip(&charged) {
            let takes =
                if none_binds { shadow } else { binding && (!limit(*index).shadow || shadow) };
            let fill = self.fill.get_mut(index).unwrap();
            if takes {
                *fill -= self.limits[*index].seconds * SECOND * u64::from(self.limits[*index].cost);
            }
            assert_eq!(decision.is_allowed(), has[index], "{}", NAMES[*index]);
            let left = *fill / (self.limits[*index].seconds * SECOND);
            assert_eq!(u64::from(decision.remaining()), left, "{}", NAMES[*index]);
        }
    }
}

proptest! {
    #[test]
    fn every_limit_of_the_endpoints_is_charged_once_or_none_is(
        limits in prop::collection::vec(any_limit(), 6),
        requests in prop::collection::vec(
            (0..PATHS.len(), prop_oneof![3 => Just(0), 2 => 0..20_000_000_000_u64]),
            1..100,
        ),
    ) {
        let add = |policy, (index, limit): (usize, &AnyLimit)| limit.add_to(policy, index);
        let policy = limits.iter().enumerate().fold(Policy::bolna(), add).build().unwrap();
        let (limiter, clock): (Stopped, _) = stopped_limiter(policy.clone());
        let fill = limits.iter().map(Model::capacity).enumerate().collect();
        let mut model = Model { limits: &limits, fill };
        for (path, pause) in requests {
            clock.advance(Duration::from_nanos(pause));
            model.advance(pause);
            let endpoints = super::charged(&policy, PATHS[path]);
            let ruling = limiter.check_now(&caller(), PATHS[path]).unwrap();
            prop_assert_eq!(ruling.endpoint().map(|it| it.name()), endpoints.first().copied());
            model.check(&endpoints, &ruling);
        }
    }
}
