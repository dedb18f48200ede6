//! Which principals are refused most, and why one was refused, an hour later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bolna_rate_limit::layer::ClientAddress;
use bolna_rate_limit::observe::{MostRefused, Refused};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Kind, LimitName, Outcome, Scope};
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Principal, Quota,
};
use http::Request;
use proptest::prelude::*;
use tokio_test::task::spawn;

use crate::deferred::{Answers, DeferredStore};
use crate::support::{
    DecideNow, call_by, now, one_call, organization, percent, send, stopped_limiter,
};

const HOUR: Duration = Duration::from_secs(3600);

type Stopped = Limiter<MemoryStore<ManualClock>>;

/// A limiter that counts refusals in `places` places, by the same clock.
fn counted(policy: Policy, places: usize) -> (Stopped, ManualClock, Arc<MostRefused>) {
    let (limiter, clock) = stopped_limiter(policy);
    let refused = counting(&limiter, &clock, places);
    (limiter, clock, refused)
}

fn counting<St: Store>(
    limiter: &Limiter<St>,
    clock: &ManualClock,
    places: usize,
) -> Arc<MostRefused> {
    let refused = Arc::new(MostRefused::new(places).with_clock(clock.clone()));
    limiter.observe(Arc::clone(&refused));
    refused
}

/// A limiter with `callers` drained callers, and a count of refusals with room for `places`
/// principals.
fn drained(callers: u32, places: usize) -> (Stopped, Arc<MostRefused>) {
    let (limiter, _clock, refused) = counted(one_call(), places);
    for caller in 0..callers {
        assert!(
            limiter.decide_now(&organization(&caller.to_string()), "/call").unwrap().is_allowed()
        );
    }
    (limiter, refused)
}

fn refuse(limiter: &Stopped, caller: u32) {
    assert!(!limiter.decide_now(&organization(&caller.to_string()), "/call").unwrap().is_allowed());
}

/// One call a day for each organization and all its users, one for each of its users, and two that
/// all callers share.
fn three_limits() -> Policy {
    let day = |calls| Quota::per_day(calls);
    Policy::bolna()
        .quota("call", day(1))
        .also("call", LimitBuilder::user("call-user", day(1)))
        .also("call", LimitBuilder::everyone("call-all", day(2)))
        .quota("agent", day(1))
        .build()
        .unwrap()
}

/// The id of the user, the limit and the number of refusals.
fn numbers<'a>(rows: &'a [Refused]) -> Vec<(Option<&'a str>, &'a str, u64)> {
    let number = |row: &'a Refused| {
        (row.user.as_ref().map(|user| user.id().as_str()), row.limit.name(), row.refusals)
    };
    rows.iter().map(number).collect()
}

/// What is known for certain about one pair of a principal and a limit.
#[derive(Clone, Copy, Debug)]
struct Exact {
    count: u64,
    first: Duration,
    last: (Duration, Option<Endpoint>),
}

