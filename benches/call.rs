//! The time that the middleware adds to a call of the service that it wraps:
//! `cargo bench --bench call`.
//!
//! The rounds of all services are interleaved in one process, and the figures are medians. Requests
//! are made outside the timed part. Dropping them and the responses is in the timed part, for the
//! bare service too.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bolna_rate_limit::layer::Dialect;
use bolna_rate_limit::observe::Observer;
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::values::clock::Clock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use tower::Layer;

mod timing;

use timing::{median, time};

const ROUNDS: usize = 5_000;
const PATH: &str = "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";
const ORGANIZATION: &str = "28f9c34b-8eb0-4af5-8689-c2f6c4daec22";

fn inner(_: Request<String>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
    let mut response = Response::new(Empty::new());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ready(Ok(response))
}

fn request(_: usize) -> Request<String> {
    let mut request = Request::get(PATH).body(String::new()).expect("the path is valid");
    request.extensions_mut().insert(Account::user("u").in_organization(ORGANIZATION));
    request
}

fn policy(quota: QuotaBuilder) -> Policy {
    Policy::bolna().quota("agent", quota).build().expect("the quota is valid")
}

fn layer(quota: QuotaBuilder) -> BolnaRateLimitLayer {
    BolnaRateLimitLayer::with_policy(policy(quota))
}

/// A clock that reads the processor's counter. The default clock calls the operating system.
struct Counter {
    clock: quanta::Clock,
    start: quanta::Instant,
}

impl Clock for Counter {
    fn now(&self) -> Duration {
        self.clock.now().duration_since(self.start)
    }
}

fn on_counter(quota: QuotaBuilder) -> BolnaRateLimitLayer<MemoryStore<Counter>> {
    let clock = quanta::Clock::new();
    let store = MemoryStore::with_clock(Counter { start: clock.now(), clock });
    let limiter = Limiter::with_store(policy(quota), store).expect("the store can do all of it");
    BolnaRateLimitLayer::with_limiter(limiter)
}

type SetUp = fn(BolnaRateLimitLayer) -> BolnaRateLimitLayer;

/// Everything that can be switched on and makes an admission slower, one by one.
fn observers() -> Vec<(&'static str, SetUp)> {
    #[cfg(feature = "metrics")]
    metrics_exporter_prometheus::PrometheusBuilder::new()
        .install_recorder()
        .expect("there is no other recorder");
    vec![
        #[cfg(feature = "metrics")]
        ("metrics", |layer| observed(layer, bolna_rate_limit::observe::Metrics::new())),
        #[cfg(feature = "tracing")]
        ("traces", |layer| observed(layer, bolna_rate_limit::observe::Log::new())),
        ("most refused", |layer| observed(layer, bolna_rate_limit::observe::MostRefused::new(100))),
        ("shadow mode", |layer| layer.enforcement(bolna_rate_limit::Enforcement::SHADOW)),
        ("decision in extensions", BolnaRateLimitLayer::ruling_in_extensions),
        ("a candidate", |layer| {
            layer.limiter().set_candidate(Policy::default()).expect("there are few endpoints");
            layer
        }),
    ]
}

fn main() {
    // A quota that refills faster than one core can spend, with a bucket of the usual size.
    let admitting = Quota::per_second(100_000_000).burst(500);
    // One request in a million is admitted. The wait of the others is less than a second.
    let refusing = Quota::per_second(1);

    let mut bare = tower::service_fn(inner);
    let mut admit_service = layer(admitting).layer(bare);
    let mut admit_plain = layer(admitting).dialect(Dialect::Off).layer(bare);
    let mut refuse = layer(refusing).layer(bare);
    let mut admit_on_counter = on_counter(admitting).layer(bare);
    let mut refuse_on_counter = on_counter(refusing).layer(bare);
    let observed = observers()
        .into_iter()
        .map(|(name, set_up)| (name, set_up(layer(admitting)).layer(bare), Vec::new()));
    let mut observed: Vec<_> = observed.collect();
    let mut rounds = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        rounds[0].push(time(&mut bare, request));
        rounds[1].push(time(&mut admit_service, request));
        rounds[2].push(time(&mut admit_plain, request));
        rounds[3].push(time(&mut refuse, request));
        rounds[4].push(time(&mut admit_on_counter, request));
        rounds[5].push(time(&mut refuse_on_counter, request));
        for (_, service, rounds) in &mut observed {
            rounds.push(time(service, request));
        }
    }
    let [bare_time, admit, admit_plain, refuse_time, admit_counter, refuse_counter] =
        rounds.map(median);
    println!("bare service                      {bare_time:>6} ns");
    for (name, time) in [
        ("admit, both fields, over bare", admit),
        ("admit, no fields, over bare", admit_plain),
        ("refuse, full body, over bare", refuse_time),
        ("admit, on quanta's clock", admit_counter),
        ("refuse, on quanta's clock", refuse_counter),
    ] {
        println!("{name:<33} {:>6} ns", i128::from(time) - i128::from(bare_time));
    }
    for (name, _, rounds) in observed {
        println!(
            "{name:<33} {:>6} ns more than admit",
            i128::from(median(rounds)) - i128::from(admit)
        );
    }

    let start = Barrier::new(2);
    let two = |service: &(dyn Fn() -> u64 + Sync)| {
        thread::scope(|scope| {
            let threads = [0, 1].map(|_| {
                scope.spawn(|| {
                    start.wait();
                    median((0..ROUNDS).map(|_| service()).collect())
                })
            });
            threads.map(|thread| thread.join().expect("the thread ends")).iter().sum::<u64>() / 2
        })
    };
    let bare_time = two(&|| time(&mut bare.clone(), request));
    for (name, service) in [("admit", &admit_service), ("refuse", &refuse)] {
        let hot_time = two(&|| time(&mut service.clone(), request));
        println!(
            "{name:<6}, 2 threads, 1 hot bucket {:>8} ns",
            i128::from(hot_time) - i128::from(bare_time)
        );
    }
}

fn observed<St: Store>(
    layer: BolnaRateLimitLayer<St>,
    observer: impl Observer,
) -> BolnaRateLimitLayer<St> {
    layer.limiter().observe(observer);
    layer
}
