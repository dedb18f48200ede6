//! The time of each part of a call: `cargo bench --bench parts`. Takes about ten seconds.
//!
//! Requests and ids are made outside the timed part. Dropping a request and its response is in the
//! timed part, for the bare service too. `cargo bench --bench parts -- store` runs the parts whose
//! name contains that word.

fn main() {
    divan::main();
}

/// Finding the endpoints to which a path is charged.
#[divan::bench_group(sample_count = 2000, sample_size = 100)]
mod classify {
    use bolna_rate_limit::Policy;
    use divan::counter::BytesCount;
    use divan::{Bencher, black_box};

    fn bench(bencher: Bencher<'_, '_>, path: &str) {
        let policy = Policy::default();
        let bencher = bencher.counter(BytesCount::of_str(path));
        bencher.bench_local(|| policy.endpoint_of(black_box(path)));
    }

    #[divan::bench(args = [
        "/call",
        "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d",
        "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d/executions",
        "/v2/agent/all",
        "/v2/agent/Jos\u{e9}.Garc\u{ed}a@Example.org",
        "/v2/batches/5bc97541/executions/242cfe45/recording",
    ])]
    fn plain(bencher: Bencher<'_, '_>, path: &str) {
        bench(bencher, path);
    }

    #[divan::bench(args = [
        "/%63all",
        "//call",
        "/x/..;/call",
        "/v2/agent/%e0%a4%b9%e0%a4%bf%e0%a4%a8%e0%a5%8d%e0%a4%a6%e0%a5%80",
    ])]
    fn odd(bencher: Bencher<'_, '_>, path: &str) {
        bench(bencher, path);
    }

    // Parts that a path of half a kilobyte repeats, from those that a scanner sends to the most
    // expensive ones for each byte that were found.
    #[divan::bench(sample_size = 10, args = [
        "../", "/", "%2e%2e%2f", "a/", "x/../", "..;/", "/%", ";/../v2/agent/all", r"..;/\%3f%00;/",
        r";\..\v2\agent\all",
    ])]
    fn half_a_kilobyte(bencher: Bencher<'_, '_>, part: &str) {
        bench(bencher, &format!("/v2/agent/x{}", part.repeat(500 / part.len())));
    }
}

/// Charging a bucket of a store.
#[divan::bench_group(sample_count = 2000, sample_size = 100)]
mod store {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bolna_rate_limit::store::{Charge, Command, Decisions, Entry, MemoryStore, Store};
    use bolna_rate_limit::values::QuotaBuilder;
    use bolna_rate_limit::values::clock::{Clock, ManualClock, MonotonicClock};
    use bolna_rate_limit::{Endpoint, Principal, Quota};
    use divan::{Bencher, black_box};

    /// A quota that refills faster than two cores can spend, with a bucket of the usual size.
    const ADMITTING: QuotaBuilder = Quota::per_second(100_000_000).burst(500);
    const REFUSING: QuotaBuilder = Quota::per_hour(1);

    fn entry(quota: QuotaBuilder) -> Entry {
        Entry::new(Endpoint::AGENT, quota.build().expect("the quota is valid"))
    }

    fn principal(number: usize) -> Principal {
        Principal::organization(format!("28f9c34b-8eb0-4af5-8689-{number:012x}"))
            .expect("the id is not empty")
    }

    fn check<C: Clock>(store: &MemoryStore<C>, caller: &Principal, entry: &Entry) -> Decisions {
        store
            .check(black_box(Charge::of_one(caller, entry)))
            .now()
            .expect("the answer is there")
            .expect("the store can be asked")
    }

    // The samples are so long that two threads do not run one after the other on one core.
    #[divan::bench(threads = [1, 2], sample_count = 50, sample_size = 200_000)]
    fn hot_admitted(bencher: Bencher<'_, '_>) {
        let (store, caller) = (MemoryStore::new(), principal(0));
        let entry = entry(ADMITTING);
        bencher.bench(|| check(&store, &caller, &entry));
    }

    #[divan::bench]
    fn hot_admitted_without_the_clock(bencher: Bencher<'_, '_>) {
        let (store, caller) = (MemoryStore::with_clock(ManualClock::default()), principal(0));
        let entry = entry(Quota::per_second(u32::MAX));
        bencher.bench_local(|| check(&store, &caller, &entry));
    }

    #[divan::bench]
    fn hot_refused(bencher: Bencher<'_, '_>) {
        let (store, caller) = (MemoryStore::new(), principal(0));
        let entry = entry(REFUSING);
        check(&store, &caller, &entry);
        bencher.bench_local(|| check(&store, &caller, &entry));
    }

    #[divan::bench]
    fn hot_peek(bencher: Bencher<'_, '_>) {
        let (store, caller) = (MemoryStore::new(), principal(0));
        let entry = entry(REFUSING);
        check(&store, &caller, &entry);
        let mut context = Context::from_waker(Waker::noop());
        let peek = || store.command(black_box(Command::Peek(Charge::of_one(&caller, &entry))));
        bencher.bench_local(|| match pin!(peek()).poll(&mut context) {
            Poll::Ready(reply) => reply.expect("the store can be asked"),
            Poll::Pending => unreachable!("nothing waits"),
        });
    }

    /// The time of one check of each caller's bucket. No bucket is drained.
    fn bench_callers(
        bencher: Bencher<'_, '_>,
        store: &MemoryStore<ManualClock>,
        mut numbers: impl Iterator<Item = usize>,
    ) {
        // The quota is built once, since building it takes longer than a check.
        let entry = entry(Quota::per_minute(500));
        bencher
            .with_inputs(|| principal(numbers.next().expect("there is another caller")))
            .bench_local_refs(|principal| check(store, principal, &entry));
    }

