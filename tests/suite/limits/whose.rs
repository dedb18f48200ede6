//! Which requests a limit counts together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{Breaker, Capabilities, MemoryStore};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Kind, LimitName, Scope};
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, PolicyError, Principal, Quota};

use super::{admitted, call, described, left, member, named, names, ten_four_fifteen};
use crate::support::{now, stopped_limiter};

#[test]
fn a_user_an_organization_and_everyone_each_have_their_limit() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    assert_eq!(admitted(&limiter, &member("u-1", "o-1")), 4, "by the user's limit");
    assert_eq!(admitted(&limiter, &member("u-2", "o-1")), 4, "by another user's");
    assert_eq!(admitted(&limiter, &member("u-3", "o-1")), 2, "by what the organization has left");
    assert_eq!(admitted(&limiter, &member("u-1", "o-2")), 4, "a user in another organization");
    assert_eq!(admitted(&limiter, &member("u-9", "o-9")), 1, "by what is left for everyone");
    let refused = call(&limiter, &member("u-9", "o-9"));
    assert_eq!(names(refused.violated()), ["call-all"]);
}

#[test]
fn a_request_that_a_limit_refuses_has_cost_nothing_of_the_others() {
    let (limiter, clock) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let caller = member("u-1", "o-1");
    assert_eq!(admitted(&limiter, &caller), 4);
    assert_eq!(left(&limiter, &caller), [("call", 6), ("call-user", 0), ("call-all", 11)]);
    let refused = call(&limiter, &caller);
    assert_eq!(refused.decisions().iter().map(named).collect::<Vec<_>>(), left(&limiter, &caller));
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(15)));
    // The named wait suffices, to the nanosecond.
    clock.advance(Duration::from_secs(15) - Duration::from_nanos(1));
    assert!(!call(&limiter, &caller).is_admitted());
    clock.advance(Duration::from_nanos(1));
    assert!(call(&limiter, &caller).is_admitted());
}

#[test]
fn the_wait_is_the_longest_among_the_limits_that_refuse() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(2))
        .also("call", LimitBuilder::account("call-day", Quota::per_day(2)));
    let (limiter, clock) = stopped_limiter(policy.build().unwrap());
    let caller = member("u-1", "o-1");
    assert_eq!(admitted(&limiter, &caller), 2);
    let refused = call(&limiter, &caller);
    assert_eq!(names(refused.violated()), ["call", "call-day"]);
    assert_eq!(refused.decision().map(|it| it.name().name()), Some("call-day"));
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(43_200)));
    clock.advance(Duration::from_secs(60));
    assert_eq!(names(call(&limiter, &caller).violated()), ["call-day"]);
}

#[test]
fn an_account_without_a_user_has_the_organizations_limit_alone() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let organization = Account::user("").in_organization("o-1");
    assert_eq!(admitted(&limiter, &organization), 10);
    let key = Principal::new(Kind::new("api_key").unwrap(), "k-1").unwrap();
    assert_eq!(admitted(&limiter, &key.into()), 5, "what is left for everyone");
}

#[test]
fn a_user_without_an_organization_has_both_limits() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let alone = Account::user("u-1");
    assert_eq!(admitted(&limiter, &alone), 4);
    assert_eq!(left(&limiter, &alone), [("call", 6), ("call-user", 0), ("call-all", 11)]);
    assert_eq!(admitted(&limiter, &member("u-1", "o-1")), 4, "the same user in an organization");
}

