//! Helpers that the tests share.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use bolna_rate_limit::layer::ResponseBody;
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::{Immediate, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Decision, Endpoint, Enforcement, Limiter, Policy, Principal,
    Quota,
};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio_test::assert_ready;
use tokio_test::task::spawn;
use tower::{Layer, ServiceExt};

/// Enforcement on a share of the principals.
#[track_caller]
pub(crate) fn percent(percent: u8) -> Enforcement {
    Enforcement::percent(percent).unwrap()
}

/// A limiter on a manual clock, which stands still until the test changes it.
pub(crate) fn stopped_limiter(policy: Policy) -> (Limiter<MemoryStore<ManualClock>>, ManualClock) {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone());
    (quiet(Limiter::with_store(policy, store).unwrap()), clock)
}

/// The limiter, without advice on standard error. Without observers it then goes the way that it
/// goes in release builds.
pub(crate) fn quiet<St>(limiter: Limiter<St>) -> Limiter<St> {
    limiter.print_advice(false);
    limiter
}

/// A policy with one quota for all paths.
pub(crate) fn uniform(limit: u32, period: Duration, burst: u32) -> PolicyBuilder {
    Policy::builder().default_quota(Quota::per(limit, period).burst(burst))
}

/// What the limit says about a request of a principal, without Tower.
pub(crate) trait DecideNow {
    fn decide_now(&self, principal: &Principal, path: &str) -> Option<Decision>;
}

impl<St: Store<Check = Immediate>> DecideNow for Limiter<St> {
    fn decide_now(&self, principal: &Principal, path: &str) -> Option<Decision> {
        let answer = self.check(&principal.into(), path)?;
        answer.now().unwrap().unwrap().decision().copied()
    }
}

/// What the only limit of an endpoint would say about a request now.
pub(crate) async fn peeked<St: Store>(
    limiter: &Limiter<St>,
    account: impl Into<Account>,
    endpoint: Endpoint,
) -> Decision {
    let ruling = limiter.peek(account, endpoint).await.unwrap().unwrap();
    let [decision] = ruling.decisions() else { panic!("{ruling:?}") };
    *decision
}

pub(crate) fn organization(id: &str) -> Principal {
    Principal::organization(id).unwrap()
}

/// A request by a user of an organization.
pub(crate) fn request(
    method: Method,
    path: &str,
    user: &str,
    organization: &str,
) -> Request<String> {
    let mut request = Request::builder().method(method).uri(path).body(String::new()).unwrap();
    request.extensions_mut().insert(Account::user(user).in_organization(organization));
    request
}

/// `POST /call` by a user of an organization.
pub(crate) fn call_by(user: &str, organization: &str) -> Request<String> {
    request(Method::POST, "/call", user, organization)
}

/// A policy that allows one request to `/call` every ten seconds.
pub(crate) fn one_call() -> Policy {
    Policy::bolna().quota("call", Quota::per(1, Duration::from_secs(10))).build().unwrap()
}

/// An inner service that answers `200 OK`, with `inner` as its body.
pub(crate) async fn ok<B>(_: Request<B>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("inner".to_owned()))
}

/// The body of a response as text.
pub(crate) async fn text<B: Body<Data = Bytes, Error: Debug>>(response: Response<B>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The output of a future that does not wait.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    assert_ready!(spawn(future).poll())
}

/// The response to one request, from a new service.
pub(crate) async fn send<St: Store>(
    layer: &BolnaRateLimitLayer<St>,
    request: Request<String>,
) -> Response<ResponseBody<String>> {
    layer.layer(tower::service_fn(ok)).oneshot(request).await.unwrap()
}

/// One of many requests. It is sent `pause` after the one before.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) caller: &'static str,
    pub(crate) path: &'static str,
    pub(crate) pause: Duration,
}

/// Requests of a few callers, enough for [`tight`] limits to refuse some.
pub(crate) fn traffic() -> impl Strategy<Value = Vec<Sent>> {
    let caller = prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::sample::select(vec![
        "/call",
        "/v2/agent/1",
        "/v2/agent/1/executions",
        "/",
        "/free",
        "/%63all",
    ]);
    let pause = prop_oneof![3 => Just(0), 1 => 0..3_000_000_000_u64].prop_map(Duration::from_nanos);
    let sent = (caller, path, pause).prop_map(|(caller, path, pause)| Sent { caller, path, pause });
    prop::collection::vec(sent, 1..80)
}

/// A policy with limits that are soon reached.
pub(crate) fn tight() -> PolicyBuilder {
    Policy::bolna()
        .quota("executions", Quota::per_second(1))
        .quota("agent", Quota::per_second(2).burst(3))
        .quota("call", Quota::per(2, Duration::from_secs(10)))
        .default_quota(Quota::per_second(3).burst(2))
}
