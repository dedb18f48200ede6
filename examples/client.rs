//! A bulk dialler that places 1,500 calls through an API that allows 500 a minute, in three ways:
//! naively, paced in bursts, and paced evenly.
//!
//! ```sh
//! cargo run --example client --features client
//! # A minute of the API takes 3s. ...
//! # ...
//! #            leads  placed    lost  requests   refused   minutes
//! # naive       1500 ...
//! # paced       1500    1500       0 ...
//! # evenly      1500    1500       0 ...
//! # ...
//! # 60 calls of 2 s each: at most 10 ran at once, all took ... minutes
//! ```
//!
//! The example starts the API itself, on loopback and with a limiter. It ends after about 18
//! seconds, because a minute of the API takes only three seconds. `COMPRESS`, from 1 to 60, sets
//! how many times shorter the API's minute is: 20 by default, 1 for a real minute, 60 for a second.
//! (The delays of the network and the machine can't be compressed. On a slow machine some requests
//! may therefore be refused, and are retried.)
//!
//! Then it places 60 calls of which only 10 may run at once, whatever the rate, as the limits of
//! voice APIs and of phone lines demand.
//!
//! At the end the example prints what the API has answered to each dialler. It fails if a paced
//! dialler has lost a lead, or if more than 10 calls ran at once.
//!
//! With `API` it dials through another API, whose limits it does not know, for example one with the
//! limiter of another project that allows half as much:
//!
//! <!-- not run: scripts/foreign-limiters runs the same job against it -->
//! ```sh
//! scripts/foreign-limiters --serve tower_governor --limit 250 --window 3 --port 3000
//! API=127.0.0.1:3000 cargo run --example client --features client
//! ```

use std::collections::HashMap;
use std::env;
use std::io::{IsTerminal, stderr};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use bolna_rate_limit::client::{BolnaClientLayer, Pacer, Permit};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::util::{BoxCloneSyncService, MapRequestLayer};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

const LEADS: usize = 1500;
const A_MINUTE: u32 = 500;
const CALLS: usize = 60;
const AT_ONCE: u32 = 10;
/// How long the network and a busy machine may delay a request. It can't be compressed.
const JITTER: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let compress = env::var("COMPRESS").unwrap_or_else(|_| "20".to_owned());
    let times = compress.parse().ok().filter(|times| (1..=60).contains(times));
    let times: u32 = times.ok_or_else(|| {
        format!("COMPRESS is {compress:?}: it must be a whole number from 1 to 60")
    })?;
    let minute = Duration::from_secs(60) / times;
    // The API and the client have the same policy.
    let rate = Policy::bolna().quota("call", Quota::per(A_MINUTE, minute));
    let policy = rate.clone().build()?;
    let api = match env::var("API") {
        Ok(address) => Api { address, is_ours: false, seen: Seen::default() },
        Err(_) => Api::serve(policy.clone()).await?,
    };
    let pacer = Pacer::builder().policy(policy.clone()).jitter(JITTER);
    let (bursts, evenly) = (pacer.clone().build()?, pacer.evenly().build()?);

    let jobs = async {
        [
            naive(&api, minute / 60).await,
            paced(&api, "paced", bursts).await,
            paced(&api, "evenly", evenly).await,
        ]
    };
    let jobs = timeout(Duration::from_secs(900), jobs).await?;
    let at_once = Pacer::with_policy(rate.concurrent("call", AT_ONCE).build()?);
    let calls = at_most_10_at_once(&api, at_once, minute / 30);
    let (most, took) = timeout(Duration::from_secs(900), calls).await??;
    println!(
        "A minute of the API takes {minute:?}. All times below are in its minutes and seconds.\n"
    );
    report(&jobs, minute);
    let minutes = took.div_duration_f64(minute);
    println!(
        "\n{CALLS} calls of 2 s each: at most {most} ran at once, all took {minutes:.2} minutes"
    );
    if most > AT_ONCE as usize {
        Err(format!("{most} calls ran at once: at most {AT_ONCE} are allowed").into())
    } else if jobs[1..].iter().any(|job| job.placed < LEADS) {
        Err(format!("a paced dialler has placed fewer than {LEADS} calls: see the table").into())
    } else {
        Ok(())
    }
}