proptest! {
    #[test]
    fn counts_are_off_by_no_more_than_they_say_and_no_pair_that_matters_is_missing(
        // Some callers are refused far more often than others. Each pauses after a request.
        sent in prop::collection::vec(
            ((0..8_u32, 0..8_u32).prop_map(|(a, b)| a * b / 8), 0..3_u32, 0..4_u32, 0..5_000_u64),
            0..300,
        ),
        places in 0..30_usize,
    ) {
        let (limiter, clock, refused) = counted(three_limits(), places);
        let mut time = Duration::ZERO;
        let mut exact: HashMap<_, Exact> = HashMap::new();
        let mut all = 0;
        for &(organization, user, path, pause) in &sent {
            let account = Account::user(user).in_organization(organization);
            let path = if path == 0 { "/v2/agent/1" } else { "/call" };
            let ruling = limiter.check_now(&account, path).unwrap();
            for decision in ruling.decisions().iter().filter(|decision| !decision.is_allowed()) {
                let user = account.user_principal();
                let user = user.filter(|_| decision.limit().scope() == Scope::User);
                let pair = (account.principal().cloned(), user, decision.name());
                let last = (time, ruling.endpoint());
                let known = exact.entry(pair).or_insert(Exact { count: 0, first: time, last });
                (known.count, known.last) = (known.count + 1, last);
                all += 1;
            }
            clock.advance(Duration::from_millis(pause));
            time += Duration::from_millis(pause);
        }
        let top = refused.top(999);
        let places = places.max(1);
        prop_assert_eq!(top.len(), exact.len().min(places));
        prop_assert!(top.is_sorted_by(|one, next| one.refusals >= next.refusals));
        prop_assert_eq!(top.iter().map(|one| one.refusals).sum::<u64>(), all);
        let pair = |row: &Refused| (Some(row.principal.clone()), row.user.clone(), row.limit);
        for row in &top {
            let exact = &exact[&pair(row)];
            prop_assert!((row.at_least..=row.refusals).contains(&exact.count), "{row:?}");
            prop_assert!(row.at_least >= 1);
            // The last refusal is always the last, and the first may have been forgotten.
            prop_assert_eq!((time - row.last_ago, row.endpoint), exact.last);
            prop_assert!(row.last_ago <= row.first_ago && row.first_ago <= time - exact.first);
            if row.at_least == exact.count {
                prop_assert_eq!(row.first_ago, time - exact.first);
            }
        }
        let least = top.last().map_or(0, |row| row.refusals);
        for (missing, Exact { count, .. }) in &exact {
            if top.iter().all(|row| pair(row) != *missing) {
                prop_assert!(count * places as u64 <= all, "{missing:?}: {count}");
                prop_assert!(*count <= least, "{missing:?}: {count}");
            }
        }
        if exact.len() <= places {
            prop_assert!(top.iter().all(|one| one.at_least == one.refusals));
        }
        prop_assert_eq!(refused.top(2), &top[..top.len().min(2)]);
        // Asking for each principal finds the same rows.
        let mut found: Vec<_> = (0..8)
            .flat_map(|id| refused.of(organization(&id.to_string())))
            .map(|row| (row.principal.clone(), row.limit, row.user.clone(), row.refusals))
            .collect();
        let mut rows: Vec<_> = top
            .into_iter()
            .map(|row| (row.principal, row.limit, row.user, row.refusals))
            .collect();
        found.sort();
        rows.sort();
        prop_assert_eq!(found, rows);
        refused.clear();
        prop_assert_eq!(refused.top(99), []);
    }
}

#[test]
fn threads_count_together_and_lose_no_refusal() {
    for (places, callers) in [(50, 50_u32), (10, 50)] {
        let (limiter, refused) = drained(callers, places);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..100).for_each(|_| (0..callers).for_each(|caller| refuse(&limiter, caller)));
                });
            }
        });
        let top = refused.top(99);
        assert_eq!(top.iter().map(|one| one.refusals).sum::<u64>(), 4 * 100 * u64::from(callers));
        assert_eq!(top.len(), places);
        if places == callers as usize {
            assert!(top.iter().all(|one| (one.refusals, one.at_least) == (400, 400)));
        }
    }
}

#[test]
fn an_hour_later_it_says_which_limit_refused_which_user_how_often_and_when() {
    let (limiter, clock, refused) = counted(three_limits(), 20);
    let (ana, ben) = (
        Account::user("ana").in_organization("acme"),
        Account::user("ben").in_organization("acme"),
    );
    let elsewhere = Account::user("ana").in_organization("other");
    // Every one of ana's calls after the first is over the organization's limit and her own.
    for _ in 0..4 {
        let _ = limiter.check_now(&ana, "/call");
        clock.advance(Duration::from_secs(10));
    }
    // ben's call is over the organization's limit only.
    let _ = limiter.check_now(&ben, "/call");
    let _ = limiter.check_now(&elsewhere, "/call");
    clock.advance(HOUR);

    let of_ana = refused.of(&ana);
    assert_eq!(numbers(&of_ana), [(None, "call", 4), (Some("ana"), "call-user", 3)]);
    let [organizations, users] = &of_ana[..] else { panic!("{of_ana:?}") };
    // The last that counts for the organization was ben's, and the last of ana's was 10 s before.
    assert_eq!((organizations.last_ago, users.last_ago), (HOUR, HOUR + Duration::from_secs(10)));
    assert_eq!(users.first_ago, HOUR + Duration::from_secs(30));
    assert_eq!(users.principal, organization("acme"));
    assert_eq!((users.scope, users.outcome), (Scope::User, Outcome::Limited));
    assert_eq!((users.endpoint, users.enforced), (Some(Endpoint::CALL), true));

    assert_eq!(numbers(&refused.of(&ben)), [(None, "call", 4)]);
    assert_eq!(refused.of(&elsewhere), []);
    // Of the organization, without a user: those of all its users.
    assert_eq!(refused.of(organization("acme")), of_ana);
    assert_eq!(refused.of(Account::user("ana")), []);
    assert_eq!(refused.of(Account::user("")), []);
    // ana's second call elsewhere meets three limits: the organization's, her own there, and that
    // of all callers, which counts for the organization that was refused.
    let _ = limiter.check_now(&elsewhere, "/call");
    let of_other = refused.of(&elsewhere);
    let mut met: Vec<_> = of_other.iter().map(|row| (row.limit.name(), row.scope)).collect();
    met.sort();
    let expected =
        [("call", Scope::Account), ("call-all", Scope::Everyone), ("call-user", Scope::User)];
    assert_eq!(met, expected);
    assert!(of_other.iter().all(|row| row.principal == organization("other")));
    // Nothing is forgotten because time passes.
    clock.advance(HOUR * 24 * 365 * 100);
    assert_eq!(refused.of(&ana)[0].last_ago, HOUR + HOUR * 24 * 365 * 100);
}

