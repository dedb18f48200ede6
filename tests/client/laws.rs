//! Any limits, costs and arrivals.

use std::collections::HashMap;
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, ResponseBody, RetryPolicy};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::callers::{Caller, callers};
use crate::support::{Got, Log, generous, mock, patient, request, slow_to_ready};

const DAY: Duration = Duration::from_secs(86_400);

/// The endpoints, and their paths.
const ENDPOINTS: [(&str, &str); 3] =
    [("call", "/call"), ("agent", "/v2/agent/7"), ("default", "/user/me")];

/// The limits of the policies of this test.
const NAMES: [&str; 8] =
    ["call", "agent", "default", "call-more", "agent-more", "default-more", "one", "two"];

#[derive(Clone, Copy, Debug)]
struct Terms {
    limit: u32,
    burst: u32,
    cost: u32,
    is_users: bool,
}

impl Terms {
    /// So many in ten seconds.
    fn quota(self) -> bolna_rate_limit::values::QuotaBuilder {
        Quota::per(self.limit, Duration::from_secs(10)).burst(self.burst)
    }

    fn limit(self, name: &str) -> LimitBuilder {
        let new = if self.is_users { LimitBuilder::user } else { LimitBuilder::account };
        new(name, self.quota()).cost(self.cost)
    }
}

/// The limits of three endpoints.
#[derive(Clone, Debug)]
struct Limits {
    own: [Terms; 3],
    further: [Option<Terms>; 3],
    /// Each with the endpoints that share it.
    shared: Vec<(Terms, Vec<usize>)>,
}

