//! What further limits cost a call: `cargo bench --bench limits`.
//!
//! The same service with one limit, with one more for each user, and with one for everyone besides.
//! The rounds of all services are interleaved in one process, and the figures are medians, in
//! nanoseconds over the bare service. Requests are made outside the timed part.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Barrier;
use std::thread;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::Layer;

mod timing;

use timing::{BATCH, median, time};

const ROUNDS: usize = 3_000;
const ORGANIZATIONS: usize = 10_000;
const USERS: usize = 10;

type Bare = fn(Request<String>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>>;
type Limited = bolna_rate_limit::BolnaRateLimit<tower::util::ServiceFn<Bare>>;

fn inner(_: Request<String>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Empty::new())))
}

fn call(account: Account) -> Request<String> {
    let mut request = Request::get("/call").body(String::new()).expect("the path is valid");
    request.extensions_mut().insert(account);
    request
}

/// Services with one limit, two and three, of these quotas: of the organization, the user and
/// everyone.
fn services(account: QuotaBuilder, user: QuotaBuilder) -> [Limited; 3] {
    let everyone = Quota::per_second(100_000_000).burst(1_000_000);
    let one = || Policy::bolna().quota("call", account);
    let two = || one().also("call", LimitBuilder::user("call-user", user));
    let three = two().also("call", LimitBuilder::everyone("call-all", everyone));
    [one(), two(), three].map(|policy| {
        let policy = policy.build().expect("the policy is valid");
        BolnaRateLimitLayer::with_policy(policy).layer(tower::service_fn(inner as Bare))
    })
}

fn one_user(_: usize) -> Account {
    Account::user("u-17").in_organization("28f9c34b-8eb0-4af5-8689-c2f6c4daec22")
}

fn report(name: &str, bare: u64, limited: [u64; 3]) {
    let over = limited.map(|time| i128::from(time) - i128::from(bare));
    let hundredths = |index: usize| over[index] * 100 / over[0].max(1);
    let ratio = |index| format!("{}.{:02}", hundredths(index) / 100, hundredths(index) % 100);
    println!(
        "{name:<42} {:>6} {:>6} {:>6}   x {} x {}",
        over[0],
        over[1],
        over[2],
        ratio(1),
        ratio(2)
    );
}

/// The medians of interleaved rounds: of the bare service and the limited ones.
fn measure(services: &[Limited; 3], account: impl Fn(usize, usize) -> Account) -> (u64, [u64; 3]) {
    let mut bare = tower::service_fn(inner as Bare);
    let mut services = services.clone();
    let mut rounds = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        rounds[0].push(time(&mut bare, |at| call(account(round, at))));
        for (service, rounds) in services.iter_mut().zip(&mut rounds[1..]) {
            rounds.push(time(service, |at| call(account(round, at))));
        }
    }
    let [bare, one, two, three] = rounds.map(median);
    (bare, [one, two, three])
}

fn main() {
    let fast = Quota::per_second(100_000_000).burst(500);
    let slow = Quota::per_hour(1);
    let plenty = Quota::per_second(100_000_000).burst(500);
    println!("{:<42} {:>6} {:>6} {:>6}   over one limit", "ns over the bare service", 1, 2, 3);
    let admitting = services(fast, plenty);
    // By the organization's limit, and by the user's, which decides last.
    let refusing = services(slow, plenty);
    let by_user = services(fast, slow);
    let hot = |_: usize, at: usize| one_user(at);
    for (name, services) in [
        ("admit", &admitting),
        ("refuse, by the organization's limit", &refusing),
        ("refuse, by the user's (1: admit)", &by_user),
    ] {
        let (bare, limited) = measure(services, hot);
        report(name, bare, limited);
    }

    let many = |round: usize, at: usize| {
        let number = (round * BATCH + at).wrapping_mul(7_919) % (ORGANIZATIONS * USERS);
        let (organization, user) = (number / USERS, number % USERS);
        Account::user(format_args!("user-{organization}-{user}"))
            .in_organization(format_args!("organization-{organization}"))
    };
    // Slow to refill, so that all buckets stay in the table.
    let large = Quota::per_hour(1_000_000);
    let spread = services(large, large);
    let (bare, limited) = measure(&spread, many);
    report("admit, 10,000 accounts with 10 users each", bare, limited);

    for (name, services) in [("admit", &admitting), ("refuse", &refusing)] {
        let start = Barrier::new(2);
        let results = thread::scope(|scope| {
            let threads = [0, 1].map(|_| {
                scope.spawn(|| {
                    start.wait();
                    measure(services, hot)
                })
            });
            threads.map(|thread| thread.join().expect("the thread ends"))
        });
        let mean = |of: fn(&(u64, [u64; 3])) -> u64| results.iter().map(of).sum::<u64>() / 2;
        let limited = [mean(|it| it.1[0]), mean(|it| it.1[1]), mean(|it| it.1[2])];
        report(&format!("{name}, 2 threads, one account"), mean(|it| it.0), limited);
    }
}
