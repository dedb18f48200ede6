//! Jobs of many calls, by one or several clients that do not know of each other.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClient, BolnaClientLayer, Pacer, PacerBuilder, RetryPolicy, RetryPolicyBuilder, WaitError,
};
use bolna_rate_limit::{Policy, Quota};
use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};
use http::StatusCode;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::{BoxError, Layer, ServiceExt};

use super::least::{Given, least};
use super::report::Report;
use super::servers::{Server, Setup};
use super::{Nanos, SECOND, nanos};
use crate::support::{Answering, request};

/// A job, and the server at the other end.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) server: Setup,
    /// What the client takes the limit to be: requests, in that time, and the burst.
    pub(super) policy: (u32, Duration, u32),
    /// The calls of all clients together.
    pub(super) calls: usize,
    pub(super) callers: Callers,
    /// Each has a pacer of its own.
    pub(super) clients: usize,
    pub(super) pacer: fn(PacerBuilder) -> PacerBuilder,
    pub(super) retry: fn(RetryPolicyBuilder) -> RetryPolicyBuilder,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Callers {
    /// All calls are submitted at the start.
    AllAtOnce,
    /// So many callers for each client: a caller submits the next call when it has the answer.
    Loops(usize),
}

/// What became of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) client: usize,
    /// From its submission to its answer.
    pub(super) took: Nanos,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Admitted,
    HandedBack,
    NotSent,
    Failed,
}

/// How often something ran. Clones share one count.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

type Client = BolnaClient<Answering<String>>;

impl Default for Job {
    fn default() -> Self {
        Self {
            server: Setup::default(),
            policy: (500, Duration::from_secs(60), 500),
            calls: 1500,
            callers: Callers::AllAtOnce,
            clients: 1,
            pacer: |builder| builder,
            retry: |builder| builder,
        }
    }
}

impl Job {
    /// Runs the job in virtual time.
    pub(super) fn run(&self) -> Report {
        let parks = Counter::default();
        let parked = parks.clone();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || parked.count())
            .build()
            .unwrap();
        runtime.block_on(self.done(&parks))
    }

    /// How long so many of the calls take at least, from that time since 1970.
    fn least(&self, start: Nanos, calls: usize) -> Nanos {
        let (requests, period, burst) = self.policy;
        let clients = self.clients as u64;
        least(Given {
            limit: self.server.limit,
            calls,
            start,
            trip: self.server.network.trip(),
            service: nanos(self.server.service),
            policy: (nanos(period) / (u64::from(requests) * clients), u64::from(burst) * clients),
        })
    }

    async fn done(&self, parks: &Counter) -> Report {
        let server = Server::start(self.server);
        let polls = Counter::default();
        let called = Arc::new(Mutex::new(Vec::new()));
        let mut calls = JoinSet::new();
        let services: Vec<_> =
            (0..self.clients).map(|client| self.client(&server, client)).collect();
        let callers = match self.callers {
            Callers::AllAtOnce => self.calls.div_ceil(self.clients),
            Callers::Loops(callers) => callers,
        };
        // The clients begin in turn, so that none is ahead of the others.
        for caller in 0..callers {
            for (client, service) in services.iter().enumerate() {
                let (service, polls) = (service.clone(), polls.clone());
                let called = Arc::clone(&called);
                let share = share(share(self.calls, self.clients, client), callers, caller);
                calls.spawn(async move {
                    for _ in 0..share {
                        let one = call(service.clone(), client, &polls).await;
                        called.lock().unwrap().push(one);
                    }
                });
            }
        }
        // The rest of a job that takes longer has failed. A server that says that it is closed for a
        // thousand years stops a client for an hour with each refusal.
        let least = self.least(server.epoch(), self.calls);
        let patience = Duration::from_nanos(5 * least + 20 * 86_400 * SECOND);
        let all = async {
            while let Some(result) = calls.join_next().await {
                result.unwrap();
            }
        };
        let _ = timeout(patience, all).await;
        let took = server.elapsed();
        let called = called.lock().unwrap();
        let got = server.got();
        // What was not admitted took no time.
        let admitted = got.iter().filter(|got| got.is_admitted).count();
        let least = self.least(server.epoch(), admitted);
        Report::new(self, &called, &got, took, least, [polls.total(), parks.total()])
    }

    fn client(&self, server: &Server, number: usize) -> Client {
        let (requests, period, burst) = self.policy;
        let policy =
            Policy::bolna().quota("call", Quota::per(requests, period).burst(burst)).build();
        let patience = Duration::from_secs(30 * 86_400);
        let pacer = Pacer::builder().policy(policy.unwrap()).max_wait(patience).max_waiting(10_000);
        let retry = RetryPolicy::builder().total_time(patience);
        BolnaClientLayer::with_pacer((self.pacer)(pacer).build().unwrap())
            .retry((self.retry)(retry).build().unwrap())
            .layer(server.for_client(number))
    }
}

impl Counter {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The part of one of several that share evenly.
pub(super) fn share(of: usize, several: usize, one: usize) -> usize {
    of / several + usize::from(one < of % several)
}

/// A call, in a box: the compiler can't see that the future of a generic one is `Send`.
fn begin(client: Client) -> BoxFuture<'static, Result<StatusCode, BoxError>> {
    client.oneshot(request("/call")).map_ok(|response| response.status()).boxed()
}

async fn call(client: Client, number: usize, polls: &Counter) -> Called {
    let submitted = Instant::now();
    let mut call = begin(client);
    let answer = poll_fn(|cx| {
        polls.count();
        call.as_mut().poll(cx)
    });
    let outcome = match answer.await {
        Ok(StatusCode::OK) => Outcome::Admitted,
        Ok(_) => Outcome::HandedBack,
        Err(error) if error.is::<WaitError>() => Outcome::NotSent,
        Err(_) => Outcome::Failed,
    };
    Called { client: number, took: nanos(submitted.elapsed()), outcome }
}