#[test]
fn the_endpoint_is_the_one_that_was_asked_for_last() {
    let policy = Policy::bolna()
        .shared(LimitBuilder::account("calls-and-agents", Quota::per_day(1)), ["call", "agent"]);
    let (limiter, _clock, refused) = counted(policy.build().unwrap(), 9);
    let caller = organization("acme");
    for (path, endpoint) in [
        ("/v2/agent/1", Endpoint::AGENT),
        ("/call", Endpoint::CALL),
        ("/v2/agent/2", Endpoint::AGENT),
    ] {
        // The second request is the first that is refused.
        let _ = limiter.decide_now(&caller, path);
        let _ = limiter.decide_now(&caller, path);
        let [row] = &refused.of(&caller)[..] else { panic!("one limit was met") };
        assert_eq!((row.limit.name(), row.endpoint), ("calls-and-agents", Some(endpoint)));
    }
}

#[test]
fn a_new_policy_goes_on_with_the_counts_of_limits_of_the_same_name() {
    let (limiter, _clock, refused) = counted(one_call(), 9);
    let caller = organization("acme");
    let _ = limiter.decide_now(&caller, "/call");
    refuse_twice(&limiter, &caller);
    limiter.set_policy(Policy::bolna().quota("call", Quota::per_day(1)).build().unwrap()).unwrap();
    refuse_twice(&limiter, &caller);
    assert_eq!(numbers(&refused.of(&caller)), [(None, "call", 4)]);
}

fn refuse_twice(limiter: &Stopped, caller: &Principal) {
    for _ in 0..2 {
        assert!(!limiter.decide_now(caller, "/call").unwrap().is_allowed());
    }
}

#[test]
fn a_pair_that_takes_anothers_place_inherits_its_count_and_not_its_times() {
    let (limiter, clock, refused) = counted(one_call(), 1);
    for caller in 0..2_u32 {
        let _ = limiter.decide_now(&organization(&caller.to_string()), "/call");
    }
    (0..3).for_each(|_| refuse(&limiter, 0));
    clock.advance(Duration::from_secs(5));
    refuse(&limiter, 1);
    clock.advance(Duration::from_secs(2));
    let top = refused.top(9);
    let [row] = &top[..] else { panic!("{top:?}") };
    assert_eq!((&row.principal, row.refusals, row.at_least), (&organization("1"), 4, 1));
    let two = Duration::from_secs(2);
    assert_eq!((row.first_ago, row.last_ago), (two, two));
    assert_eq!(refused.of(organization("0")), []);
}