impl Limits {
    fn policy(&self) -> Policy {
        let mut policy = Policy::bolna();
        for (index, (name, _)) in ENDPOINTS.into_iter().enumerate() {
            let own = self.own[index];
            policy = policy.quota(name, own.quota()).cost(name, own.cost);
            if let Some(further) = self.further[index] {
                policy = policy.also(name, further.limit(&format!("{name}-more")));
            }
        }
        for ((terms, endpoints), name) in self.shared.iter().zip(["one", "two"]) {
            let endpoints = endpoints.iter().map(|&index| ENDPOINTS[index].0);
            policy = policy.shared(terms.limit(name), endpoints);
        }
        policy.build().unwrap()
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    let limit = prop::sample::select(vec![1, 5, 10, 50, 100, 500, 10_000]);
    (limit, 1..20_u32, any::<bool>()).prop_flat_map(|(limit, burst, is_users)| {
        let cost = prop_oneof![2 => Just(1), 1 => 1..=burst];
        cost.prop_map(move |cost| Terms { limit, burst, cost, is_users })
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let shared = (terms(), prop::sample::subsequence(vec![0, 1, 2], 1..=3));
    let own = [terms(), terms(), terms()];
    let further = prop::array::uniform3(prop::option::of(terms()));
    (own, further, prop::collection::vec(shared, 0..=2)).prop_map(|(own, further, shared)| Limits {
        own,
        further,
        shared,
    })
}

/// When a request comes, and to which endpoint.
fn arrival() -> impl Strategy<Value = (Duration, usize)> {
    let millis = prop_oneof![1 => Just(0), 2 => 0..5000_u64];
    (millis.prop_map(Duration::from_millis), 0..3_usize)
}

fn path(endpoint: usize) -> &'static str {
    ENDPOINTS[endpoint].1
}

fn endpoint_of(got: &Got) -> usize {
    ENDPOINTS.iter().position(|(_, path)| got.target.starts_with(path)).unwrap()
}

/// An independent model of the limits: a bucket for each, which is full at a certain time, in
/// nanoseconds. A request moves it on by its cost.
struct Model {
    /// The bucket and the tolerance of each limit.
    full_at: HashMap<&'static str, u64>,
    limits: [Vec<(&'static str, Terms)>; 3],
}

impl Model {
    fn of(limits: &Limits) -> Self {
        let of_endpoint = |index: usize| {
            let (own, further) = (limits.own[index], limits.further[index]);
            let shared = limits.shared.iter().zip(&NAMES[6..]);
            let shared = shared.filter(|((_, endpoints), _)| endpoints.contains(&index));
            let further = further.map(|terms| (NAMES[index + 3], terms));
            [(NAMES[index], own)]
                .into_iter()
                .chain(further)
                .chain(shared.map(|((terms, _), name)| (*name, *terms)))
                .collect()
        };
        Self { full_at: HashMap::new(), limits: [0, 1, 2].map(of_endpoint) }
    }

    /// When a request to that endpoint is admitted by all limits.
    fn admits(&self, endpoint: usize) -> u64 {
        let admits = |(name, terms): &(&str, Terms)| {
            let interval = 10_000_000_000 / u64::from(terms.limit);
            let tolerance = interval * u64::from(terms.burst - terms.cost);
            self.full_at.get(name).copied().unwrap_or_default().saturating_sub(tolerance)
        };
        self.limits[endpoint].iter().map(admits).max().unwrap()
    }

    fn charge(&mut self, endpoint: usize, at: u64) {
        for (name, terms) in &self.limits[endpoint] {
            let cost = 10_000_000_000 / u64::from(terms.limit) * u64::from(terms.cost);
            let full_at = self.full_at.entry(name).or_default();
            *full_at = at.max(*full_at) + cost;
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

/// No request is sent before all limits of its endpoint admit it.
fn assert_none_is_early(limits: &Limits, log: &Log) -> Result<(), TestCaseError> {
    let mut model = Model::of(limits);
    for got in log.got() {
        let (endpoint, at) = (endpoint_of(&got), nanos(got.at));
        let admits = model.admits(endpoint);
        prop_assert!(admits <= at, "{} came {} ns too soon", got.target, admits - at);
        model.charge(endpoint, at);
    }
    Ok(())
}

/// What the server reports about some of the limits, true or not, and whether it refuses.
#[derive(Clone, Debug)]
struct Says {
    reports: Vec<(&'static str, u64, u64)>,
    quota: Option<(&'static str, u64, u64)>,
    refuses: bool,
}

impl Says {
    fn response(&self) -> Response<String> {
        let mut response = Response::new(String::new());
        let mut add = |name: &'static str, value: String| {
            response.headers_mut().append(name, HeaderValue::try_from(value).unwrap())
        };
        for (name, remaining, seconds) in &self.reports {
            add("ratelimit", format!("\"{name}\";r={remaining};t={seconds}"));
        }
        if let Some((name, units, seconds)) = self.quota {
            add("ratelimit-policy", format!("\"{name}\";q={units};w={seconds}"));
        }
        if self.refuses {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        response
    }
}

fn says() -> impl Strategy<Value = Says> {
    let name = || prop::sample::select([&NAMES[..], &["other"]].concat());
    let report = (name(), prop_oneof![1 => Just(0), 2 => 0..30_u64], 0..7_u64);
    let quota = prop::option::weighted(0.3, (name(), 0..30_u64, 0..20_u64));
    (prop::collection::vec(report, 0..4), quota, prop::bool::weighted(0.1))
        .prop_map(|(reports, quota, refuses)| Says { reports, quota, refuses })
}

#[derive(Clone, Debug)]
struct Setting {
    limits: Limits,
    evenly: bool,
    jitter: Duration,
    callers: Vec<((Duration, usize), Caller)>,
    /// Used one after another.
    says: Vec<Says>,
    /// Used one after another.
    readiness: Vec<Duration>,
    jumps: Vec<Duration>,
}

fn settings() -> impl Strategy<Value = Setting> {
    let millis = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    let jitter = prop::sample::select(vec![0, 20, 500]).prop_map(Duration::from_millis);
    let jumps = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(millis(0..3000), 1..20)];
    let slow = prop_oneof![3 => Just(Duration::ZERO), 1 => millis(0..800)];
    let readiness =
        prop_oneof![2 => Just(vec![Duration::ZERO]), 1 => prop::collection::vec(slow, 1..20)];
    let says = prop::collection::vec(says(), 1..30);
    let arrivals = prop::collection::vec(arrival(), 130);
    (limits(), any::<bool>(), jitter, (arrivals, callers()), says, readiness, jumps).prop_map(
        |(limits, evenly, jitter, (arrivals, callers), says, readiness, jumps)| {
            let callers = arrivals.into_iter().zip(callers).collect();
            Setting { limits, evenly, jitter, callers, says, readiness, jumps }
        },
    )
}

/// A request with that number comes at that time. An error counts as an answer, and so does a
/// refusal.
fn arrive<S>(
    client: &S,
    number: usize,
    comes: Duration,
    endpoint: usize,
    caller: Caller,
) -> impl Future<Output = bool> + use<S>
where
    S: Service<Request<String>, Response = Response<ResponseBody<String>>, Error = BoxError>
        + Clone,
{
    let call = client.clone().oneshot(request(&format!("{}?{number}", path(endpoint))));
    async move {
        sleep(comes).await;
        caller.call(call.map(|_| true)).await
    }
}

async fn hold(setting: Setting) -> Result<(), TestCaseError> {
    let Setting { limits, says, readiness, jumps, .. } = setting;
    let pacer = Pacer::builder().policy(limits.policy()).jitter(setting.jitter);
    let pacer = pacer.max_wait(Duration::from_secs(20));
    let pacer = if setting.evenly { pacer.evenly() } else { pacer }.build().unwrap();
    let retry =
        RetryPolicy::builder().attempts(4).total_time(Duration::from_secs(40)).build().unwrap();
    let log = Log::new();
    let server = mock(&log, move |number| says[number % says.len()].response());
    let service = slow_to_ready(server, move |number| readiness[number as usize % readiness.len()]);
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(service);

    let mut set = JoinSet::new();
    for (number, ((comes, endpoint), caller)) in setting.callers.into_iter().enumerate() {
        set.spawn(arrive(&client, number, comes, endpoint, caller));
    }
    let jumps = async {
        for jump in jumps {
            sleep(Duration::from_millis(137)).await;
            advance(jump).await;
        }
    };
    let all = async { while set.join_next().await.transpose().unwrap().is_some() {} };
    let hanging = timeout(DAY, async { tokio::join!(all, jumps) }).await;
    prop_assert!(hanging.is_ok(), "a call hangs: {:?}", pacer.usage());
    for usage in pacer.usage() {
        prop_assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
    }
    assert_none_is_early(&limits, &log)
}

/// Sends requests to a server that admits all of them. Each is sent as soon as the limits admit it
/// and those that came before it to the same endpoint are sent.
async fn hurry(limits: Limits, arrivals: Vec<(Duration, usize)>) -> Result<(), TestCaseError> {
    let pacer = patient().policy(limits.policy()).jitter(Duration::ZERO).build().unwrap();
    let log = Log::new();
    let client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    let mut set = JoinSet::new();
    for (number, (comes, endpoint)) in arrivals.iter().copied().enumerate() {
        set.spawn(arrive(&client, number, comes, endpoint, Caller::Stays));
    }
    let all = async { while set.join_next().await.transpose().unwrap().is_some() {} };
    let hanging = timeout(DAY, all).await;
    prop_assert!(hanging.is_ok(), "a call hangs: {:?}", pacer.usage());
    prop_assert_eq!(log.len(), arrivals.len());
    assert_none_is_early(&limits, &log)?;

    let (mut model, mut before) = (Model::of(&limits), [0; 3]);
    for got in log.got() {
        let (endpoint, at) = (endpoint_of(&got), nanos(got.at));
        let number: usize = got.target.split_once('?').unwrap().1.parse().unwrap();
        let comes = nanos(arrivals[number].0);
        let earliest = model.admits(endpoint).max(before[endpoint]).max(comes);
        // The milliseconds of the timers.
        let late = at - earliest;
        prop_assert!(late <= 3_000_000, "{} came {late} ns too late", got.target);
        model.charge(endpoint, at);
        before[endpoint] = at;
    }
    Ok(())
}

fn block_on<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_more_is_sent_than_each_limit_admits(setting in settings()) {
        block_on(hold(setting))?;
    }

    #[test]
    fn each_request_is_sent_as_soon_as_all_limits_admit_it(
        limits in limits(),
        arrivals in prop::collection::vec(arrival(), 1..100),
    ) {
        block_on(hurry(limits, arrivals))?;
    }
}
