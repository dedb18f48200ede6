//! Every row of the test vectors, checked through the public API.

use std::time::Duration;

use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter, Policy, Quota};
use http::{Request, Response, Uri};
use serde::Deserialize;
use tower::{Layer, Service, ServiceExt};

use crate::read::{GcraPolicy, GcraVector, gcra, read};
use crate::support::{DecideNow, organization, stopped_limiter, uniform};

#[derive(Deserialize)]
struct Paths {
    vectors: Vec<PathVector>,
}

#[derive(Deserialize)]
struct PathVector {
    id: String,
    target: String,
    /// That of the path as it is written comes first.
    endpoints: Vec<String>,
    /// Whether there is no other endpoint.
    exact: bool,
    /// Whether every server reads the path as it is written, but for a slash at the end.
    plain: bool,
    why: String,
}

#[test]
fn every_spelling_is_charged_to_the_endpoints_that_the_vectors_name() {
    let policy = Policy::default();
    let Paths { vectors } = read("paths.json");
    assert!(!vectors.is_empty());
    for PathVector { id, target, endpoints, exact, plain, why } in vectors {
        let uri: Uri = target.parse().unwrap();
        let charged = policy.endpoints_of(uri.path());
        let names: Vec<_> = charged.iter().map(Endpoint::name).collect();
        let said = format!("{id}: {target} is charged to {names:?} ({why})");
        assert_eq!(names.first(), endpoints.first().map(String::as_str).as_ref(), "{said}");
        assert_eq!(policy.endpoint_of(uri.path()), charged.first().copied(), "{said}");
        for endpoint in &endpoints {
            assert!(names.contains(&endpoint.as_str()), "{said}, not to {endpoint}");
        }
        assert!(!exact || names.len() == endpoints.len(), "{said}, not to {endpoints:?} alone");
        let is_one = exact && endpoints.len() == 1;
        assert_eq!(plain, is_one, "{id}: `plain` has to be true exactly for one exact endpoint");
    }
}

#[derive(Deserialize)]
struct BolnaEndpoints {
    endpoints: Vec<BolnaEndpoint>,
}

#[derive(Deserialize)]
struct BolnaEndpoint {
    path: String,
    endpoint: String,
}

#[test]
fn every_public_endpoint_of_bolna_is_charged_to_its_endpoint_alone() {
    let policy = Policy::default();
    let BolnaEndpoints { endpoints } = read("bolna_endpoints.json");
    assert!(!endpoints.is_empty());
    for BolnaEndpoint { path, endpoint } in endpoints {
        let uri: Uri = path.parse().unwrap();
        let charged = policy.endpoints_of(uri.path());
        let names: Vec<_> = charged.iter().map(Endpoint::name).collect();
        assert_eq!(names, [endpoint], "{path}");
    }
}

impl GcraVector {
    fn policy(&self) -> Policy {
        let GcraPolicy { ref name, limit, period_ns, burst, .. } = self.policy;
        let period = Duration::from_nanos(period_ns);
        if name == Endpoint::DEFAULT.name() {
            uniform(limit, period, burst).build().unwrap()
        } else {
            Policy::builder()
                .endpoint(name, Quota::per(limit, period).burst(burst), ["/{*all}"])
                .build()
                .unwrap()
        }
    }
}

/// All vectors but one. It is for stores that keep wall-clock time, which may be set back a little,
/// and wait that out. The store in this process has a monotonic clock, and does not.
fn of_a_monotonic_clock() -> Vec<GcraVector> {
    let mut vectors = gcra();
    let all = vectors.len();
    vectors.retain(|vector| vector.id != "G28_clock_back_within_slack");
    assert_eq!(vectors.len(), all - 1);
    vectors
}

#[test]
fn every_decision_is_the_vectors_to_the_nanosecond() {
    for vector in of_a_monotonic_clock() {
        let (limiter, clock) = stopped_limiter(vector.policy());
        let endpoint = limiter.policy().endpoint_of("/x").unwrap();
        let quota = limiter.policy().quota_of(endpoint).unwrap();
        assert_eq!(
            quota.emission_interval(),
            Duration::from_nanos(vector.policy.interval_ns),
            "{}",
            vector.id
        );
        assert_eq!(
            quota.refill_time(),
            Duration::from_nanos(vector.policy.burst_span_ns),
            "{}",
            vector.id
        );
        for (number, (now, row)) in vector.unfolded().enumerate() {
            clock.set(Duration::from_nanos(now));
            let decision = limiter.decide_now(&organization("o"), "/x").unwrap();
            let Some(row) = row else { continue };
            let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap();
            let got = (
                decision.is_allowed(),
                decision.remaining(),
                nanos(decision.retry_after().unwrap_or_default()),
                nanos(decision.next_unit()),
                nanos(decision.reset()),
                now + nanos(decision.reset()),
            );
            let expected = (
                row.allowed,
                row.remaining,
                row.retry_after_ns,
                row.next_unit_ns,
                row.reset_full_ns,
                row.tat_after_ns,
            );
            assert_eq!(got, expected, "{}, request {number}", vector.id);
        }
    }
}

#[tokio::test]
async fn every_header_field_is_the_vectors() {
    for vector in of_a_monotonic_clock() {
        let clock = ManualClock::default();
        let limiter =
            Limiter::with_store(vector.policy(), MemoryStore::with_clock(clock.clone())).unwrap();
        let inner = tower::service_fn(async |_: Request<String>| {
            Ok::<_, std::io::Error>(Response::new(String::new()))
        });
        let mut service = BolnaRateLimitLayer::with_limiter(limiter).layer(inner);
        for (number, (now, row)) in vector.unfolded().enumerate() {
            clock.set(Duration::from_nanos(now));
            let mut request = Request::get("/x").body(String::new()).unwrap();
            request.extensions_mut().insert(Account::user("u").in_organization("o"));
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            let Some(row) = row else { continue };
            for name in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
                let values: Vec<_> =
                    response.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
                let expected: Vec<_> =
                    row.headers.get(name).map(String::as_str).into_iter().collect();
                assert_eq!(values, expected, "{name}, {}, request {number}", vector.id);
            }
        }
    }
}