#[test]
fn blocked_requests_are_kept_apart_and_never_take_a_place_of_the_others() {
    let (limiter, clock, refused) = counted(three_limits(), 2);
    let ana = Account::user("ana").in_organization("acme");
    for _ in 0..3 {
        let _ = limiter.check_now(&ana, "/v2/agent/1");
    }
    clock.advance(HOUR);
    // A flood of blocked callers, more than there are places.
    for caller in 0..9 {
        let caller = Account::user(caller);
        now(limiter.block(&caller, Endpoint::CALL, HOUR)).unwrap();
        for _ in 0..100 {
            assert_eq!(limiter.check_now(&caller, "/call").unwrap().outcome(), Outcome::Blocked);
        }
    }
    assert_eq!(numbers(&refused.top(9)), [(None, "agent", 2)]);
    let blocked = refused.top_blocked(9);
    assert_eq!(blocked.len(), 2);
    assert!(blocked.iter().all(|row| row.outcome == Outcome::Blocked));
    assert_eq!(blocked.iter().map(|row| row.refusals).sum::<u64>(), 900);

    // Support sees both, the later ones first.
    refused.clear();
    assert_eq!((refused.top(9), refused.top_blocked(9)), (vec![], vec![]));
    let _ = limiter.check_now(&ana, "/v2/agent/1");
    clock.advance(HOUR);
    now(limiter.block_user(&ana, Endpoint::CALL, HOUR)).unwrap();
    let _ = limiter.check_now(&ana, "/call");
    let rows = refused.of(&ana);
    assert_eq!(numbers(&rows), [(Some("ana"), "call-user", 1), (None, "agent", 1)]);
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Outcome::Blocked, Outcome::Limited]);
    // The block of one user is not the organization's.
    let ben = Account::user("ben").in_organization("acme");
    assert_eq!(numbers(&refused.of(&ben)), [(None, "agent", 1)]);
}

#[test]
fn refusals_count_in_shadow_mode_too_and_unidentified_requests_do_not() {
    let (limiter, refused) = drained(2, 10);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).enforcement(Enforcement::SHADOW);
    for _ in 0..3 {
        assert_eq!(now(send(&layer, call_by("u", "1"))).status(), 200);
        assert_eq!(
            now(send(&layer, Request::post("/call").body(String::new()).unwrap())).status(),
            401
        );
    }
    let top = refused.top(9);
    assert_eq!((top.len(), &top[0].principal, top[0].refusals), (1, &organization("1"), 3));
    assert!(!top[0].enforced);
}

#[test]
fn each_limit_says_whether_it_was_enforced_the_last_time() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_day(1))
        .also("call", LimitBuilder::user("call-user", Quota::per_day(1)).enforce(percent(0)));
    let (limiter, _clock, refused) = counted(policy.build().unwrap(), 9);
    let ana = Account::user("ana").in_organization("acme");
    let enforced = || {
        let rows = refused.of(&ana);
        let name = |row: &Refused| row.limit.name();
        let mut rows: Vec<_> = rows.iter().map(|row| (name(row), row.enforced)).collect();
        rows.sort();
        rows
    };
    for _ in 0..2 {
        let _ = limiter.check_now(&ana, "/call");
    }
    assert_eq!(enforced(), [("call", true), ("call-user", false)]);
    limiter.set_enforcement(Enforcement::SHADOW);
    let _ = limiter.check_now(&ana, "/call");
    assert_eq!(enforced(), [("call", false), ("call-user", false)]);
}

#[test]
fn a_request_that_costs_more_than_a_limit_can_allow_is_counted_for_it() {
    let policy = Policy::bolna().also("call", LimitBuilder::user("rows-user", Quota::per_day(10)));
    let (limiter, _clock, refused) = counted(policy.build().unwrap(), 9);
    let ana = Account::user("ana").in_organization("acme");
    let ruling = limiter.check_endpoint_now(&ana, Endpoint::CALL, 11).unwrap();
    assert_eq!(ruling.outcome(), Outcome::TooCostly);
    let top = refused.top(9);
    assert_eq!(numbers(&top), [(Some("ana"), "rows-user", 1)]);
    assert_eq!((top[0].outcome, top[0].enforced), (Outcome::TooCostly, true));
    assert_eq!(top[0].endpoint, Some(Endpoint::CALL));
    // Requests that only come too early are counted apart.
    for _ in 0..2 {
        let _ = limiter.check_endpoint_now(&ana, Endpoint::CALL, 10).unwrap();
    }
    let mut outcomes: Vec<_> = refused.of(&ana).iter().map(|row| row.outcome.name()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["limited", "too_costly"]);
}