/// Sends 50 calls at once, then sleeps for a second. If a call is refused, its lead is lost.
async fn naive(api: &Api, second: Duration) -> Job {
    let (client, job) = (http_client(api), Job::start("naive"));
    let mut placed = 0;
    for first in (0..LEADS).step_by(50) {
        let calls = (first..first + 50).map(|lead| place(client.clone(), api.call("naive", lead)));
        placed += join_all(calls).await.into_iter().filter(|is_placed| *is_placed).count();
        sleep(second).await;
    }
    job.end(placed, api)
}

/// Makes all calls at once; the layer sends each as soon as the limit allows it.
async fn paced(api: &Api, name: &'static str, pacer: Pacer) -> Job {
    let layer = BolnaClientLayer::with_pacer(pacer.clone());
    let (client, job) =
        (ServiceBuilder::new().layer(layer).service(http_client(api)), Job::start(name));
    let bar = tokio::spawn(show_progress(name, pacer));
    let mut calls = JoinSet::new();
    for lead in 0..LEADS {
        calls.spawn(place(client.clone(), api.call(name, lead)));
    }
    let placed = calls.join_all().await.into_iter().filter(|is_placed| *is_placed).count();
    bar.abort();
    job.end(placed, api)
}

/// A call keeps its place from its request until a webhook says that it has ended. Returns how many
/// calls ran at once at most, and how long all of them took.
async fn at_most_10_at_once(
    api: &Api,
    pacer: Pacer,
    lasts: Duration,
) -> Result<(usize, Duration), BoxError> {
    let client =
        ServiceBuilder::new().layer(BolnaClientLayer::with_pacer(pacer)).service(http_client(api));
    // The permits of the calls that run, by the ids of the calls.
    let running = Arc::new(Mutex::new(HashMap::new()));
    let (hang_up, mut webhook) = mpsc::unbounded_channel();
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for id in 0..CALLS {
        let call = client.clone().oneshot(api.call("at once", id));
        let (running, hang_up) = (Arc::clone(&running), hang_up.clone());
        calls.spawn(async move {
            let response = call.await?;
            // Without a permit, the place would be given back when the response is dropped.
            let permit = Permit::of(response.extensions());
            let at_once = {
                let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
                running.insert(id, permit);
                running.len()
            };
            // The phones ring, people talk.
            sleep(lasts).await;
            hang_up.send(id)?;
            Ok::<_, BoxError>(at_once)
        });
    }
    drop(hang_up);
    // The webhook's handler: dropping the permit lets the next call be made.
    while let Some(id) = webhook.recv().await {
        running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
    let at_once: Vec<usize> = calls.join_all().await.into_iter().collect::<Result<_, _>>()?;
    Ok((at_once.into_iter().max().unwrap_or(0), started.elapsed()))
}

/// Whether the call was placed. A refusal is a response too, so the status decides.
async fn place<S, B>(client: S, call: http::Request<Full<Bytes>>) -> bool
where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<B>>,
{
    client.oneshot(call).await.is_ok_and(|response| response.status().is_success())
}

type Http = BoxCloneSyncService<http::Request<Full<Bytes>>, http::Response<Incoming>, Error>;

/// A client that records how each request is answered.
fn http_client(api: &Api) -> Http {
    let seen = Arc::clone(&api.seen);
    // HTTP/2 takes one connection for all requests, so fewer files are open.
    let client = Client::builder(TokioExecutor::new()).http2_only(api.is_ours).build_http();
    let client = client.map_response(move |response: http::Response<_>| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((Instant::now(), response.status()));
        response
    });
    BoxCloneSyncService::new(client)
}

