//! Plans: accounts with limits of their own.

use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Decision, Endpoint, Limiter, Policy, Quota};
use http::{Method, Request};

use crate::support::{now, one_call, peeked, send, stopped_limiter};

const NANOSECOND: Duration = Duration::from_nanos(1);

fn calls(quota: bolna_rate_limit::values::QuotaBuilder) -> Policy {
    Policy::bolna().quota("call", quota).build().unwrap()
}

fn account() -> Account {
    Account::user("u").in_organization("o")
}

/// A limiter of one unit a second, and an account with a plan of ten units a second.
fn standard_and_large() -> (Limiter<MemoryStore<ManualClock>>, ManualClock, Account) {
    let (limiter, clock) = stopped_limiter(calls(Quota::per_minute(60)));
    (limiter, clock, account().with_policy(calls(Quota::per_minute(600))))
}

fn call(limiter: &Limiter<MemoryStore<ManualClock>>, account: &Account, path: &str) -> u16 {
    let mut request = Request::post(path).body(String::new()).unwrap();
    request.extensions_mut().insert(account.clone());
    now(send(&BolnaRateLimitLayer::with_limiter(limiter.clone()), request)).status().as_u16()
}

fn left(limiter: &Limiter<MemoryStore<ManualClock>>, account: &Account) -> Decision {
    now(peeked(limiter, account, Endpoint::CALL))
}

#[test]
fn what_was_spent_stays_spent_in_time_when_an_account_changes_plan() {
    let (limiter, clock, large) = standard_and_large();
    assert!((0..30).all(|_| call(&limiter, &account(), "/call") == 200));
    clock.advance(NANOSECOND);
    let half = Duration::from_secs(30) - NANOSECOND;
    for account in [account(), large.clone()] {
        assert_eq!(left(&limiter, &account).reset(), half);
    }
    assert_eq!(
        (left(&limiter, &account()).remaining(), left(&limiter, &large).remaining()),
        (30, 300)
    );
    assert!((0..100).all(|_| call(&limiter, &large, "/call") == 200));
    for account in [account(), large] {
        assert_eq!(left(&limiter, &account).reset(), half + Duration::from_secs(10));
    }
    assert_eq!(left(&limiter, &account()).remaining(), 20);
    assert!((0..20).all(|_| call(&limiter, &account(), "/call") == 200));
    assert_eq!(call(&limiter, &account(), "/call"), 429);
}

#[test]
fn whoever_goes_to_a_smaller_plan_owes_no_more_than_all_of_it() {
    let (limiter, clock, large) = standard_and_large();
    assert!((0..600).all(|_| call(&limiter, &large, "/call") == 200));
    let small = account().with_policy(calls(Quota::per_minute(60).burst(5)));
    assert_eq!(call(&limiter, &small, "/call"), 429);
    let refused = left(&limiter, &small);
    assert_eq!((refused.remaining(), refused.reset()), (0, Duration::from_secs(5)));
    clock.advance(Duration::from_secs(1) - NANOSECOND);
    assert_eq!(call(&limiter, &small, "/call"), 429);
    clock.advance(NANOSECOND);
    assert_eq!([(); 2].map(|()| call(&limiter, &small, "/call")), [200, 429]);
}

#[test]
fn a_plan_has_exemptions_of_its_own_and_not_the_limiters() {
    let (limiter, _clock) = stopped_limiter(
        Policy::bolna().exempt(["/healthz"]).default_quota(Quota::per_hour(1)).build().unwrap(),
    );
    let plan =
        Policy::builder().exempt(["/call"]).default_quota(Quota::per_hour(1)).build().unwrap();
    let planned = account().with_policy(plan);
    let statuses = |account: &Account, path| [(); 2].map(|()| call(&limiter, account, path));
    assert_eq!(statuses(&planned, "/call"), [200, 200]);
    assert!(limiter.store().is_empty());
    assert_eq!(statuses(&planned, "/healthz"), [200, 429]);
    assert_eq!(statuses(&account(), "/healthz"), [200, 200]);
}

#[test]
fn a_plan_survives_a_change_of_the_limiters_policy() {
    let (limiter, _clock, large) = standard_and_large();
    limiter.set_policy(one_call()).unwrap();
    assert!((0..600).all(|_| call(&limiter, &large, "/call") == 200));
    assert_eq!(call(&limiter, &large, "/call"), 429);
}

