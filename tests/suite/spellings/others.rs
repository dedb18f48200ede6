//! Candidates, plans, observers, and requests without an account.

use std::time::Duration;

use bolna_rate_limit::layer::OnUnidentified;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{BolnaRateLimitLayer, Decision, Endpoint, Policy, Quota, Ruling};
use http::{Method, Request};

use super::{CALL, EXECUTIONS, admitted, caller, charged, check, left, told};
use crate::observers::Witness;
use crate::support::{now, request, send, stopped_limiter};

#[test]
fn a_candidate_is_charged_by_its_own_endpoints_for_the_path() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    // It knows no `agent`, and charges the path to `executions` and `default`.
    let candidate = Policy::builder()
        .endpoint("executions", Quota::per_minute(2), ["/v2/agent/{id}/executions"])
        .shared(LimitBuilder::account("day", Quota::per_day(3)), ["executions", "default"])
        .build()
        .unwrap();
    assert_eq!(charged(&candidate, EXECUTIONS), ["default", "executions"]);
    limiter.set_candidate(candidate).unwrap();
    let said: Vec<_> = (0..4)
        .map(|_| {
            let ruling = check(&limiter, &caller(), EXECUTIONS);
            assert!(ruling.is_admitted() && ruling.is_allowed());
            let candidate = ruling.candidate().unwrap();
            let names = candidate.as_slice().iter().map(|it| it.name().name());
            assert_eq!(names.collect::<Vec<_>>(), ["default", "day", "executions"]);
            candidate.all_allow()
        })
        .collect();
    assert_eq!(said, [true, true, false, false]);
    let report = limiter.candidate_report();
    let counts: Vec<_> =
        report.iter().map(|it| (it.endpoint.name(), it.allowed, it.newly_limited)).collect();
    assert_eq!(counts, [("executions", 0, 0), ("default", 2, 2)], "by the path as it is written");
    let all = [("executions", 496), ("agent", 496), ("call", 500), ("default", 1000)];
    assert_eq!(left(&limiter, &caller()), all, "the active policy's buckets are its own");

    // A single endpoint of the candidate beside several of the active policy.
    limiter.set_candidate(Policy::builder().build().unwrap()).unwrap();
    let ruling = check(&limiter, &caller(), EXECUTIONS);
    assert_eq!(ruling.candidate().unwrap().as_slice().len(), 1);
    // And one that exempts every reading.
    let exempt = Policy::builder().exempt(["/v2/{*rest}"]).build().unwrap();
    limiter.set_candidate(exempt).unwrap();
    assert_eq!(check(&limiter, &caller(), EXECUTIONS).candidate(), None);
}

#[test]
fn a_candidate_is_compared_ruling_with_ruling_and_has_the_same_costs() {
    let policy = Policy::bolna().quota("call", Quota::per_minute(20)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let candidate = Policy::bolna().default_quota(Quota::per_minute(10)).build().unwrap();
    limiter.set_candidate(candidate).unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).cost(Endpoint::CALL, |_| 4);
    for _ in 0..12 {
        now(send(&layer, request(Method::POST, CALL, "u-1", "o-1")));
    }
    // `call` refuses after 5 in the active policy; the candidate's `default` after 10.
    let report = limiter.candidate_report();
    let of_default = report.iter().find(|it| it.endpoint == Endpoint::DEFAULT).unwrap();
    let counts = [of_default.allowed, of_default.newly_allowed, of_default.limited];
    assert_eq!(counts, [5, 5, 2]);
}

#[test]
fn a_plan_charges_by_its_own_endpoints_and_everyones_limits_of_the_active_policy() {
    let active = Policy::bolna()
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(50)))
        .also("default", LimitBuilder::everyone("default-all", Quota::per_minute(60)))
        .shared(LimitBuilder::everyone("both", Quota::per_minute(70)), ["call", "default"])
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(active);
    let plan = Policy::builder()
        .endpoint("calls", Quota::per_minute(5), ["/call"])
        .also("calls", LimitBuilder::everyone("plan-all", Quota::per_minute(1)))
        .build()
        .unwrap();
    let planned = caller().with_policy(plan);
    let ruling = check(&limiter, &planned, CALL);
    let all = [("default", 999), ("calls", 4), ("default-all", 59), ("both", 69), ("call-all", 49)];
    assert_eq!(told(&ruling), all);
    assert_eq!(ruling.endpoint(), Some(Endpoint::DEFAULT));
    assert_eq!(admitted(&limiter, &planned, CALL, 20), 4);
    // A plan that reads the path in one way only has the limits for everyone of all readings.
    let flat = caller().with_policy(Policy::builder().build().unwrap());
    let names: Vec<_> = told(&check(&limiter, &flat, CALL)).iter().map(|it| it.0).collect();
    assert_eq!(names, ["default", "default-all", "both", "call-all"]);
    // A plan that exempts it charges nothing.
    let exempt = caller().with_policy(Policy::builder().exempt(["/{*all}"]).build().unwrap());
    assert_eq!(limiter.check_now(&exempt, CALL), None);
}

#[test]
fn observers_and_handlers_see_all_limits_under_the_first_endpoint() {
    let policy = Policy::bolna().quota("call", Quota::per_minute(1)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).ruling_in_extensions();
    let inner = tower::service_fn(async |request: Request<String>| {
        let ruling = request.extensions().get::<Ruling>().unwrap();
        let endpoint = ruling.endpoint().unwrap();
        let body = format!("{endpoint}: {:?}", told(ruling));
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    let mut service = tower::Layer::layer(&layer, inner);
    let mut call = || {
        let call = request(Method::POST, CALL, "u-1", "o-1");
        now(tower::Service::call(&mut service, call)).unwrap()
    };
    let seen = now(crate::support::text(call()));
    assert_eq!(seen, "default: [(\"default\", 999), (\"call\", 0)]");
    let told = witness.one();
    assert_eq!((told.endpoint, told.outcome), (Some(Endpoint::DEFAULT), "allowed"));
}

#[test]
fn the_longest_wait_among_the_endpoints_is_the_rulings() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_hour(1))
        .default_quota(Quota::per_minute(1))
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    assert!(check(&limiter, &caller(), CALL).is_admitted());
    let refused = check(&limiter, &caller(), CALL);
    assert_eq!(refused.violated().count(), 2);
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(3600)));
    let decision = refused.decision().map(Decision::name);
    assert_eq!(decision, Some(Endpoint::CALL.into()));
}

#[test]
fn a_request_without_an_account_is_decided_as_before() {
    let policy = Policy::bolna().unidentified_quota(Quota::per_minute(2)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    let unidentified = || Request::get(CALL).body(String::new()).unwrap();
    let statuses =
        |layer: &BolnaRateLimitLayer<_>| now(send(layer, unidentified())).status().as_u16();
    assert_eq!([(); 3].map(|()| statuses(&layer)), [401, 401, 429]);
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).on_unidentified(OnUnidentified::Admit);
    assert_eq!(statuses(&layer), 200);
}
