//! Faults of a server while requests arrive. In each of them:
//! * no request waits longer than the deadline;
//! * no request gets a 5xx response;
//! * no caller gets more units than promised;
//! * nothing has to be restarted.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bolna_rate_limit::store::{RedisStore, RedisStoreBuilder, StoreEvent};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Principal, Quota};
use http::{Request, Response, StatusCode};
use redis::InfoDict;
use tokio::sync::RwLock;
use tokio::task::{JoinHandle, JoinSet};
use tower::{Layer, ServiceExt};

use crate::servers::{Server, until, when};
use crate::support::Events;

mod cluster;
mod exact;
mod failover;
mod keys;
mod many;
mod network;
mod refusing;
mod stopped;

const DEADLINE: Duration = Duration::from_millis(200);
/// The time that a machine which is busy with other tests may add.
const MARGIN: Duration = Duration::from_millis(300);

const BURST: u32 = 50;
/// One unit comes back per second, so that the units that come back during a loss can be counted.
const MINUTELY: Quota = quota(60, 60);
/// No unit comes back while a test runs.
const HOURLY: Quota = quota(1, 3600);

const WHO: [&str; 3] = ["alpha", "beta", "gamma"];

const fn quota(limit: u32, seconds: u64) -> Quota {
    match Quota::per(limit, Duration::from_secs(seconds)).burst(BURST).build() {
        Ok(quota) => quota,
        Err(_) => panic!("the quota is valid"),
    }
}

/// What decided about a request, as the header fields show: a process without the server has a
/// share of the burst.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Server,
    Process,
    Nobody,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    status: StatusCode,
    by: By,
    took: Duration,
}

impl Answered {
    /// Asserts that the answer is in time, and not a failure.
    #[track_caller]
    fn is_well(&self) {
        assert!(self.took <= DEADLINE + MARGIN, "{self:?}");
        assert!(matches!(self.status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS), "{self:?}");
    }
}

/// One of the processes that share a limit.
#[derive(Clone)]
struct Replica {
    layer: BolnaRateLimitLayer<RedisStore>,
    events: Events,
}

impl Replica {
    async fn connect(builder: RedisStoreBuilder, quota: Quota) -> Self {
        let store = builder.deadline(DEADLINE).connect().await.unwrap();
        let events = Events::of(&store);
        let policy = Policy::builder().default_quota(quota).build().unwrap();
        let limiter =
            Limiter::with_store(policy, store).expect("the store can do what the policy asks for");
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        Self { layer, events }
    }

    async fn send(&self, who: &str) -> Answered {
        let mut request = Request::new(String::new());
        request.extensions_mut().insert(Account::user(who));
        let inner = tower::service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let began = Instant::now();
        let response = self.layer.layer(inner).oneshot(request).await.unwrap();
        let took = began.elapsed();
        let by =
            match response.headers().get("ratelimit-policy").map(|field| field.to_str().unwrap()) {
                Some(field) if field.contains(&format!("q={BURST};")) => By::Server,
                Some(_) => By::Process,
                None => By::Nobody,
            };
        Answered { status: response.status(), by, took }
    }

    /// Sends that many requests at once.
    async fn send_together(&self, count: usize, who: impl Fn(usize) -> String) -> Vec<Answered> {
        let mut requests = JoinSet::new();
        for number in 0..count {
            let (replica, who) = (self.clone(), who(number));
            requests.spawn(async move { replica.send(&who).await });
        }
        requests.join_all().await
    }

    /// Losses and their ends, without events that only change the reason of a loss.
    fn events(&self) -> Vec<StoreEvent> {
        let mut events = self.events.all();
        events.retain(|event| !matches!(event, StoreEvent::StillLost { .. }));
        events
    }

    /// The kinds of the errors by which a server was lost.
    fn lost(&self) -> Vec<&'static str> {
        let kind = |event| {
            if let StoreEvent::Lost { kind, .. } = event { Some(kind) } else { None }
        };
        self.events().into_iter().filter_map(kind).collect()
    }

    /// Whether a server is lost and has not been regained.
    fn is_cut_off(&self) -> bool {
        2 * self.lost().len() > self.events().len()
    }
}

/// Two replicas that know of each other.
struct Fleet {
    replicas: Vec<Replica>,
    quota: Quota,
}

impl Fleet {
    async fn on(url: String, quota: Quota) -> Self {
        Self::of(quota, || RedisStore::builder(&url)).await
    }

