//! Diagnoses: a mistake in the set-up is reported once, and a correct set-up is not reported.

mod exempt;
mod paths;
mod twice;
mod unidentified;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bolna_rate_limit::layer::OnUnidentified;
use bolna_rate_limit::observe::{Advice, Event};
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Quota,
};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{Method, Request, Response};
use tower::{Service, ServiceExt};
use tower_http::cors::CorsLayer;

use crate::observers::Witness;
use crate::support::{now, send, stopped_limiter};

type MemoryLayer = BolnaRateLimitLayer<MemoryStore<ManualClock>>;

fn watched(policy: Policy) -> (MemoryLayer, Arc<Witness>) {
    let (limiter, _clock) = stopped_limiter(policy);
    let witness = Witness::of(&limiter);
    (BolnaRateLimitLayer::with_limiter(limiter), witness)
}

/// The one diagnosis that was reported.
#[track_caller]
fn only(witness: &Witness) -> Advice {
    let mut diagnoses = witness.diagnoses();
    assert_eq!(diagnoses.len(), 1, "{diagnoses:?}");
    let diagnosis = diagnoses.remove(0);
    assert_explains_itself(&diagnosis);
    diagnosis
}

/// Asserts that the text has the code and the address of the help, and that the address leads to a
/// variant that exists.
fn assert_explains_itself(diagnosis: &Advice) {
    let text = diagnosis.to_string();
    assert!(text.starts_with(&format!("{}: ", diagnosis.code())), "{text}");
    assert!(text.ends_with(&format!(" ({})", diagnosis.help())), "{text}");
    assert_eq!(Event::Advice(diagnosis.clone()).to_string(), text);
    let page = "https://docs.rs/bolna-rate-limit/latest/bolna_rate_limit/\
                observe/enum.Advice.html#variant.";
    let variant = diagnosis.help().strip_prefix(page).unwrap().to_owned();
    let debug = format!("{diagnosis:?}");
    assert_eq!(debug.split(' ').next(), Some(&*variant));
}

fn unidentified(path: &str) -> Request<String> {
    Request::post(path).body(String::new()).unwrap()
}

fn preflight(path: &str) -> Request<String> {
    let mut request = Request::options(path).body(String::new()).unwrap();
    request.headers_mut().insert(ORIGIN, "https://app.example".parse().unwrap());
    request.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, "POST".parse().unwrap());
    request
}

fn by(mut request: Request<String>, account: Account) -> Request<String> {
    request.extensions_mut().insert(account);
    request
}

#[tokio::test]
async fn a_preflight_was_charged() {
    for (request, endpoint) in [
        (by(preflight("/call"), Account::user("u")), Some(Endpoint::CALL)),
        (preflight("/call"), None),
    ] {
        let (layer, witness) = watched(Policy::default());
        for _ in 0..3 {
            let _ = send(&layer, request.clone()).await;
        }
        let Advice::PreflightCharged { endpoint: told, .. } = only(&witness) else {
            panic!("told of something else")
        };
        assert_eq!(told, endpoint);
    }
}

#[tokio::test]
async fn options_that_are_no_preflight_or_cost_nothing_are_nothing_odd() {
    let (layer, witness) = watched(Policy::bolna().exempt(["/healthz"]).build().unwrap());
    let mut without_origin = preflight("/call");
    without_origin.headers_mut().remove(ORIGIN);
    let mut without_method = preflight("/call");
    without_method.headers_mut().remove(ACCESS_CONTROL_REQUEST_METHOD);
    let mut no_options = preflight("/call");
    *no_options.method_mut() = Method::POST;
    for request in [
        without_origin,
        without_method,
        no_options,
        Request::options("/call").body(String::new()).unwrap(),
    ] {
        for request in [request.clone(), by(request, Account::user("u"))] {
            let _ = send(&layer, request).await;
        }
    }
    for request in [preflight("/healthz"), by(preflight("/healthz"), Account::user("u"))] {
        let _ = send(&layer, request).await;
    }
    // An unidentified preflight that is admitted without a limit is answered by the inner service.
    let layer = layer.on_unidentified(OnUnidentified::Admit);
    assert_eq!(send(&layer, preflight("/call")).await.status(), 200);
    assert_eq!(witness.diagnoses(), []);
}

#[tokio::test]
async fn a_thing_is_told_to_all_who_observe_and_once_only() {
    let (layer, first) = watched(Policy::default());
    let second = Witness::of(layer.limiter());
    for _ in 0..3 {
        let _ = send(&layer, preflight("/call")).await;
        layer.limiter().set_enforcement(Enforcement::SHADOW);
        layer.limiter().set_enforcement(Enforcement::FULL);
        layer.limiter().set_policy(Policy::default()).unwrap();
    }
    assert_eq!(only(&first), only(&second));
    // An observer that is added later does not get earlier diagnoses.
    let third = Witness::of(layer.limiter());
    let _ = send(&layer, preflight("/call")).await;
    assert_eq!(third.diagnoses(), []);
}

fn of_policy(builder: &PolicyBuilder) -> Vec<Advice> {
    let policy = builder.clone().build().unwrap();
    let (_, at_start) = watched(policy.clone());
    let (layer, later) = watched(Policy::default());
    layer.limiter().set_policy(policy.clone()).unwrap();
    let (layer, as_candidate) = watched(Policy::default());
    layer.limiter().set_candidate(policy).unwrap();
    let diagnoses = at_start.diagnoses();
    assert_eq!(diagnoses, later.diagnoses());
    assert_eq!(diagnoses, as_candidate.diagnoses());
    diagnoses.iter().for_each(assert_explains_itself);
    diagnoses
}

