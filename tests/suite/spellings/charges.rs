//! What such a request is charged: all limits of its endpoints, or none.

use std::time::Duration;

use bolna_rate_limit::layer::LegacyReset;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::Charge;
use bolna_rate_limit::values::{LimitName, Outcome};
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Policy, Quota, Ruling,
};
use http::{HeaderMap, Method, StatusCode};

use super::{CALL, EXECUTIONS, admitted, caller, charged, check, left, told};
use crate::support::{now, request, send, stopped_limiter, text};

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

fn violated(ruling: &Ruling) -> Vec<&'static str> {
    ruling.violated().map(|it| it.name().name()).collect()
}

#[test]
fn the_endpoint_of_the_path_as_it_is_written_comes_first() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let policy = limiter.policy();
    assert_eq!(charged(&policy, CALL), ["default", "call"]);
    assert_eq!(charged(&policy, EXECUTIONS), ["agent", "executions"]);
    assert_eq!(policy.endpoint_of(CALL), Some(Endpoint::DEFAULT));
    let ruling = check(&limiter, &caller(), CALL);
    assert_eq!(ruling.endpoint(), Some(Endpoint::DEFAULT));
    assert_eq!(told(&ruling), [("default", 999), ("call", 499)]);
    let ruling = check(&limiter, &caller(), EXECUTIONS);
    assert_eq!(ruling.endpoint(), Some(Endpoint::AGENT));
    assert_eq!(told(&ruling), [("agent", 499), ("executions", 499)]);
    let all = [("executions", 499), ("agent", 499), ("call", 499), ("default", 999)];
    assert_eq!(left(&limiter, &caller()), all);
}

#[test]
fn a_refusal_by_one_endpoint_costs_nothing_of_the_others() {
    let policy = Policy::bolna().quota("call", Quota::per_minute(3)).build().unwrap();
    let (limiter, clock) = stopped_limiter(policy);
    assert_eq!(admitted(&limiter, &caller(), CALL, 100), 3);
    let counts = [("executions", 500), ("agent", 500), ("call", 0), ("default", 997)];
    assert_eq!(left(&limiter, &caller()), counts);
    let refused = check(&limiter, &caller(), CALL);
    assert_eq!(violated(&refused), ["call"]);
    assert_eq!(refused.outcome(), Outcome::Limited);
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(20)));
    // The wait suffices, to the nanosecond.
    clock.advance(Duration::from_secs(20) - Duration::from_nanos(1));
    assert!(!check(&limiter, &caller(), CALL).is_admitted());
    clock.advance(Duration::from_nanos(1));
    assert!(check(&limiter, &caller(), CALL).is_admitted());

    // The other way round: the first endpoint refuses.
    let policy = Policy::bolna().default_quota(Quota::per_minute(3)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    assert_eq!(admitted(&limiter, &caller(), CALL, 100), 3);
    let counts = [("executions", 500), ("agent", 500), ("call", 497), ("default", 0)];
    assert_eq!(left(&limiter, &caller()), counts);
}

#[test]
fn each_limit_is_enforced_by_its_own_enforcement() {
    let tight = || {
        let policy = Policy::bolna().quota("call", Quota::per_minute(2));
        policy.default_quota(Quota::per_minute(4))
    };
    // `call` is in shadow mode: admitted with it, admitted without it, refused.
    let policy = tight().enforce("call", Enforcement::SHADOW).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let outcomes: Vec<_> = (0..6)
        .map(|_| {
            let ruling = check(&limiter, &caller(), CALL);
            (ruling.is_admitted(), ruling.is_allowed(), ruling.outcome(), told(&ruling))
        })
        .collect();
    let is = |admitted, allowed, outcome, default, call| {
        (admitted, allowed, outcome, vec![("default", default), ("call", call)])
    };
    assert_eq!(
        outcomes,
        [
            is(true, true, Outcome::Allowed, 3, 1),
            is(true, true, Outcome::Allowed, 2, 0),
            is(true, false, Outcome::Limited, 1, 0),
            is(true, false, Outcome::Limited, 0, 0),
            is(false, false, Outcome::Limited, 0, 0),
            is(false, false, Outcome::Limited, 0, 0),
        ]
    );
    assert_eq!(violated(&check(&limiter, &caller(), CALL)), ["default"]);

    // `default`, which names the request, is in shadow mode: `call` refuses all the same.
    let policy = tight().enforce("default", Enforcement::SHADOW).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    assert_eq!(admitted(&limiter, &caller(), CALL, 10), 2);
    assert_eq!(violated(&check(&limiter, &caller(), CALL)), ["call"]);

    // The limiter's enforcement is for all of them.
    let (limiter, _clock) = stopped_limiter(tight().build().unwrap());
    limiter.set_enforcement(Enforcement::SHADOW);
    assert_eq!(admitted(&limiter, &caller(), CALL, 10), 10);
    assert_eq!(left(&limiter, &caller())[2..], [("call", 0), ("default", 2)]);
}

