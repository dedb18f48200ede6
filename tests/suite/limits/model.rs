//! Several limits against an independent model: buckets of tokens, all or nothing.

use std::collections::HashMap;
use std::time::Duration;

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::{Account, Enforcement, Policy, Quota, Ruling};
use proptest::prelude::*;

use crate::support::stopped_limiter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Account,
    User,
    Everyone,
}

#[derive(Clone, Copy, Debug)]
struct AnyLimit {
    whose: Whose,
    limit: u32,
    burst: u32,
    seconds: u64,
    cost: u32,
    shadow: bool,
}

const NAMES: [&str; 4] = ["call", "second", "third", "fourth"];
const USERS: [Option<&str>; 3] = [Some("u-1"), Some("u-2"), None];
const ORGANIZATIONS: [Option<&str>; 3] = [Some("o-1"), Some("o-2"), None];

fn any_limit() -> impl Strategy<Value = AnyLimit> {
    let whose = prop::sample::select(vec![Whose::Account, Whose::User, Whose::Everyone]);
    (whose, 1..=6_u32, 1..=6_u32, 1..=60_u64, 1..=6_u32, prop::bool::weighted(0.3)).prop_map(
        |(whose, limit, burst, seconds, cost, shadow)| AnyLimit {
            whose,
            limit,
            burst,
            seconds,
            cost: cost.min(burst),
            shadow,
        },
    )
}

impl AnyLimit {
    fn quota(&self) -> bolna_rate_limit::values::QuotaBuilder {
        Quota::per(self.limit, Duration::from_secs(self.seconds)).burst(self.burst)
    }

    fn add_to(&self, builder: PolicyBuilder, name: &str, is_first: bool) -> PolicyBuilder {
        let builder = if is_first {
            builder.quota(name, self.quota()).cost(name, self.cost)
        } else {
            let limit = match self.whose {
                Whose::Account => LimitBuilder::account(name, self.quota()),
                Whose::User => LimitBuilder::user(name, self.quota()),
                Whose::Everyone => LimitBuilder::everyone(name, self.quota()),
            };
            builder.also("call", limit.cost(self.cost))
        };
        builder.enforce(name, if self.shadow { Enforcement::SHADOW } else { Enforcement::FULL })
    }

    /// The time in which a token comes back, rounded up to a nanosecond.
    fn token(&self) -> u128 {
        (u128::from(self.seconds) * 1_000_000_000).div_ceil(u128::from(self.limit))
    }

    fn capacity(&self) -> u128 {
        self.token() * u128::from(self.burst)
    }

    /// Whose tokens a request takes. `None` if the limit does not apply.
    fn owner(&self, user: Option<&str>, organization: Option<&str>) -> Option<String> {
        let billed =
            organization.map(|it| format!("o {it}")).or(user.map(|it| format!("u {it}")))?;
        match self.whose {
            Whose::Account => Some(billed),
            Whose::User => Some(format!("{billed} {}", user?)),
            Whose::Everyone => Some("everyone".to_owned()),
        }
    }
}

/// The tokens of each limit and owner, as the time in which they came back.
#[derive(Default)]
struct Model {
    fill: HashMap<(usize, String), u128>,
}

impl Model {
    fn advance(&mut self, limits: &[AnyLimit], nanos: u128) {
        for ((index, _), fill) in &mut self.fill {
            *fill = limits[*index].capacity().min(*fill + nanos);
        }
    }

    /// Decides one request as the ruling has to.
    fn check(
        &mut self,
        limits: &[AnyLimit],
        (user, organization): (Option<&str>, Option<&str>),
        ruling: &Ruling,
    ) {
        let applying: Vec<_> = limits
            .iter()
            .enumerate()
            .filter_map(|(index, limit)| Some((index, limit, limit.owner(user, organization)?)))
            .collect();
        let mut fill = |index: usize, limit: &AnyLimit, owner: &String| {
            *self.fill.entry((index, owner.clone())).or_insert(limit.capacity())
        };
        let price = |limit: &AnyLimit| limit.token() * u128::from(limit.cost);
        let has: Vec<bool> = applying
            .iter()
            .map(|(index, limit, owner)| fill(*index, limit, owner) >= price(limit))
            .collect();
        let none_binds = applying.iter().all(|(_, limit, _)| limit.shadow);
        let all = |shadow: bool| {
            applying.iter().zip(&has).all(|((_, limit, _), has)| limit.shadow != shadow || *has)
        };
        let (binding, shadow) = (all(false), all(true));
        for (index, limit, owner) in &applying {
            let charged = if none_binds { shadow } else { binding && (!limit.shadow || shadow) };
            if charged {
                *self.fill.get_mut(&(*index, owner.clone())).unwrap() -= price(limit);
            }
        }
        assert_eq!(ruling.is_admitted(), binding);
        assert_eq!(ruling.is_allowed(), binding && shadow);
        assert_eq!(ruling.decisions().len(), applying.len());
        let mut longest = None;
        for (decision, ((index, limit, owner), has)) in
            ruling.decisions().iter().zip(applying.iter().zip(&has))
        {
            let fill = self.fill[&(*index, owner.clone())];
            assert_eq!(decision.name().name(), NAMES[*index]);
            assert_eq!(decision.is_allowed(), *has);
            assert_eq!(u128::from(decision.remaining()), fill / limit.token());
            assert_eq!(decision.reset().as_nanos(), limit.capacity() - fill);
            let wait = (!has).then(|| price(limit) - fill);
            assert_eq!(decision.retry_after().map(|wait| wait.as_nanos()), wait);
            longest = longest.max(wait.filter(|_| !limit.shadow));
        }
        assert_eq!(ruling.retry_after().map(|wait| wait.as_nanos()), longest);
    }
}

proptest! {
    #[test]
    fn every_limit_says_what_a_bucket_of_tokens_says_and_all_are_charged_or_none(
        limits in prop::collection::vec(any_limit(), 1..=4),
        requests in prop::collection::vec(
            (0..3_usize, 0..3_usize, prop_oneof![3 => Just(0), 2 => 0..20_000_000_000_u64]),
            1..100,
        ),
    ) {
        let limits: Vec<_> = limits
            .into_iter()
            .enumerate()
            .map(|(index, limit)| match index {
                0 => AnyLimit { whose: Whose::Account, ..limit },
                _ => limit,
            })
            .collect();
        let add = |builder: PolicyBuilder, (index, limit): (usize, &AnyLimit)| {
            limit.add_to(builder, NAMES[index], index == 0)
        };
        let policy = limits.iter().enumerate().fold(Policy::bolna(), add).build().unwrap();
        let (limiter, clock) = stopped_limiter(policy);
        let mut model = Model::default();
        for (user, organization, pause) in requests {
            clock.advance(Duration::from_nanos(pause));
            model.advance(&limits, pause.into());
            let (user, organization) = (USERS[user], ORGANIZATIONS[organization]);
            let account = Account::user(user).in_organization(organization);
            let ruling = limiter.check_now(&account, "/call").unwrap();
            if account.principal().is_none() {
                prop_assert!(!ruling.is_admitted() && ruling.decisions().is_empty());
            } else {
                model.check(&limits, (user, organization), &ruling);
            }
        }
    }
}