    async fn of(quota: Quota, builder: impl Fn() -> RedisStoreBuilder) -> Self {
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(Replica::connect(builder().expected_replicas(2), quota).await);
        }
        Self { replicas, quota }
    }

    /// Sends requests of each caller to each replica until the traffic is stopped.
    fn send(&self, who: &[&'static str]) -> Traffic {
        self.send_every(Duration::from_millis(2), who)
    }

    fn send_every(&self, pause: Duration, who: &[&'static str]) -> Traffic {
        let shared = Arc::new(Shared::default());
        let mut tasks = Vec::new();
        for (number, replica) in self.replicas.iter().enumerate() {
            for _ in 0..2 {
                tasks.push(tokio::spawn(run(
                    Arc::clone(&shared),
                    number,
                    replica.clone(),
                    who.to_vec(),
                    pause,
                )));
            }
        }
        let (who, replicas) = (who.to_vec(), self.replicas.len());
        Traffic { shared, tasks, who, replicas, quota: self.quota, began: Instant::now() }
    }

    async fn until_lost(&self) {
        self.until("all have lost the server", Replica::is_cut_off).await;
    }

    async fn until_regained(&self) {
        self.until("all have regained the server", |replica| !replica.is_cut_off()).await;
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Replica) -> bool) {
        let told = || self.replicas.iter().map(Replica::events).collect::<Vec<_>>();
        until(what, async || when(self.replicas.iter().all(&is_so), told())).await;
    }

    /// Breaks something, lets requests arrive for a while, and mends it. Returns how long the
    /// outage took.
    async fn outage(&self, break_it: impl AsyncFnOnce(), mend: impl AsyncFnOnce()) -> Duration {
        let began = Instant::now();
        break_it().await;
        self.until_lost().await;
        a_while().await;
        mend().await;
        self.until_regained().await;
        began.elapsed()
    }

    /// Asserts that each replica has reported two events: one loss of such a kind, and one
    /// return.
    #[track_caller]
    fn has_told_once(&self, kinds: &[&str]) {
        for replica in &self.replicas {
            let events = replica.events();
            let alternate =
                matches!(&events[..], [StoreEvent::Lost { .. }, StoreEvent::Regained { .. }]);
            assert!(alternate && kinds.contains(&replica.lost()[0]), "{events:?}");
        }
    }

    #[track_caller]
    fn has_told_nothing(&self) {
        for replica in &self.replicas {
            assert!(replica.events().is_empty(), "{:?}", replica.events());
        }
    }

    /// Asserts that every replica counts a new caller on that server.
    async fn counts_on(&self, server: &Server) {
        let calls = server.calls_of("evalsha").await;
        for replica in &self.replicas {
            let answer = replica.send("newcomer").await;
            assert_eq!((answer.status, answer.by), (StatusCode::OK, By::Server));
        }
        assert!(server.calls_of("evalsha").await >= calls + self.replicas.len() as u64);
        assert!(exists(server, "newcomer").await);
    }
}

/// Requests that arrive continuously.
struct Traffic {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    who: Vec<&'static str>,
    replicas: usize,
    quota: Quota,
    began: Instant,
}

#[derive(Default)]
struct Shared {
    /// Held for reading by the tasks that send.
    gate: RwLock<()>,
    sent: Mutex<Vec<Sent>>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    replica: usize,
    who: &'static str,
    answer: Answered,
}

async fn run(
    shared: Arc<Shared>,
    number: usize,
    replica: Replica,
    who: Vec<&'static str>,
    pause: Duration,
) {
    for who in who.into_iter().cycle() {
        let gate = shared.gate.read().await;
        let answer = replica.send(who).await;
        drop(gate);
        shared.sent.lock().unwrap().push(Sent { replica: number, who, answer });
        tokio::time::sleep(pause).await;
    }
}

impl Traffic {
    fn count(&self, is_it: impl Fn(&Sent) -> bool) -> u32 {
        u32::try_from(self.shared.sent.lock().unwrap().iter().filter(|sent| is_it(sent)).count())
            .unwrap()
    }

    fn granted(&self, who: &str, by: By) -> u32 {
        self.count(|sent| {
            sent.who == who && sent.answer.by == by && sent.answer.status == StatusCode::OK
        })
    }

    fn admitted(&self, who: &str) -> u32 {
        self.count(|sent| sent.who == who && sent.answer.status == StatusCode::OK)
    }

    fn by(&self, by: By) -> u32 {
        self.count(|sent| sent.answer.by == by)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let seen = || self.who.iter().map(|who| (*who, self.admitted(who))).collect::<Vec<_>>();
        until(what, async || when(self.who.iter().all(|who| is_so(who)), seen())).await;
    }

    /// Waits until the server has refused each caller at each replica.
    async fn until_drained(&self) {
        let refused = |who: &str, number| {
            self.count(|sent| {
                let refused = sent.answer.status == StatusCode::TOO_MANY_REQUESTS
                    && sent.answer.by == By::Server;
                refused && sent.who == who && sent.replica == number
            })
        };
        self.until("all are drained", |who| {
            (0..self.replicas).all(|number| refused(who, number) > 0)
        })
        .await;
    }

    /// Does something while no request is in flight. Requests that arrive in the meantime are sent
    /// right afterwards.
    async fn between_requests<T>(&self, act: impl AsyncFnOnce() -> T) -> T {
        let _gate = self.shared.gate.write().await;
        act().await
    }

