//! What limits of requests in flight and corrections cost a call: `cargo bench --bench corrections`.
//!
//! The same service with one thing switched on at a time. The rounds of all services are interleaved
//! in one process, and the figures are medians, in nanoseconds over the bare service. Requests are
//! made outside the timed part. Dropping them and the responses is in it, and so is the end of a
//! request in flight.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Barrier;
use std::thread;

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Policy, Quota};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::Layer;

mod timing;

use timing::{median, time};

const ROUNDS: usize = 3_000;

type Bare = fn(Request<String>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>>;
type Limited = bolna_rate_limit::BolnaRateLimit<tower::util::ServiceFn<Bare>>;
type Named = (&'static str, Limited);

fn inner(_: Request<String>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Empty::new())))
}

fn call(_: usize) -> Request<String> {
    let mut request = Request::get("/call").body(String::new()).expect("the path is valid");
    let account = Account::user("u-17").in_organization("28f9c34b-8eb0-4af5-8689-c2f6c4daec22");
    request.extensions_mut().insert(account);
    request
}

/// A quota that refills faster than one core can spend, so that every request is admitted.
fn policy() -> PolicyBuilder {
    Policy::bolna().quota("call", Quota::per_second(100_000_000).burst(500))
}

/// The services: with one limit and nothing else first.
fn services() -> Vec<Named> {
    let made = |policy: PolicyBuilder| {
        BolnaRateLimitLayer::with_policy(policy.build().expect("the policy is valid"))
    };
    let user_rate = LimitBuilder::user("call-user", Quota::per_second(100_000_000).burst(500));
    let user_concurrent = LimitBuilder::user("call-user-concurrent", Quota::concurrent(1000));
    let one = || policy().concurrent("call", 1000);
    let layers = [
        ("one limit", made(policy())),
        ("a second limit, of a rate", made(policy().also("call", user_rate))),
        ("requests in flight", made(one())),
        ("requests in flight, two limits", made(one().also("call", user_concurrent))),
        ("a refund that does not happen", made(policy()).refund_on(|_| false)),
        ("a refund", made(policy()).refund_on(|_| true)),
        ("a settlement that changes nothing", made(policy()).settle(Endpoint::CALL, |_| 1)),
        ("a settlement up by one unit", made(policy()).settle(Endpoint::CALL, |_| 2)),
        ("admissions in extensions", made(policy()).admission_in_extensions()),
    ];
    let layered = |(name, layer): (_, BolnaRateLimitLayer)| {
        layer.limiter().print_advice(false);
        (name, layer.layer(tower::service_fn(inner as Bare)))
    };
    layers.into_iter().map(layered).collect()
}

/// The medians of interleaved rounds, over that of the bare service.
fn measure(services: &[Named]) -> Vec<i128> {
    let mut bare = tower::service_fn(inner as Bare);
    let mut services: Vec<_> = services.iter().map(|(_, it)| (it.clone(), Vec::new())).collect();
    let mut bare_rounds = Vec::new();
    for _ in 0..ROUNDS {
        bare_rounds.push(time(&mut bare, call));
        for (service, rounds) in &mut services {
            rounds.push(time(service, call));
        }
    }
    let bare = i128::from(median(bare_rounds));
    services.into_iter().map(|(_, rounds)| i128::from(median(rounds)) - bare).collect()
}

fn main() {
    let services = services();
    let one = measure(&services);
    let start = Barrier::new(2);
    let two = thread::scope(|scope| {
        let threads = [0, 1].map(|_| {
            scope.spawn(|| {
                start.wait();
                measure(&services)
            })
        });
        threads.map(|thread| thread.join().expect("the thread ends"))
    });
    println!("{:<36} {:>9} {:>21}", "ns over the bare service", "1 thread", "2 threads, 1 account");
    for (index, (name, _)) in services.iter().enumerate() {
        println!("{name:<36} {:>9} {:>21}", one[index], (two[0][index] + two[1][index]) / 2);
    }
}
