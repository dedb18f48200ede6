//! Paths that would be charged to more limits than fit into one charge.

use bolna_rate_limit::layer::{OnStoreFailure, OnUnidentified};
use bolna_rate_limit::observe::{Observation, Observer};
use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::store::{
    Answer, Capabilities, Charge, Command, Immediate, MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::{BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
use http::{Method, Request, StatusCode};

use super::{CALL, admitted, caller, charged, check, left};
use crate::observers::Witness;
use crate::support::{now, request, send, stopped_limiter, text};

/// Written, it has 4 segments. Where a server decodes it, it has 5; where it resolves the dots, 2;
/// where it does both, 3; and where it cuts it at the zero byte as well, it is `/p/q/s`.
const FIVE: &str = "/p/q%2Fr/../s%00t";

/// An endpoint for paths of each number of segments.
fn by_depth(most: usize) -> PolicyBuilder {
    (1..=most).fold(Policy::builder(), |policy, depth| {
        let template: String = (1..=depth).map(|at| format!("/{{s{at}}}")).collect();
        policy.endpoint(format!("depth-{depth}"), Quota::per_minute(100), [template])
    })
}

/// 5 endpoints with 4 limits each, which share none.
fn five_of_four() -> Policy {
    let policy = by_depth(5).endpoint("literal", Quota::per_minute(100), ["/p/q/s"]);
    let endpoints = ["depth-2", "depth-3", "depth-4", "depth-5", "literal"];
    let add = |policy: PolicyBuilder, endpoint: &str| {
        (0..3).fold(policy, |policy, at| {
            let limit = LimitBuilder::account(format!("{endpoint}-{at}"), Quota::per_minute(50));
            policy.also(endpoint, limit)
        })
    };
    let policy = endpoints.into_iter().fold(policy, add).build().unwrap();
    let several = charged(&policy, FIVE);
    assert!(endpoints.iter().all(|it| several.contains(it)), "{several:?}");
    assert_eq!(several[0], "depth-4");
    policy
}

/// A path with more readings than a charge has entries, and a policy with an endpoint for each:
/// with the first segment as a host, the backslash as a slash, the dots resolved, decoded, cut at
/// the zero byte, `?` or `#`.
fn seventeen() -> (Policy, &'static str) {
    let policy = by_depth(24).build().unwrap();
    let path = "//1/2\\3/z/../5%00/6/7/8/9/10%3F/11/12/13/14/15%23/16/17/18/19%2F20";
    let several = charged(&policy, path);
    assert!(several.len() > Charge::MAX_ENTRIES, "{several:?}");
    (policy, path)
}

#[tokio::test]
async fn a_path_of_more_limits_than_one_charge_holds_is_refused_with_400_and_charges_nothing() {
    for (policy, path) in [(five_of_four(), FIVE), seventeen()] {
        let first = policy.endpoint_of(path);
        assert_eq!(first, policy.endpoints_of(path).first().copied());
        let (limiter, _clock) = stopped_limiter(policy);
        let witness = Witness::of(&limiter);
        let full = left(&limiter, &caller());
        let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
        let shadow = layer.clone().enforcement(Enforcement::SHADOW);
        let admitting = shadow.clone().on_store_failure(OnStoreFailure::Admit);
        for layer in [&layer, &shadow, &admitting] {
            let refused = send(layer, request(Method::POST, path, "u-1", "o-1")).await;
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
            assert_eq!(refused.headers()["content-type"], "application/problem+json");
            assert_eq!(refused.headers()["cache-control"], "no-store");
            for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
                assert_eq!(refused.headers().get(name), None);
            }
            assert_eq!(
                text(refused).await,
                "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\
                 \"detail\":\"Servers could read this path in so many ways that the request would \
                 count towards too many limits. Send the path without unusual escapes, dots, \
                 slashes or semicolons.\",\"error\":400,\
                 \"message\":\"The path can be read in too many ways\"}"
            );
            let told = witness.one();
            assert_eq!((told.endpoint, told.outcome), (first, "too_ambiguous"));
            assert_eq!((told.admitted, told.enforced, told.decision), (false, true, None));
        }
        let head = send(&layer, request(Method::HEAD, path, "u-1", "o-1")).await;
        assert_eq!((head.status(), text(head).await.as_str()), (StatusCode::BAD_REQUEST, ""));
        assert_eq!(left(&limiter, &caller()), full);
        assert!(limiter.store().is_empty());
    }
}

#[tokio::test]
async fn without_an_account_on_unidentified_decides_about_them() {
    let (policy, path) = seventeen();
    let layer = BolnaRateLimitLayer::with_policy(policy);
    let unidentified = || Request::get(path).body(String::new()).unwrap();
    assert_eq!(send(&layer, unidentified()).await.status(), StatusCode::UNAUTHORIZED);
    let layer = layer.on_unidentified(OnUnidentified::Admit);
    assert_eq!(send(&layer, unidentified()).await.status(), StatusCode::OK);
}

#[test]
fn without_tower_the_ruling_says_so() {
    let (policy, path) = seventeen();
    let (limiter, _clock) = stopped_limiter(policy);
    for enforcement in [Enforcement::FULL, Enforcement::SHADOW] {
        limiter.set_enforcement(enforcement);
        let ruling = check(&limiter, &caller(), path);
        assert_eq!(ruling.outcome(), Outcome::TooAmbiguous);
        assert!(!ruling.is_admitted() && !ruling.is_allowed() && ruling.is_enforced());
        assert!(ruling.decisions().is_empty() && ruling.retry_after().is_none());
        assert_eq!((ruling.candidate(), ruling.too_costly_for()), (None, None));
        let answer = limiter.check(&caller(), path).unwrap();
        assert_eq!(now(answer.wait()).unwrap(), ruling);
    }
}

#[tokio::test]
async fn an_operator_can_render_the_refusal() {
    let (policy, path) = seventeen();
    let layer = BolnaRateLimitLayer::with_policy(policy).render_refusals(|refusal| {
        let body = format!("{:?} {}", refusal.reason(), refusal.status());
        http::Response::new(body)
    });
    let refused = send(&layer, request(Method::POST, path, "u-1", "o-1")).await;
    assert_eq!(text(refused).await, "TooAmbiguous 400 Bad Request");
}

#[test]
fn a_candidate_with_too_many_limits_for_a_path_is_not_evaluated_for_it() {
    for (candidate, path) in [(five_of_four(), FIVE), seventeen()] {
        let (limiter, _clock) = stopped_limiter(Policy::default());
        limiter.set_candidate(candidate).unwrap();
        let ruling = check(&limiter, &caller(), path);
        assert!(ruling.is_admitted());
        assert_eq!(ruling.candidate(), None);
        assert!(check(&limiter, &caller(), "/x").candidate().is_some());
    }
}

#[test]
fn the_limits_for_everyone_of_all_endpoints_apply_to_a_plan() {
    let (_, path) = seventeen();
    let everyone = LimitBuilder::everyone("all", Quota::per_minute(3));
    let endpoints: Vec<_> = (1..=24).map(|depth| format!("depth-{depth}")).collect();
    let active = by_depth(24).shared(everyone, &endpoints).build().unwrap();
    let (limiter, _clock) = stopped_limiter(active);
    let planned = caller().with_policy(Policy::builder().build().unwrap());
    assert_eq!(admitted(&limiter, &planned, path, 10), 3);
    assert_eq!(check(&limiter, &caller(), path).outcome(), Outcome::TooAmbiguous);
}

/// A store that can charge only so many buckets at once, as one of the user's own may.
#[derive(Debug)]
struct Few(MemoryStore, usize);

impl Store for Few {
    type Check = Immediate;

    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        match self.capabilities().permit(&charge) {
            Ok(()) => self.0.check(charge),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.0.command(command).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.entries = self.1;
        capabilities.everyone = true;
        capabilities
    }
}

/// An observer that no failure of the store may reach.
#[derive(Debug)]
struct NoFailure;

impl Observer for NoFailure {
    fn on_decision(&self, observation: &Observation<'_>) {
        assert!(observation.error.is_none(), "{observation:?}");
    }
}

#[test]
fn a_store_that_charges_few_buckets_at_once_refuses_paths_of_several_endpoints() {
    let limiter = |policy, most| {
        let limiter = Limiter::with_store(policy, Few(MemoryStore::new(), most)).unwrap();
        limiter.observe(NoFailure);
        limiter
    };
    let status = |limiter: &Limiter<Few>, path, account| {
        let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
            .on_store_failure(OnStoreFailure::Admit);
        let mut call = Request::post(path).body(String::new()).unwrap();
        call.extensions_mut().insert(account);
        now(send(&layer, call)).status().as_u16()
    };
    // One bucket at a time.
    let one = limiter(Policy::default(), 1);
    one.set_candidate(Policy::default()).unwrap();
    assert_eq!(status(&one, CALL, caller()), 400);
    assert_eq!(status(&one, "/call", caller()), 200);

    // No shadow entries, and `call` is not enforced.
    let shadow = Policy::bolna().enforce("call", Enforcement::SHADOW).build().unwrap();
    assert_eq!(status(&limiter(shadow, 16), CALL, caller()), 400);

    // A plan with one endpoint, and the limits for everyone of two.
    let all = |name: &str| LimitBuilder::everyone(name, Quota::per_minute(9));
    let policy = Policy::bolna().also("call", all("call-all")).also("default", all("all"));
    let planned = caller().with_policy(Policy::builder().build().unwrap());
    let two = limiter(policy.build().unwrap(), 2);
    assert_eq!(status(&two, CALL, planned.clone()), 400);
    assert_eq!(status(&two, "/call", planned), 200);
}