#[test]
fn a_limit_that_the_endpoints_share_is_charged_and_told_once() {
    let day = LimitBuilder::account("day", Quota::per_day(5)).cost(2);
    let policy = Policy::bolna().shared(day, ["call", "default"]).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let ruling = check(&limiter, &caller(), CALL);
    assert_eq!(told(&ruling), [("default", 999), ("day", 3), ("call", 499)]);
    assert!(check(&limiter, &caller(), CALL).is_admitted());
    assert_eq!(violated(&check(&limiter, &caller(), CALL)), ["day"]);
}

#[test]
fn limits_of_users_and_of_everyone_are_among_them() {
    let policy = Policy::bolna()
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(2)))
        .also("default", LimitBuilder::everyone("all", Quota::per_minute(3)))
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let ruling = check(&limiter, &caller(), CALL);
    let all = [("default", 999), ("all", 2), ("call", 499), ("call-user", 1)];
    assert_eq!(told(&ruling), all);
    assert_eq!(admitted(&limiter, &caller(), CALL, 10), 1, "by the user's limit");
    let other = Account::user("u-2").in_organization("o-1");
    assert_eq!(admitted(&limiter, &other, CALL, 10), 1, "by everyone's");
    let without_user = Account::user("").in_organization("o-2");
    let ruling = check(&limiter, &without_user, CALL);
    assert_eq!(told(&ruling), [("default", 1000), ("all", 0), ("call", 500)]);
    assert_eq!(violated(&ruling), ["all"]);
}

#[test]
fn costs_are_those_of_each_limit() {
    let rows = LimitName::new("rows").unwrap();
    let policy = Policy::bolna()
        .cost("default", 10)
        .also("call", LimitBuilder::account("rows", Quota::per_minute(100)).cost(20))
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy.clone());
    let ruling = check(&limiter, &caller(), CALL);
    assert_eq!(told(&ruling), [("default", 990), ("call", 499), ("rows", 80)]);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).cost(rows, |_| 70);
    let call = || request(Method::POST, CALL, "u-1", "o-1");
    assert_eq!(now(send(&layer, call())).status(), StatusCode::OK);
    assert_eq!(left(&limiter, &caller())[2..], [("call", 498), ("rows", 10), ("default", 980)]);
    // Refused by the rows, and the others are not charged.
    assert_eq!(now(send(&layer, call())).status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(left(&limiter, &caller())[2..], [("call", 498), ("rows", 10), ("default", 980)]);

    // More than a limit of any of the endpoints can hold: BRL009.
    let (limiter, _clock) = stopped_limiter(policy);
    let witness = crate::observers::Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).cost(rows, |_| 101);
    let refused = now(send(&layer, call()));
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let advice = witness.diagnoses();
    assert!(matches!(&advice[..], [advice] if advice.code() == "BRL009"), "{advice:?}");
    let told = witness.one();
    assert_eq!((told.endpoint, told.outcome), (Some(Endpoint::DEFAULT), "too_costly"));
    assert_eq!(left(&limiter, &caller())[2..], [("call", 500), ("rows", 100), ("default", 1000)]);
}