/// Draws a progress bar while requests wait, if standard error is a terminal.
async fn show_progress(name: &str, pacer: Pacer) {
    while stderr().is_terminal() {
        if let Some(usage) = pacer.peek("/call") {
            let (sent, waiting) = (usage.sent() - usage.retried(), usage.waiting());
            let bar = "#".repeat(usize::try_from(sent).unwrap_or(LEADS) * 25 / LEADS);
            let left = usage.wait().as_secs_f64();
            eprint!(
                "\r{name:<6} [{bar:<25}] {sent:>4} sent, {waiting:>4} waiting, {left:>5.1} s to go "
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// When the API has answered each request, and with which status.
type Seen = Arc<Mutex<Vec<(Instant, StatusCode)>>>;

/// The API, and what it has answered.
struct Api {
    address: String,
    /// Whether it is the example's own, which speaks HTTP/2.
    is_ours: bool,
    seen: Seen,
}

impl Api {
    async fn serve(policy: Policy) -> Result<Self, BoxError> {
        let app = Router::new()
            .route("/call", post("queued"))
            .layer(BolnaRateLimitLayer::with_policy(policy))
            .layer(MapRequestLayer::new(authenticate));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(axum::serve(listener, app).into_future());
        Ok(Self { address, is_ours: true, seen: Seen::default() })
    }

    fn call(&self, key: &str, lead: usize) -> http::Request<Full<Bytes>> {
        let body = format!(r#"{{"agent_id":"17","recipient_phone_number":"+9180{lead:08}"}}"#);
        http::Request::post(format!("http://{}/call", self.address))
            .header(AUTHORIZATION, format!("Bearer {key}"))
            .body(Full::from(body))
            .expect("the address is one")
    }
}

/// A DEMO: each key is a user of its own.
fn authenticate(mut request: Request) -> Request {
    if let Some(key) = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let account = Account::user(key);
        request.extensions_mut().insert(account);
    }
    request
}

/// What a dialler has reached, and what the API has answered.
struct Job {
    name: &'static str,
    started: Instant,
    took: Duration,
    placed: usize,
    seen: Vec<(Instant, StatusCode)>,
}

impl Job {
    fn start(name: &'static str) -> Self {
        Self { name, started: Instant::now(), took: Duration::ZERO, placed: 0, seen: Vec::new() }
    }

    fn end(self, placed: usize, api: &Api) -> Self {
        let seen = std::mem::take(&mut *api.seen.lock().unwrap_or_else(PoisonError::into_inner));
        Self { placed, took: self.started.elapsed(), seen, ..self }
    }

    /// How many requests were answered 200, and how many 429, in the period that begins `from`
    /// after the start.
    fn seen_in(&self, from: Duration, period: Duration) -> [usize; 2] {
        [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].map(|status| {
            let at = self.started + from..self.started + from + period;
            self.seen.iter().filter(|(when, how)| at.contains(when) && *how == status).count()
        })
    }
}

/// Prints a table of the results, and the load over time.
fn report(jobs: &[Job], minute: Duration) {
    eprintln!();
    println!(
        "{:8}{:>8}{:>8}{:>8}{:>10}{:>10}{:>10}",
        "", "leads", "placed", "lost", "requests", "refused", "minutes"
    );
    for job in jobs {
        let [_, refused] = job.seen_in(Duration::ZERO, job.took);
        let (name, placed, requests) = (job.name, job.placed, job.seen.len());
        let minutes = job.took.div_duration_f64(minute);
        println!(
            "{name:8}{LEADS:>8}{placed:>8}{:>8}{requests:>10}{refused:>10}{minutes:>10.2}",
            LEADS - placed
        );
    }

    let last = jobs
        .iter()
        .flat_map(|job| job.seen.iter().map(|(at, _)| *at - job.started))
        .max()
        .unwrap_or_default();
    // 10 seconds, or more if another API takes long.
    let tens = 1 + u32::try_from(last.as_nanos() * 6 / minute.as_nanos()).unwrap_or(u32::MAX) / 40;
    let slot = minute / 6 * tens;
    let slots = 1 + u32::try_from(last.as_nanos() / slot.as_nanos()).unwrap_or(u32::MAX);
    let seen: Vec<Vec<_>> =
        (0..slots).map(|n| jobs.iter().map(|job| job.seen_in(slot * n, slot)).collect()).collect();
    let most = seen.iter().flatten().map(|[ok, refused]| ok + refused).max().unwrap_or(1).max(1);
    println!("\nRequests in every {} seconds, admitted █ and refused ░", tens * 10);
    println!(
        "{:>6}  {}",
        "",
        jobs.iter().map(|job| format!("{:<30}", job.name)).collect::<String>().trim_end()
    );
    for (n, jobs) in seen.iter().enumerate() {
        let bars = jobs.iter().map(|[ok, refused]| {
            let columns = |count: &usize| (count * 20).div_ceil(most);
            let bar = "█".repeat(columns(ok)) + &"░".repeat(columns(refused));
            let counts = match (ok, refused) {
                (0, 0) => String::new(),
                (ok, 0) => format!("{ok}"),
                (ok, refused) => format!("{ok}+{refused}"),
            };
            format!("{:<29} ", format!("{bar} {counts}"))
        });
        println!("{:>4} s  {}", n * tens as usize * 10, bars.collect::<String>().trim_end());
    }
}