#[test]
fn a_limit_of_several_endpoints_counts_their_requests_together() {
    let day = LimitBuilder::account("day", Quota::per_day(5));
    let policy = Policy::bolna().shared(day, ["call", "default", "call"]).build().unwrap();
    let limits = [("call".to_owned(), Scope::Account), ("day".to_owned(), Scope::Account)];
    assert_eq!(described(&policy, Endpoint::CALL), limits);
    assert_eq!(policy.limits().len(), 5);
    let (limiter, _) = stopped_limiter(policy);
    let caller = member("u-1", "o-1");
    for path in ["/call", "/user/me", "/call"] {
        assert!(limiter.check_now(&caller, path).unwrap().is_admitted());
    }
    assert_eq!(left(&limiter, &caller), [("call", 498), ("day", 2)]);
    assert!(limiter.check_now(&caller, "/v2/agent/1").unwrap().decisions().len() == 1);
    assert_eq!(admitted(&limiter, &caller), 2);
    let refused = limiter.check_now(&caller, "/user/me").unwrap();
    assert_eq!(names(refused.violated()), ["day"]);
}

#[test]
fn no_user_takes_more_than_a_share_of_its_organizations_limit() {
    let policy = Policy::bolna().user_share("call", 20);
    // The share is of the quota that the endpoint has in the end.
    let policy = policy.quota("call", Quota::per_minute(50).burst(30)).build().unwrap();
    let share = policy.quota_of(LimitName::new("call-user").unwrap()).unwrap();
    assert_eq!(share, Quota::per_minute(10).burst(6).build().unwrap());
    let tiny = Policy::bolna().quota("call", Quota::per_minute(3)).user_share("call", 1);
    let share = tiny.build().unwrap().quota_of(LimitName::new("call-user").unwrap()).unwrap();
    assert_eq!((share.limit(), share.burst()), (1, 1));
}

#[test]
fn a_plan_has_its_own_limits_and_those_of_the_active_policy_for_everyone() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let plan = Policy::bolna()
        .quota("call", Quota::per_minute(100))
        .also("call", LimitBuilder::everyone("plan-all", Quota::per_minute(1)))
        .build()
        .unwrap();
    let caller = member("u-1", "o-1").with_policy(plan);
    let first = call(&limiter, &caller);
    assert_eq!(
        first.decisions().iter().map(named).collect::<Vec<_>>(),
        [("call", 99), ("call-all", 14)]
    );
    assert_eq!(admitted(&limiter, &caller), 14);
    assert_eq!(admitted(&limiter, &member("u-2", "o-2")), 0, "everyone includes those with a plan");
}

#[test]
fn usage_lists_each_limit_once() {
    let day = LimitBuilder::account("day", Quota::per_day(50));
    let policy = ten_four_fifteen().shared(day, ["call", "default"]).build().unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let caller = member("u-1", "o-1");
    admitted(&limiter, &caller);
    let usage = now(limiter.usage(&caller)).unwrap();
    assert_eq!(
        usage.iter().map(named).collect::<Vec<_>>(),
        [
            ("executions", 500),
            ("agent", 500),
            ("call", 6),
            ("call-user", 0),
            ("call-all", 11),
            ("day", 46),
            ("default", 1000),
        ]
    );
    let of_others = now(limiter.usage(member("u-2", "o-1"))).unwrap();
    assert_eq!(named(&of_others[3]), ("call-user", 4));
}