    // Every caller checks once before any checks again. So memory limits the speed, not the
    // processor.
    #[divan::bench(args = [100_000, 1_000_000], sample_count = 1000, sample_size = 1000)]
    fn cold_admitted(bencher: Bencher<'_, '_>, callers: usize) {
        let store = MemoryStore::with_clock(ManualClock::default());
        (0..callers).for_each(|number| {
            check(&store, &principal(number), &entry(Quota::per_minute(500)));
        });
        // A prime step visits every number, and never two neighbours in a row.
        bench_callers(bencher, &store, (0..callers).cycle().map(|turn| turn * 7_368_787 % callers));
    }

    // The time contains the growth of the tables.
    #[divan::bench(sample_count = 1000, sample_size = 1000)]
    fn new_bucket(bencher: Bencher<'_, '_>) {
        bench_callers(bencher, &MemoryStore::with_clock(ManualClock::default()), 0..);
    }

    #[divan::bench]
    fn the_clock_alone(bencher: Bencher<'_, '_>) {
        let clock = MonotonicClock::default();
        bencher.bench_local(|| black_box(&clock).now());
    }
}

/// A whole call of the middleware.
#[divan::bench_group(sample_count = 2000, sample_size = 100)]
mod call {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bolna_rate_limit::values::QuotaBuilder;
    use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
    use bytes::Bytes;
    use divan::{Bencher, black_box};
    use http::header::CONTENT_TYPE;
    use http::{HeaderValue, Request, Response};
    use http_body_util::Empty;
    use tower::{Layer, Service};

    /// A quota that refills faster than one core can spend, with a bucket of the usual size.
    const ADMITTING: QuotaBuilder = Quota::per_second(100_000_000).burst(500);
    const PATH: &str = "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";

    fn inner(_: Request<String>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
        let mut response = Response::new(Empty::new());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        ready(Ok(response))
    }

    fn stranger(path: &str) -> Request<String> {
        Request::get(path).body(String::new()).expect("the path is valid")
    }

    fn caller(path: &str) -> Request<String> {
        let mut request = stranger(path);
        request
            .extensions_mut()
            .insert(Account::user("u").in_organization("28f9c34b-8eb0-4af5-8689-c2f6c4daec22"));
        request
    }

    fn layer(quota: QuotaBuilder) -> BolnaRateLimitLayer {
        let policy = Policy::bolna().quota("agent", quota).exempt(["/healthz"]);
        BolnaRateLimitLayer::with_policy(policy.build().expect("the policy is valid"))
    }

    fn bench_service<S: Service<Request<String>>>(
        bencher: Bencher<'_, '_>,
        mut service: S,
        make: fn() -> Request<String>,
    ) {
        let mut context = Context::from_waker(Waker::noop());
        bencher.with_inputs(make).bench_local_values(|request| {
            let _ = service.poll_ready(&mut context);
            let Poll::Ready(response) = pin!(service.call(request)).poll(&mut context) else {
                unreachable!("nothing waits")
            };
            drop(black_box(response));
        });
    }

    fn bench(bencher: Bencher<'_, '_>, layer: &BolnaRateLimitLayer, make: fn() -> Request<String>) {
        bench_service(bencher, layer.layer(tower::service_fn(inner)), make);
    }

    #[divan::bench]
    fn bare_service(bencher: Bencher<'_, '_>) {
        bench_service(bencher, tower::service_fn(inner), || caller(PATH));
    }

    #[divan::bench]
    fn admit(bencher: Bencher<'_, '_>) {
        bench(bencher, &layer(ADMITTING), || caller(PATH));
    }

    #[divan::bench]
    fn exempt(bencher: Bencher<'_, '_>) {
        bench(bencher, &layer(ADMITTING), || caller("/healthz"));
    }

    #[divan::bench]
    fn stranger_401(bencher: Bencher<'_, '_>) {
        bench(bencher, &layer(ADMITTING), || stranger(PATH));
    }

    #[divan::bench]
    fn refuse_for_one_second(bencher: Bencher<'_, '_>) {
        bench(bencher, &layer(Quota::per_second(1)), || caller(PATH));
    }

    // The wait is an hour. Refusals with long waits are rendered each time, not kept for reuse.
    #[divan::bench]
    fn refuse_for_longer(bencher: Bencher<'_, '_>) {
        bench(bencher, &layer(Quota::per_hour(1)), || caller(PATH));
    }

    /// The same admitted call with other header fields. The difference to `off` is the cost of the
    /// fields.
    mod fields {
        use bolna_rate_limit::layer::{Dialect, LegacyReset};
        use divan::Bencher;

        use super::{ADMITTING, PATH, bench, caller, layer};

        #[divan::bench]
        fn off(bencher: Bencher<'_, '_>) {
            bench(bencher, &layer(ADMITTING).dialect(Dialect::Off), || caller(PATH));
        }

        #[divan::bench]
        fn draft_11(bencher: Bencher<'_, '_>) {
            bench(bencher, &layer(ADMITTING).dialect(Dialect::Draft11), || caller(PATH));
        }

        #[divan::bench]
        fn legacy(bencher: Bencher<'_, '_>) {
            let layer =
                layer(ADMITTING).dialect(Dialect::Off).legacy_headers(LegacyReset::DeltaSeconds);
            bench(bencher, &layer, || caller(PATH));
        }

        // The response has three more fields, and none of the five is kept for reuse.
        #[divan::bench]
        fn draft_11_and_legacy(bencher: Bencher<'_, '_>) {
            bench(bencher, &layer(ADMITTING).legacy_headers(LegacyReset::DeltaSeconds), || {
                caller(PATH)
            });
        }
    }
}