#[test]
fn a_policy_without_any_oddity_is_not_told_of() {
    let quota = || Quota::per_minute(1);
    for policy in [
        Policy::bolna(),
        Policy::builder(),
        Policy::builder().default_quota(Quota::per_second(1_000_000)),
        Policy::bolna().concurrent("call", Quota::MAX_CONCURRENT),
        Policy::builder().endpoint("rest", quota(), ["/files/{*rest}"]).exempt(["/{a}"]),
        // The narrower of two templates matches some paths, and the wider one the others.
        Policy::builder().endpoint("one", quota(), ["/{a}"]).endpoint(
            "rest",
            quota(),
            ["/v/{*rest}"],
        ),
        Policy::builder().endpoint("one", quota(), ["/v/{a}"]).endpoint(
            "rest",
            quota(),
            ["/v/{*rest}"],
        ),
        Policy::builder().endpoint("two", quota(), ["/v/{a}/{b}"]).endpoint(
            "rest",
            quota(),
            ["/v/{*rest}"],
        ),
        Policy::builder()
            .endpoint("some", quota(), ["/v/{a}/{b}/{*c}", "/v/{a}"])
            .exempt(["/v/{*rest}"]),
        // No template matches the deeper paths.
        Policy::builder().endpoint("few", quota(), ["/", "/{a}", "/{a}/{b}/{c}"]),
        Policy::builder().endpoint("few", quota(), ["/", "/{a}", "/{a}/{b}", "/{a}/{b}/{c}"]),
        // Only the paths of the endpoint have a limit.
        Policy::builder().endpoint("call", quota(), ["/call"]).exempt(["/", "/{*rest}"]),
        Policy::builder().endpoint("all", quota(), ["/{*rest}"]).default_paths(["/healthz"]),
        Policy::builder().endpoint("dots", quota(), ["/.well-known/{*rest}", "/caf\u{e9}/..."]),
        Policy::builder().endpoint("long", quota(), ["/x".repeat(100)]),
    ] {
        assert_eq!(of_policy(&policy), [], "{policy:?}");
    }
}

#[test]
fn a_quota_that_never_binds() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_second(1_002_000))
        .default_quota(Quota::per_second(u32::MAX));
    let diagnoses = of_policy(&policy);
    let named: Vec<_> = diagnoses
        .iter()
        .map(|diagnosis| match diagnosis {
            Advice::QuotaNeverBinds { limit, .. } => (limit.name().name(), limit.quota().limit()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(named, [("call", 1_002_000), ("default", u32::MAX)]);
}

#[test]
fn a_default_that_is_never_used() {
    let quota = || Quota::per_minute(1);
    for paths in [
        vec!["/{*rest}"],
        vec!["/", "/{*rest}"],
        vec!["/{a}", "/{a}/{*rest}"],
        vec!["/{a}/{b}/{*rest}", "/{a}/{b}", "/x/y", "/{a}"],
    ] {
        let diagnoses = of_policy(&Policy::builder().endpoint("all", quota(), paths.clone()));
        assert_eq!(diagnoses.len(), 1, "{paths:?}: {diagnoses:?}");
        assert!(matches!(diagnoses[0], Advice::DefaultNeverUsed), "{diagnoses:?}");
    }
}

#[test]
fn a_rule_that_never_matches() {
    let quota = || Quota::per_minute(1);
    // A server may take the first for `/call`, and the second for `/status`.
    let never = ["/call.json", "/index.php/status"];
    let policy = Policy::builder().endpoint("call", quota(), ["/call"]).exempt(never);
    // The diagnosis is right: neither is exempt.
    for path in never {
        assert!(policy.clone().build().unwrap().endpoint_of(path).is_some(), "{path}");
    }
    let diagnoses = of_policy(&policy);
    let mut paths: Vec<_> = diagnoses
        .iter()
        .map(|diagnosis| match diagnosis {
            Advice::RuleNeverMatches { path, .. } => path.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    paths.sort();
    assert_eq!(paths, never);
    // An endpoint's template applies, whatever else its paths are charged to.
    assert_eq!(of_policy(&Policy::builder().endpoint("call", quota(), ["/call", never[0]])), []);
}

/// The statuses of the responses of an axum router, whose limiter may be anywhere in its layers.
async fn statuses(
    mut app: Router,
    requests: impl IntoIterator<Item = Request<String>>,
) -> Vec<u16> {
    let mut statuses = Vec::new();
    for request in requests {
        let response: Result<Response<_>, Infallible> =
            app.as_service().ready().await.unwrap().call(request.map(|_| Body::empty())).await;
        statuses.push(response.unwrap().status().as_u16());
    }
    statuses
}

async fn authenticate(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Account::user("u"));
    request
}

fn calls(number: usize, path: &'static str) -> impl Iterator<Item = Request<String>> {
    (0..number).map(move |_| unidentified(path))
}

#[tokio::test]
async fn with_axum_cors_inside_of_the_limiter_is_told() {
    let app = || Router::new().route("/call", post(async || "called"));
    let (layer, witness) = watched(Policy::default());
    assert_eq!(
        statuses(app().layer(CorsLayer::permissive()).layer(layer), [preflight("/call")]).await,
        [401]
    );
    assert!(matches!(only(&witness), Advice::PreflightCharged { .. }));

    let (layer, witness) = watched(Policy::default());
    assert_eq!(
        statuses(app().layer(layer).layer(CorsLayer::permissive()), [preflight("/call")]).await,
        [200]
    );
    assert_eq!(witness.diagnoses(), []);
}

#[test]
fn without_observers_nothing_is_looked_for() {
    let limiter = Limiter::default();
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    for _ in 0..20 {
        assert_eq!(now(send(&layer, unidentified("/call"))).status(), 401);
    }
    let witness = Witness::of(&limiter);
    assert_eq!(witness.diagnoses(), []);
}