#[test]
fn a_policy_that_the_store_cannot_decide_is_an_error_at_the_start_and_when_it_is_set() {
    /// A store that can't count everyone, as a Redis Cluster can't.
    #[derive(Debug)]
    struct Cluster(MemoryStore);

    impl bolna_rate_limit::store::Store for Cluster {
        type Check = bolna_rate_limit::store::Immediate;

        fn check(
            &self,
            charge: bolna_rate_limit::store::Charge<'_>,
        ) -> bolna_rate_limit::store::Answer<Self::Check> {
            match self.capabilities().permit(&charge) {
                Ok(()) => self.0.check(charge),
                Err(error) => bolna_rate_limit::store::Answer::Now(Err(error)),
            }
        }

        async fn command(
            &self,
            command: bolna_rate_limit::store::Command<'_>,
        ) -> Result<bolna_rate_limit::store::Reply, bolna_rate_limit::store::StoreError> {
            self.0.command(command).await
        }

        fn capabilities(&self) -> Capabilities {
            let mut all = self.0.capabilities();
            all.everyone = false;
            all
        }
    }

    let cluster = || Breaker::new(Cluster(MemoryStore::new()));
    let policy = ten_four_fifteen().build().unwrap();
    let error = Limiter::with_store(policy.clone(), cluster()).unwrap_err();
    assert!(matches!(&error, PolicyError::Unsupported { limit, .. } if limit == "call-all"));
    assert_eq!(
        error.to_string(),
        "limit \"call-all\": it counts everyone together, and the store can't: a Redis Cluster \
         never can"
    );
    let limiter = Limiter::with_store(Policy::default(), cluster()).unwrap();
    assert_eq!(limiter.set_policy(policy.clone()), Err(error.clone()));
    assert_eq!(limiter.set_candidate(policy.clone()), Err(error));
    assert_eq!((limiter.policy(), limiter.candidate()), (Policy::default(), None));

    // An account's own policy has no limits for everyone, so it is within what the store can do.
    let caller = member("u-1", "o-1").with_policy(policy);
    let ruling = limiter.check(&caller, "/call").unwrap().now().unwrap().unwrap();
    assert_eq!(names(ruling.decisions().iter()), ["call", "call-user"]);
}

#[test]
fn a_limit_for_everyone_is_exact_beyond_the_cap_too() {
    let policy = Policy::bolna()
        .quota("agent", Quota::per_second(1))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_day(10)))
        .build()
        .unwrap();
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(2);
    let limiter = Limiter::with_store(policy, store).unwrap();
    // Two callers fill the store, and make room again after a second.
    for filler in ["o-8", "o-9"] {
        limiter.check_now(&member("u-1", filler), "/v2/agent/1").unwrap();
    }
    let calls = (0..200).filter(|at| {
        clock.advance(Duration::from_millis(100));
        call(&limiter, &member("u-1", &format!("o-{}", at % 3))).is_admitted()
    });
    assert_eq!(calls.count(), 10);
}

#[test]
fn only_an_endpoint_of_the_policy_is_enforced() {
    let (limiter, _) = stopped_limiter(ten_four_fifteen().build().unwrap());
    let caller = member("u-1", "o-1");
    assert!(limiter.enforces(&caller, Endpoint::CALL));
    assert!(!limiter.enforces(&caller, Endpoint::new("call-user").unwrap()));
}

#[test]
fn a_change_of_scope_or_endpoints_is_reported() {
    let limited = |limit| Policy::bolna().also("call", limit).build().unwrap();
    let account = || LimitBuilder::account("x", Quota::per_minute(9));
    let cases = [
        (
            limited(LimitBuilder::everyone("x", Quota::per_minute(9))),
            "x 9 requests per minute on call -> 9 requests per minute for all accounts together \
             on call",
        ),
        (
            Policy::bolna().shared(account(), ["call", "agent"]).build().unwrap(),
            "x 9 requests per minute on call -> 9 requests per minute on agent and call",
        ),
        (
            limited(LimitBuilder::user("x", Quota::concurrent(9)).cost(2)),
            "x 9 requests per minute on call -> 9 requests at once for each user on call at 2 a \
             request",
        ),
        (
            Policy::bolna().concurrent("call", 1).build().unwrap(),
            "x 9 requests per minute on call -> none, call-concurrent none -> 1 request at once \
             on call",
        ),
    ];
    for (to, expected) in cases {
        let limiter = Limiter::new(limited(account()));
        let events = Arc::new(Mutex::new(Vec::new()));
        limiter.on_event({
            let events = Arc::clone(&events);
            move |event| events.lock().unwrap().push(event.to_string())
        });
        limiter.set_policy(to).unwrap();
        assert_eq!(*events.lock().unwrap(), [format!("the policy was changed: {expected}")]);
    }
}