#[tokio::test]
async fn responses_tell_each_limit_and_which_of_them_refuse() {
    let policy = Policy::bolna().quota("call", Quota::per_minute(1)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let call = || request(Method::POST, CALL, "u-1", "o-1");
    let admitted = send(&layer, call()).await;
    let policies = ["\"default\";q=1000;w=60", "\"call\";q=1;w=60"];
    assert_eq!(lines(admitted.headers(), "ratelimit-policy"), policies);
    let limits = ["\"default\";r=999;t=60", "\"call\";r=0;t=60"];
    assert_eq!(lines(admitted.headers(), "ratelimit"), limits);

    let refused = send(&layer, call()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(lines(refused.headers(), "ratelimit-policy"), policies);
    assert_eq!(lines(refused.headers(), "ratelimit"), limits);
    let body: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(body["violated-policies"], serde_json::json!(["call"]));
    // The limit that refuses is named, since its quota is told.
    let message = "Rate limit of 1 request per minute exceeded for call";
    assert_eq!(body["message"], message);
    let detail = "The quota of 1 request per minute for each account, call, is used up. It refills \
                  at that rate; wait 60 seconds.";
    assert_eq!(body["detail"], detail);

    let legacy = layer.clone().legacy_headers(LegacyReset::DeltaSeconds);
    assert_eq!(send(&legacy, call()).await.headers()["x-ratelimit-limit"], "1");

    // A block is told of the endpoint that names the request.
    now(limiter.block(caller(), Endpoint::CALL, Duration::from_secs(3600))).unwrap();
    let blocked = send(&layer, call()).await;
    assert_eq!(blocked.headers()["retry-after"], "3600");
    let body: serde_json::Value = serde_json::from_str(&text(blocked).await).unwrap();
    assert_eq!(body["message"], "Requests for default are blocked");
}

#[test]
fn peek_refund_and_reset_act_on_the_named_endpoint_alone() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    assert_eq!(admitted(&limiter, &caller(), CALL, 10), 10);
    let peek = now(limiter.peek(caller(), Endpoint::CALL)).unwrap().unwrap();
    assert_eq!(told(&peek), [("call", 490)]);
    now(limiter.refund(caller(), Endpoint::CALL, 4)).unwrap();
    now(limiter.reset(caller(), Endpoint::DEFAULT)).unwrap();
    assert_eq!(left(&limiter, &caller())[2..], [("call", 494), ("default", 1000)]);
}

#[test]
fn a_charge_has_room_for_sixteen_limits() {
    // 4 endpoints of 4 limits.
    let add = |policy, endpoint: &'static str| {
        (1..4).fold(policy, |policy: bolna_rate_limit::policy::PolicyBuilder, at| {
            let name = format!("{endpoint}-{at}");
            policy.also(endpoint, LimitBuilder::account(name, Quota::per_minute(9 - at)))
        })
    };
    let policy = Policy::builder()
        .endpoint("one", Quota::per_minute(9), ["/{a}/{b}/{c}/{d}"])
        .endpoint("two", Quota::per_minute(9), ["/{a}/{b}/{c}/{d}/{e}"])
        .endpoint("three", Quota::per_minute(9), ["/{a}/{b}", "/{a}/{b}/{c}", "/p/q/s", "/{a}"])
        .default_quota(Quota::per_minute(9));
    let policy = ["one", "two", "three", "default"].into_iter().fold(policy, add).build().unwrap();
    let path = "/../p/q%2Fr/../s";
    let several = charged(&policy, path);
    let (limiter, _clock) = stopped_limiter(policy);
    let limits = several.len() * 4;
    assert!((8..=Charge::MAX_ENTRIES).contains(&limits), "{several:?}");
    assert_eq!(admitted(&limiter, &caller(), path, 100), 6);
    let refused = check(&limiter, &caller(), path);
    assert_eq!(refused.decisions().len(), limits);
    assert_eq!(refused.violated().count(), several.len());
    for (name, left) in told(&refused) {
        let at = name.chars().last().and_then(|digit| digit.to_digit(10)).unwrap_or(0);
        assert_eq!(left, 3 - at, "{name}");
    }
}