    /// Asserts that the server charges each unit of an [`HOURLY`] bucket that was admitted exactly
    /// once, whether it was admitted with the server or without it.
    async fn is_charged_once(&self, server: &Server) {
        self.between_requests(async || {
            until("all that was admitted is charged", async || {
                for who in &self.who {
                    let (charged, admitted) = (charged(server, who).await, self.admitted(who));
                    when(charged == admitted, (who, charged, admitted))?;
                }
                Ok(())
            })
            .await;
        })
        .await;
    }

    /// Stops, after a check that every request was answered well.
    async fn stop(self) -> Ended {
        let Self { shared, tasks, .. } = &self;
        let gate = shared.gate.write().await;
        tasks.iter().for_each(JoinHandle::abort);
        drop(gate);
        for sent in shared.sent.lock().unwrap().iter() {
            sent.answer.is_well();
        }
        Ended { lasted: self.began.elapsed(), traffic: self }
    }
}

struct Ended {
    traffic: Traffic,
    lasted: Duration,
}

impl Ended {
    /// Asserts that each caller got at most that many bursts and the units that came back. Units
    /// may have come back twice: to the replicas, while they had lost the server, and to the bucket
    /// on the server.
    #[track_caller]
    fn is_within(&self, bursts: u32, lost: Duration) {
        for who in &self.traffic.who {
            let server = self.traffic.granted(who, By::Server);
            let most = bursts * BURST + self.units(self.lasted);
            assert!(server <= most, "{who}: {server} by the server in {:?}", self.lasted);
        }
        self.is_within_in_all(bursts, lost);
    }

    /// ... where units may also have come back twice on two servers, one of which has replaced the
    /// other.
    #[track_caller]
    fn is_within_in_all(&self, bursts: u32, lost: Duration) {
        // A replica's knowledge of a bucket may be as old as the time in which one unit comes back.
        let late = u32::try_from(self.traffic.replicas).unwrap();
        let most = bursts * BURST + self.units(self.lasted + lost) + late;
        for who in &self.traffic.who {
            let all = self.traffic.admitted(who);
            assert!(
                (BURST..=most).contains(&all),
                "{who}: {all} in {:?}, {lost:?} without the server",
                self.lasted
            );
        }
    }

    fn units(&self, time: Duration) -> u32 {
        u32::try_from(time.as_nanos() / self.traffic.quota.emission_interval().as_nanos()).unwrap()
    }

    /// Asserts that each caller got one burst in all, and perhaps an overdraft of half of one: the
    /// replica that comes back first finds units that the other one has yet to charge.
    #[track_caller]
    fn is_one_burst_and_an_overdraft(&self) {
        for who in &self.traffic.who {
            let all = self.traffic.admitted(who);
            assert!((BURST..=BURST + BURST / 2).contains(&all), "{who}: {all}");
        }
    }

    /// Asserts that the server has decided about all requests, and that each caller got exactly one
    /// burst.
    #[track_caller]
    fn is_exactly_one_burst(&self) {
        assert_eq!((self.traffic.by(By::Process), self.traffic.by(By::Nobody)), (0, 0));
        self.is_one_burst_on_the_server();
    }

    /// ... on the server, apart from units that were admitted without it.
    #[track_caller]
    fn is_one_burst_on_the_server(&self) {
        for who in &self.traffic.who {
            assert_eq!(self.traffic.granted(who, By::Server), BURST, "{who}");
        }
    }
}

/// Lets requests arrive.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn principal(who: &str) -> Principal {
    Principal::user(who).unwrap()
}

fn key(who: &str) -> String {
    format!("bolna:2:{{user:{who}}}:default")
}

async fn exists(server: &Server, who: &str) -> bool {
    server.command(&["EXISTS", &key(who)]).await.unwrap()
}

async fn time_of(server: &Server) -> u64 {
    let (seconds, micros): (u64, u64) = server.command(&["TIME"]).await.unwrap();
    seconds * 1_000_000 + micros
}

/// The units of an [`HOURLY`] bucket that the server has charged, an overdraft included.
async fn charged(server: &Server, who: &str) -> u32 {
    u32::try_from(crate::support::charged(server, &key(who)).await).unwrap()
}

/// Waits until the replica has acknowledged all that the primary has now. A primary sends nothing
/// to a new replica before its first acknowledgement, and a replica acknowledges once a second. The
/// charges that it has not received are lost when it takes over.
async fn until_replicated(primary: &Server) {
    let replication = async || primary.command::<InfoDict>(&["INFO", "replication"]).await.unwrap();
    let written: u64 = replication().await.get("master_repl_offset").unwrap();
    until("all is replicated", async || {
        let replica: Option<String> = replication().await.get("slave0");
        let offset = |replica: &String| {
            replica.split("offset=").nth(1)?.split(',').next()?.parse::<u64>().ok()
        };
        when(
            replica.as_ref().and_then(offset).is_some_and(|offset| offset >= written),
            (&replica, written),
        )
    })
    .await;
}