#[test]
fn usage_is_measured_by_the_accounts_plan() {
    let (limiter, _clock, large) = standard_and_large();
    assert_eq!(call(&limiter, &large, "/call"), 200);
    let usage = |account: &Account| {
        let usage = now(limiter.usage(account)).unwrap();
        usage
            .iter()
            .map(|one| (one.name().name(), one.remaining(), one.quota().burst()))
            .collect::<Vec<_>>()
    };
    let others = [("executions", 500, 500), ("agent", 500, 500)];
    assert_eq!(usage(&large), [others[0], others[1], ("call", 599, 600), ("default", 1000, 1000)]);
    assert_eq!(
        usage(&account()),
        [others[0], others[1], ("call", 59, 60), ("default", 1000, 1000)]
    );
    let flat = account().with_policy(Policy::builder().build().unwrap());
    assert_eq!(usage(&flat), [("default", 1000, 1000)]);
    assert_eq!(now(limiter.peek(&flat, Endpoint::CALL)).unwrap(), None);
    // `peek` and `reset` work for an endpoint that only the plan has.
    let search =
        Policy::builder().endpoint("search", Quota::per_hour(2), ["/search"]).build().unwrap();
    let (searches, endpoint) = (account().with_policy(search), Endpoint::new("search").unwrap());
    assert_eq!(call(&limiter, &searches, "/search"), 200);
    let remaining = || now(peeked(&limiter, &searches, endpoint)).remaining();
    assert_eq!(remaining(), 1);
    now(limiter.reset(&searches, endpoint)).unwrap();
    assert_eq!(remaining(), 2);
    assert_eq!(now(limiter.peek(account(), endpoint)).unwrap(), None);
}

#[test]
fn nobody_has_no_usage() {
    let (limiter, _clock, _) = standard_and_large();
    assert!(now(limiter.usage(Account::user(""))).is_err());
    assert!(now(limiter.peek(Account::user(""), Endpoint::CALL)).is_err());
    assert!(now(limiter.reset(Account::user(""), Endpoint::CALL)).is_err());
}

#[test]
fn whoever_was_refused_is_admitted_at_once_by_a_larger_plan() {
    let (limiter, _clock, large) = standard_and_large();
    let answered =
        |account: &Account| (0..700).filter(|_| call(&limiter, account, "/call") == 200).count();
    assert_eq!(answered(&account()), 60);
    assert_eq!(answered(&large), 0, "a minute is owed, and no more than a minute may be");
    let larger = account().with_policy(calls(Quota::per_minute(60).burst(70)));
    assert_eq!((answered(&larger), answered(&account())), (10, 0));
    // By the smaller plan the debt was cut to its full refill. For this reason all users of an
    // organization should have the same plan.
    assert_eq!(answered(&larger), 10);
}

/// Paths of every kind: plain, odd, malformed, and none that begins with a slash.
const ANY_PATHS: [&str; 8] =
    ["/", "/call", "//call", "/%63all", "/call%00", "/%", "/x/..;/v2/agent/a", "/a//b/%2e%2e/call"];

#[test]
fn an_account_without_limits_is_admitted_everywhere_and_costs_the_others_nothing() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(1))
        .default_quota(Quota::per_minute(1))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(3)))
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let staff = account().with_policy(Policy::unlimited());
    now(limiter.block(&staff, Endpoint::CALL, Duration::from_secs(60))).unwrap();
    for path in ANY_PATHS {
        assert!((0..20).all(|_| call(&limiter, &staff, path) == 200), "{path}");
        assert_eq!(limiter.check_now(&staff, path), None, "{path}");
    }
    assert_eq!(now(limiter.usage(&staff)).unwrap(), []);
    // Work by name, too, whether the limiter's policy knows the name or not.
    for endpoint in [Endpoint::CALL, Endpoint::new("staff-only").unwrap()] {
        let answered = now(limiter.check_endpoint(&staff, endpoint, 1).into_future()).unwrap();
        let at_once = limiter.check_endpoint_now(&staff, endpoint, 1).unwrap();
        let admitted = now(limiter.admit_endpoint(&staff, endpoint, 1).into_future()).unwrap();
        for ruling in [answered, at_once, admitted.ruling] {
            assert!(ruling.is_admitted() && ruling.is_allowed());
            assert_eq!((ruling.outcome(), ruling.decisions()), (Outcome::Allowed, &[][..]));
        }
    }
    // Nothing was charged: the other customers have all of what is for everyone.
    let others = ["o-1", "o-2", "o-3", "o-4"].map(Account::organization);
    assert_eq!(others.map(|other| call(&limiter, &other, "/call")), [200, 200, 200, 429]);
}