#[test]
fn requests_without_an_account_are_counted_by_their_address() {
    let policy = Policy::bolna().unidentified_quota(Quota::per_day(1)).build().unwrap();
    let (limiter, _clock, refused) = counted(policy, 9);
    let layer = BolnaRateLimitLayer::with_limiter(limiter)
        .client_address(ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied()));
    let call = || {
        let mut request = Request::post("/call").body(String::new()).unwrap();
        request.extensions_mut().insert::<IpAddr>("192.0.2.1".parse().unwrap());
        request
    };
    let statuses = [401, 429, 429].map(|status| (now(send(&layer, call())).status(), status));
    assert!(statuses.iter().all(|(is, expected)| is == expected), "{statuses:?}");
    let address = Principal::new(Kind::ADDRESS, "192.0.2.1").unwrap();
    let rows = refused.of(&address);
    assert_eq!(numbers(&rows), [(None, "unidentified", 2)]);
    assert_eq!((rows[0].scope, rows[0].endpoint), (Scope::Address, None));
    // In shadow mode too: this is who would be refused.
    let shadow = layer.enforcement(Enforcement::SHADOW);
    assert_eq!(now(send(&shadow, call())).status(), 401);
    let rows = refused.of(&address);
    assert_eq!((rows[0].refusals, rows[0].enforced), (3, false));
}

#[test]
fn requests_that_only_a_candidate_would_refuse_are_counted_apart_by_its_limits() {
    let active = Policy::bolna().quota("call", Quota::per_hour(3)).build().unwrap();
    let (limiter, clock, by_policy) = counted(active, 9);
    let by_candidate = Arc::new(MostRefused::new(9).by_candidate().with_clock(clock.clone()));
    limiter.observe(Arc::clone(&by_candidate));
    // Only the candidate limits each user.
    let candidate =
        Policy::bolna().also("call", LimitBuilder::user("call-user", Quota::per_day(1)));
    limiter.set_candidate(candidate.build().unwrap()).unwrap();
    let ana = Account::user("ana").in_organization("acme");
    for _ in 0..10 {
        let _ = limiter.check_now(&ana, "/call");
    }
    clock.advance(HOUR / 10);
    assert_eq!(numbers(&by_policy.top(9)), [(None, "call", 7)]);
    let rows = by_candidate.of(&ana);
    assert_eq!(numbers(&rows), [(Some("ana"), "call-user", 2)]);
    assert_eq!((rows[0].enforced, rows[0].last_ago), (false, HOUR / 10));
    assert_eq!(rows[0].limit, LimitName::new("call-user").unwrap());
}

#[test]
fn a_store_that_answers_later_makes_no_difference() {
    for candidate in [false, true] {
        let users = Policy::bolna()
            .also("call", LimitBuilder::user("call-user", Quota::per_day(1)))
            .build()
            .unwrap();
        let active = if candidate { Policy::default() } else { users.clone() };
        let limiter = DeferredStore::limiter(active);
        let refused = Arc::new(if candidate {
            MostRefused::new(9).by_candidate()
        } else {
            MostRefused::new(9)
        });
        limiter.observe(Arc::clone(&refused));
        limiter.set_candidate(candidate.then_some(users)).unwrap();
        let ana = Account::user("ana").in_organization("acme");
        let mut checks: Vec<_> =
            (0..3).map(|_| spawn(limiter.check(&ana, "/call").unwrap().wait())).collect();
        assert!(checks.iter_mut().all(|check| check.poll().is_pending()));
        limiter.store().now_answers(Answers::Decision);
        assert!(checks.iter_mut().all(|check| check.poll().is_ready()));
        assert_eq!(numbers(&refused.of(&ana)), [(Some("ana"), "call-user", 2)]);
    }
}

#[test]
fn a_clock_that_goes_back_gives_no_times_in_the_future() {
    let (limiter, clock, refused) = counted(one_call(), 9);
    clock.set(HOUR);
    let _ = limiter.decide_now(&organization("0"), "/call");
    refuse(&limiter, 0);
    clock.set(HOUR / 2);
    refuse(&limiter, 0);
    let row = refused.top(1).remove(0);
    assert_eq!((row.refusals, row.first_ago, row.last_ago), (2, Duration::ZERO, Duration::ZERO));
}

#[test]
fn no_id_gets_into_a_log() {
    let (limiter, refused) = drained(1, 3);
    limiter.set_candidate(one_call()).unwrap();
    refuse(&limiter, 0);
    assert_eq!(format!("{refused:?}"), "MostRefused { places: 3, .. }");
}
