//! What an attack does to a well-behaved caller, without the limiter and with it, and the picture
//! of the README: `cargo bench --bench attack -- --picture docs/attack.svg`. Takes 40 seconds, and
//! without `--picture` it only prints.
//!
//! The service can answer at most 2,000 calls a second: ten at once, in 5 ms each, as a pool of ten
//! connections to a database would. A caller makes eight calls a second. After five seconds an
//! attacker, of another organization, attacks for ten seconds over 400 connections. On each it
//! makes a call every 100 ms, or when the one before was answered. Real connections on loopback, all
//! in one process.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use bolna_rate_limit::{Account, BolnaRateLimitLayer};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

mod picture;

const RUN: Duration = Duration::from_secs(20);
/// When the attack begins and ends.
const ATTACK: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];
const ATTACKERS: u32 = 400;
/// The time between two calls of one of the attacker's connections.
const PAUSE: Duration = Duration::from_millis(100);
/// The time between two calls of the well-behaved caller: 480 a minute.
const PACE: Duration = Duration::from_millis(125);

/// What was seen in one run.
struct Seen {
    /// The calls of the well-behaved caller: when each was made, and how long it took.
    calls: Vec<(Duration, Duration)>,
    refused: usize,
    /// How many calls of the attacker were admitted, and how many were refused.
    attack: [usize; 2],
}

impl Seen {
    /// How long the caller's calls took during the attack, in ascending order.
    fn during_attack(&self) -> Vec<Duration> {
        let [begin, end] = ATTACK;
        let during = self.calls.iter().filter(|(made, _)| (begin..end).contains(made));
        let mut times: Vec<_> = during.map(|(_, took)| *took).collect();
        times.sort_unstable();
        times
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let picture = arguments.iter().position(|it| it == "--picture").map(|at| &arguments[at + 1]);

    let without = run(service()).await;
    let limited = service().layer(BolnaRateLimitLayer::new()).layer(from_fn(authenticate));
    let with = run(limited).await;
    for (name, seen) in [("without", &without), ("with", &with)] {
        let times = seen.during_attack();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let [admitted, refused] = seen.attack;
        println!(
            "{name}: the caller's calls during the attack take {median:.1?}, at worst {worst:.1?}, \
             and {} of {} are refused; of the attacker's {admitted} are admitted, {refused} refused",
            seen.refused,
            seen.calls.len(),
        );
    }
    if let Some(file) = picture {
        std::fs::write(file, picture::draw(&without, &with)).unwrap();
        println!("{file} is written");
    }
}

fn service() -> Router {
    let connections = Arc::new(Semaphore::new(10));
    let call = async move || {
        let _connection = connections.acquire().await.unwrap();
        sleep(Duration::from_millis(5)).await;
        "calling"
    };
    Router::new().route("/call", post(call))
}

async fn authenticate(mut request: Request, next: Next) -> Response {
    let organization = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
    request.extensions_mut().insert(Account::user("u-1").in_organization(organization));
    next.run(request).await
}

async fn run(service: Router) -> Seen {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });

    let begin = Instant::now();
    let mut attackers = JoinSet::new();
    for nth in 0..ATTACKERS {
        attackers.spawn(attack(address, begin, PAUSE * nth / ATTACKERS));
    }
    let client = client();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut callers = JoinSet::new();
    while begin.elapsed() < RUN {
        ticks.tick().await;
        let client = client.clone();
        callers.spawn(async move {
            let made = Instant::now();
            let status = call(&client, address, "good").await;
            (made - begin, made.elapsed(), status)
        });
    }
    let answers = callers.join_all().await;
    let attacks = attackers.join_all().await;
    server.abort();

    let refused = answers.iter().filter(|(.., status)| *status != StatusCode::OK).count();
    let calls = answers.into_iter().map(|(made, took, _)| (made, took)).collect();
    let attack = [0, 1].map(|which| attacks.iter().map(|counts| counts[which]).sum());
    Seen { calls, refused, attack }
}

/// Makes calls over one connection while the attack lasts. Returns how many were admitted, and how
/// many were refused.
async fn attack(address: SocketAddr, begin: Instant, offset: Duration) -> [usize; 2] {
    let client = client();
    sleep_until((begin + ATTACK[0] + offset).into()).await;
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counts = [0; 2];
    while begin.elapsed() < ATTACK[1] {
        ticks.tick().await;
        let status = call(&client, address, "bad").await;
        counts[usize::from(status == StatusCode::TOO_MANY_REQUESTS)] += 1;
    }
    counts
}

fn client() -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn call(
    client: &Client<HttpConnector, Empty<Bytes>>,
    address: SocketAddr,
    organization: &str,
) -> StatusCode {
    let request = http::Request::post(format!("http://{address}/call"))
        .header(AUTHORIZATION, organization)
        .body(Empty::new())
        .unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}