#[test]
fn a_limiter_without_limits_admits_every_request() {
    let limiter = Limiter::new(Policy::unlimited());
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    for path in ANY_PATHS {
        let request = Request::get(path).body(String::new()).unwrap();
        let response = now(send(&layer, request));
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers().get("ratelimit"), None);
    }
    let policy = Policy::unlimited();
    assert_eq!((policy.lint(), policy.limits()), (vec![], vec![]));
    assert_eq!(policy.endpoints_of("/call"), []);
    assert_eq!(policy, Policy::unlimited());
    assert_ne!(policy, Policy::builder().exempt(["/", "/{*rest}"]).build().unwrap());
}

#[test]
fn the_plan_of_an_account_that_names_no_one_does_not_admit_it() {
    let (limiter, _) = stopped_limiter(Policy::default());
    let exempt = Policy::builder().exempt(["/call"]).build().unwrap();
    for plan in [Policy::unlimited(), exempt] {
        for nobody in [Account::user(" "), Account::user("").in_organization("")] {
            let nobody = nobody.with_policy(plan.clone());
            assert_eq!(call(&limiter, &nobody, "/call"), 401);
            let kinds = [
                now(limiter.usage(&nobody)).unwrap_err().kind(),
                now(limiter.refund(&nobody, Endpoint::CALL, 1)).unwrap_err().kind(),
            ];
            assert_eq!(kinds, ["no_principal"; 2]);
        }
    }
}

#[test]
fn an_organization_without_a_user_is_billed_as_with_one_and_has_no_limit_of_a_user() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(3))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(1)))
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let by_key = Account::organization("o");
    assert_eq!(by_key.principal(), account().principal());
    assert_eq!(by_key.user_principal(), None);
    let calls = [&account(), &account(), &by_key, &by_key, &by_key];
    assert_eq!(calls.map(|by| call(&limiter, by, "/call")), [200, 429, 200, 200, 429]);
    assert_eq!(Account::organization(" ").principal(), None);
}

#[test]
fn each_method_can_have_a_plan_of_its_own_and_all_others_share_default() {
    let all = Policy::builder().default_quota(Quota::per_minute(2));
    let of = |name: &str, quota| all.clone().endpoint(name, quota, ["/jobs"]).build().unwrap();
    let (create, list) =
        (of("create-job", Quota::per_minute(1)), of("list-jobs", Quota::per_minute(3)));
    let (limiter, _) = stopped_limiter(all.build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).identify(move |head| {
        Some(match head.method {
            Method::POST => account().with_policy(create.clone()),
            Method::GET => account().with_policy(list.clone()),
            _ => account(),
        })
    });
    let statuses = |method: Method, path: &str| {
        let one = |_| {
            let request = Request::builder().method(method.clone()).uri(path);
            now(send(&layer, request.body(String::new()).unwrap())).status().as_u16()
        };
        (0..4).map(one).collect::<Vec<_>>()
    };
    assert_eq!(statuses(Method::POST, "/jobs"), [200, 429, 429, 429]);
    assert_eq!(statuses(Method::GET, "/jobs"), [200, 200, 200, 429]);
    // The other methods of the path, and all other paths whatever the method, share one bucket.
    assert_eq!(statuses(Method::DELETE, "/jobs"), [200, 200, 429, 429]);
    assert_eq!(statuses(Method::GET, "/about"), [429, 429, 429, 429]);
}

/// The table of the guide's chapter on production.
#[test]
fn what_is_left_after_a_change_is_the_share_that_was_left_before() {
    for (spent, to, left) in [
        (250, Quota::per_minute(1000), 500),
        (500, Quota::per_minute(1000), 0),
        (250, Quota::per_day(20_000), 19_993),
    ] {
        let (limiter, clock) = stopped_limiter(Policy::default());
        assert!((0..spent).all(|_| call(&limiter, &account(), "/call") == 200));
        limiter.set_policy(calls(to)).unwrap();
        assert_eq!(left_of(&limiter), left);
        if left == 0 {
            clock.advance(Duration::from_millis(60) - NANOSECOND);
            assert_eq!(left_of(&limiter), 0);
            clock.advance(NANOSECOND);
            assert_eq!(left_of(&limiter), 1);
        }
    }
}

fn left_of(limiter: &Limiter<MemoryStore<ManualClock>>) -> u32 {
    left(limiter, &account()).remaining()
}
