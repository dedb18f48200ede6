//! Paths that never match the templates of the policy, since a prefix is missing or added.

use axum::Router;
use axum::middleware::map_request;
use axum::routing::{any, post};
use bolna_rate_limit::observe::Advice;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter, Policy, Quota};
use http::Method;

use super::{MemoryLayer, authenticate, calls, only, statuses, unidentified, watched};
use crate::deferred::{Answers, DeferredStore};
use crate::observers::Witness;
use crate::support::{DecideNow, now, organization, request, send};

/// More requests of one thread than sixteen of the sample take.
const MANY: usize = 16 * 127 + 127;

/// An id that must not get into a log.
const SECRET: &str = "5bc97541";

/// Asserts that this is the advice: sixteen requests for that template, which lack that prefix.
#[track_caller]
fn assert_not_reached(advice: &Advice, expected: Endpoint, path: &str, lacks: Option<&str>) {
    let Advice::EndpointNotReached { requests, endpoint, template, missing, .. } = advice else {
        panic!("reported something else: {advice}")
    };
    let found = (*requests, *endpoint, &**template, missing.as_deref());
    assert_eq!(found, (16, expected, path, lacks));
    let text = advice.to_string();
    assert!(text.contains(path) && text.contains(expected.name()), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

fn check<'a>(layer: &MemoryLayer, paths: impl IntoIterator<Item = &'a str>) {
    for path in paths {
        let _ = layer.limiter().decide_now(&organization("o"), path);
    }
}

/// Sends the paths again and again, and each of them through the layer too, for the first requests
/// and late ones.
fn assert_silent(policy: Policy, first: &[&str], paths: &[&str]) {
    let (layer, witness) = watched(policy);
    check(&layer, first.iter().copied());
    for path in paths {
        let _ = now(send(&layer, request(Method::POST, path, "u", "o")));
    }
    check(&layer, paths.iter().copied().cycle().take(2 * MANY + 1000));
    assert_eq!(witness.diagnoses(), [], "{paths:?}");
}

#[test]
fn no_rule_ever_matched() {
    for without_tower in [false, true] {
        let (layer, witness) = watched(Policy::default());
        for number in 0..2500 {
            if without_tower {
                let _ = layer.limiter().decide_now(&organization("o"), "/nested/calls");
            } else {
                let _ = now(send(&layer, request(Method::POST, "/nested/calls", "u", "o")));
            }
            if number == 999 {
                let Advice::NoRuleMatches { requests, endpoint, .. } = only(&witness) else {
                    panic!("reported something else")
                };
                assert_eq!((requests, endpoint), (1000, Endpoint::EXECUTIONS));
            }
            assert_eq!(witness.diagnoses(), []);
        }
    }
}

#[test]
fn one_match_in_a_thousand_and_a_policy_without_rules_are_nothing_odd() {
    for (policy, path) in [
        (Policy::default(), "/call"),
        (Policy::builder().build().unwrap(), "/"),
        (Policy::builder().exempt(["/healthz"]).build().unwrap(), "/"),
    ] {
        let (layer, witness) = watched(policy);
        for number in 0..1500 {
            let path = if number == 900 { path } else { "/" };
            layer.limiter().decide_now(&organization("o"), path).unwrap();
        }
        assert_eq!(witness.diagnoses(), []);
    }
}

#[tokio::test]
async fn with_axum_a_limiter_inside_of_a_nested_router_is_reported_after_sixteen_requests() {
    let v2 = || Router::new().route("/agent/{agent_id}", any(async || "agent"));
    let (layer, witness) = watched(Policy::default());
    let app = Router::new().nest("/v2", v2().layer(layer)).layer(map_request(authenticate));
    let agent = "/v2/agent/5bc97541";
    let _ = statuses(app.clone(), calls(15, agent)).await;
    assert_eq!(witness.diagnoses(), []);
    let _ = statuses(app.clone(), calls(1, agent)).await;
    let advice = only(&witness);
    assert_not_reached(&advice, Endpoint::AGENT, "/v2/agent/{agent_id}", Some("/v2"));
    // It is one mistake, and not reported as another one too.
    let _ = statuses(app, calls(1001, agent)).await;
    assert_eq!(witness.diagnoses(), []);

    let (layer, witness) = watched(Policy::default());
    let app = Router::new().nest("/v2", v2()).layer(layer).layer(map_request(authenticate));
    let _ = statuses(app, calls(1001, agent)).await;
    assert_eq!(witness.diagnoses(), []);
}

#[tokio::test]
async fn with_axum_a_router_that_is_nested_in_part_is_found_however_late() {
    for first in [0, 1200] {
        let (layer, witness) = watched(Policy::default());
        let v2 = Router::new()
            .route("/agent/{agent_id}/executions", any(async || "executions"))
            .layer(layer.clone());
        let others = Router::new()
            .route("/call", post(async || "called"))
            .route("/user/me", any(async || "me"))
            .layer(layer);
        let app = others.nest("/v2", v2).layer(map_request(authenticate));
        let _ = statuses(app.clone(), calls(first, "/call")).await;
        for _ in 0..MANY / 5 {
            let mixed = calls(8, "/v2/agent/5bc97541/executions").chain(calls(1, "/call"));
            let _ = statuses(app.clone(), mixed.chain(calls(3, "/user/me"))).await;
        }
        let template = "/v2/agent/{agent_id}/executions";
        assert_not_reached(&only(&witness), Endpoint::EXECUTIONS, template, Some("/v2"));
    }
}

#[test]
fn a_prefix_that_the_application_strips_is_found() {
    for without_tower in [false, true] {
        let (layer, witness) = watched(Policy::default());
        for _ in 0..16 {
            let path = "/5bc97541/v2/agent/5bc97541";
            if without_tower {
                check(&layer, [path]);
            } else {
                let _ = now(send(&layer, request(Method::GET, path, "u", "o")));
            }
        }
        let advice = only(&witness);
        assert_not_reached(&advice, Endpoint::AGENT, "/v2/agent/{agent_id}", None);
        assert!(advice.to_string().contains("stripped_prefix"), "{advice}");
    }
    let named = Policy::bolna().stripped_prefix("/api").build().unwrap();
    assert_silent(named, &[], &["/api/v2/agent/1", "/api/call", "/user/me"]);
}

#[test]
fn a_policy_whose_templates_match_no_more_is_found_after_the_change() {
    let (layer, witness) = watched(Policy::default());
    check(&layer, ["/v2/agent/5bc97541"].repeat(2000));
    let wrong = Policy::builder().endpoint("agent", Quota::per_minute(500), ["/agent/{id}"]);
    layer.limiter().set_policy(wrong.build().unwrap()).unwrap();
    check(&layer, ["/v2/agent/5bc97541"].repeat(MANY));
    assert_not_reached(&only(&witness), Endpoint::AGENT, "/agent/{id}", None);
}

#[test]
fn the_same_policy_once_more_is_no_change() {
    let (layer, witness) = watched(Policy::default());
    check(&layer, ["/call", "/v2/agent/1"]);
    layer.limiter().set_policy(Policy::default()).unwrap();
    check(&layer, ["/v1/call"; 900]);
    assert_eq!(witness.diagnoses(), []);
}

#[test]
fn the_paths_of_a_plan_are_those_that_are_compared() {
    let (layer, witness) = watched(Policy::default());
    let plan = Policy::builder().endpoint("speech", Quota::per_minute(9), ["/v3/speech/{id}"]);
    let planned = Account::user("u").with_policy(plan.build().unwrap());
    for _ in 0..16 {
        // The account of the plan, and one without, to which it is no endpoint.
        check(&layer, ["/speech/5bc97541"; 9]);
        assert_eq!(witness.diagnoses(), []);
        let _ = layer.limiter().check_now(&planned, "/speech/5bc97541");
    }
    let speech = Endpoint::new("speech").unwrap();
    assert_not_reached(&only(&witness), speech, "/v3/speech/{id}", Some("/v3"));
}

#[test]
fn one_of_a_thousand_endpoints_is_found() {
    let mut policy = Policy::builder();
    for number in 0..1000 {
        let path = format!("/v2/resource-{number}/{{id}}");
        policy = policy.endpoint(format!("resource-{number}"), Quota::per_minute(9), [path]);
    }
    let (layer, witness) = watched(policy.build().unwrap());
    // All but one of the endpoints are reached.
    for number in (0..1000).filter(|number| *number != 777) {
        check(&layer, [&*format!("/v2/resource-{number}/1")]);
    }
    check(&layer, ["/resource-1/1", "/resource-999/1"].repeat(MANY));
    assert_eq!(witness.diagnoses(), []);
    check(&layer, ["/resource-777/5bc97541"].repeat(MANY));
    let endpoint = Endpoint::new("resource-777").unwrap();
    assert_not_reached(&only(&witness), endpoint, "/v2/resource-777/{id}", Some("/v2"));
}

#[test]
fn a_request_that_costs_too_much_or_whose_store_fails_reaches_its_endpoint() {
    let (layer, witness) = watched(Policy::default());
    for _ in 0..100 {
        let _ = layer.limiter().check_endpoint_now(&Account::user("u"), Endpoint::CALL, 501);
        check(&layer, ["/v1/call"]);
    }
    assert_eq!(witness.diagnoses().iter().map(Advice::code).collect::<Vec<_>>(), ["BRL009"]);
}

#[test]
fn nearly_all_traffic_of_default_is_nothing_odd() {
    let paths = ["/user/me", "/batches/17", "/v2/agent/all", "/agent", "/call/17/stop", "/"];
    assert_silent(Policy::default(), &["/call"], &paths);
}

#[test]
fn another_version_of_the_paths_is_nothing_odd() {
    // Beside the paths of the policy, or instead of them.
    let both = ["/v1/agent/1", "/v2/agent/1", "/v1/agent/1/executions", "/v1/call", "/call"];
    assert_silent(Policy::default(), &["/call"], &both);
    assert_silent(Policy::default(), &["/call"], &["/v1/agent/1", "/v1/agent/1/executions"]);
    // Twins without a version.
    let twins = ["/agent/1", "/agent/1/executions", "/v2/agent/1", "/v2/agent/1/executions"];
    assert_silent(Policy::default(), &["/v2/agent/1", "/v2/agent/1/executions"], &twins);
}

/// An old client, or a scan, asks now and then for paths of an endpoint that no client asks for.
#[test]
fn a_few_requests_to_paths_like_those_of_an_endpoint_are_nothing_odd() {
    let mut paths = vec!["/user/me"; 83];
    paths[3] = "/v1/call";
    let (layer, witness) = watched(Policy::default());
    check(&layer, ["/v2/agent/1"]);
    // Twelve of the first thousand, and as many of each thousand of the sample.
    check(&layer, paths.iter().copied().cycle().take(1000 + 127 * 2000));
    assert_eq!(witness.diagnoses(), []);
}

/// `/17/call` is a path of its own, and `17` no prefix.
#[test]
fn ids_in_the_place_of_a_prefix_are_nothing_odd() {
    let paths: Vec<_> = (0..50).map(|number| format!("/{number}/call")).collect();
    let paths: Vec<_> = paths.iter().map(|path| &**path).collect();
    assert_silent(Policy::default(), &["/v2/agent/1"], &paths);
}

#[test]
fn paths_that_the_policy_gives_to_default_or_exempts_are_nothing_odd() {
    let policy = Policy::bolna().default_paths(["/v1/call"]).exempt(["/agent/{id}"]);
    assert_silent(policy.build().unwrap(), &["/v2/agent/1"], &["/v1/call", "/user/me"]);
    let (layer, witness) = watched(Policy::bolna().exempt(["/agent/{id}"]).build().unwrap());
    check(&layer, ["/agent/1", "/call"].repeat(MANY));
    assert_eq!(witness.diagnoses(), []);
}

/// Requests without an account are often those of scans.
#[tokio::test]
async fn scans_without_an_account_are_nothing_odd() {
    let (layer, witness) = watched(Policy::default());
    let _ = send(&layer, request(Method::GET, "/user/me", "u", "o")).await;
    for _ in 0..200 {
        for path in ["/agent", "/agent/1", "/v1/call", "/api/v2/agent/1"] {
            let _ = send(&layer, unidentified(path)).await;
        }
    }
    assert_eq!(witness.diagnoses(), []);
}

#[tokio::test]
async fn it_is_found_with_a_store_that_answers_later() {
    let limiter = DeferredStore::limiter(Policy::default());
    limiter.store().now_answers(Answers::Decision);
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    for _ in 0..16 {
        assert_eq!(send(&layer, request(Method::GET, "/agent/1", "u", "o")).await.status(), 200);
    }
    let template = "/v2/agent/{agent_id}";
    assert_not_reached(&only(&witness), Endpoint::AGENT, template, Some("/v2"));
}

#[test]
fn an_observer_that_is_added_late_gets_the_advice() {
    let limiter = Limiter::default();
    let witness = Witness::of(&limiter);
    for _ in 0..16 {
        let _ = limiter.check_now(&Account::user("u"), "/v1/call");
    }
    assert_not_reached(&only(&witness), Endpoint::CALL, "/call", None);
}
