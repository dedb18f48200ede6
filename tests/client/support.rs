//! Servers and callers in virtual time.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bolna_rate_limit::client::{Pacer, PacerBuilder, ResponseBody, Usage};
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::Clock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Principal, Quota};
use http::{Request, Response, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::util::BoxCloneService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

/// Longer than any call waits: a call that takes so long hangs.
const A_MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The server's limiter, which uses the same paused clock as the client.
pub(crate) type ServerLimiter = Limiter<MemoryStore<VirtualClock>>;

/// A server that is a function.
pub(crate) type Remote = Answering<String>;

pub(crate) type Answering<B> = BoxCloneService<Request<String>, Response<B>, BoxError>;

pub(crate) struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

pub(crate) fn limiter(policy: Policy) -> ServerLimiter {
    Limiter::with_store(policy, MemoryStore::with_clock(VirtualClock(Instant::now())))
        .expect("the store can do what the policy asks for")
}

/// The principal that owns the client's key.
pub(crate) fn principal() -> Principal {
    Principal::user("u-17").unwrap()
}

/// Bolna's policy, except that `/call` allows one request in each period.
pub(crate) fn one_call_in(period: Duration) -> Policy {
    Policy::bolna().quota("call", Quota::per(1, period)).build().unwrap()
}

/// A builder of a pacer whose requests may wait for as long as necessary.
pub(crate) fn patient() -> PacerBuilder {
    Pacer::builder().max_wait(Duration::from_secs(100_000)).max_waiting(100_000)
}

/// The requests that a server received, in order. Clones share one log.
#[derive(Clone)]
pub(crate) struct Log {
    started: Instant,
    got: Arc<Mutex<Vec<Got>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// Since the log was created.
    pub(crate) at: Duration,
    pub(crate) target: String,
    pub(crate) status: StatusCode,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), got: Arc::default() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn add(&self, target: String, status: StatusCode) {
        self.got.lock().unwrap().push(Got { at: self.elapsed(), target, status });
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    pub(crate) fn count(&self, status: StatusCode) -> usize {
        self.got.lock().unwrap().iter().filter(|got| got.status == status).count()
    }

    /// How many requests the server refused.
    pub(crate) fn refused(&self) -> usize {
        self.count(StatusCode::TOO_MANY_REQUESTS)
    }

    /// When the server received the requests for that path, or all requests if the path is empty.
    pub(crate) fn times(&self, path: &str) -> Vec<Duration> {
        self.got().iter().filter(|got| got.target.starts_with(path)).map(|got| got.at).collect()
    }

    /// The targets of the requests that the server received.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.got().into_iter().map(|got| got.target).collect()
    }
}

/// A server that answers the first request by `answer(1)`, and so on, at once.
pub(crate) fn mock(
    log: &Log,
    answer: impl Fn(usize) -> Response<String> + Clone + Send + 'static,
) -> Remote {
    let log = log.clone();
    Remote::new(service_fn(move |request: Request<String>| {
        let response = answer(log.len() + 1);
        log.add(request.uri().to_string(), response.status());
        async move { Ok(response) }
    }))
}

/// A server that admits all requests.
pub(crate) fn generous(log: &Log) -> Remote {
    mock(log, |_| Response::new(String::new()))
}

/// A server that is limited by this crate's layer.
pub(crate) fn limited(log: &Log, limiter: &ServerLimiter) -> Remote {
    let server = ServiceBuilder::new()
        .map_request(|mut request: Request<String>| {
            request.extensions_mut().insert(Account::user("u-17"));
            request
        })
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .service_fn(|_: Request<String>| async {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
    let log = log.clone();
    Remote::new(service_fn(move |request: Request<String>| {
        let (server, log) = (server.clone(), log.clone());
        async move {
            let target = request.uri().to_string();
            let response = server.oneshot(request).await?;
            log.add(target, response.status());
            Ok(response.map(|_| String::new()))
        }
    }))
}

/// A service that is far away: the first request takes `there(2)` and its response `there(3)`, the
/// next ones `there(4)` and `there(5)`, and so on.
pub(crate) fn distant(
    service: Remote,
    there: impl Fn(u32) -> Duration + Clone + Send + 'static,
) -> Remote {
    let numbers = Arc::new(Mutex::new(0));
    Remote::new(service_fn(move |request: Request<String>| {
        let (service, there) = (service.clone(), there.clone());
        let number = {
            let mut next = numbers.lock().unwrap();
            *next += 2;
            *next
        };
        async move {
            sleep(there(number)).await;
            let response = service.oneshot(request).await;
            sleep(there(number + 1)).await;
            response
        }
    }))
}

/// A service that takes `time(1)`, `time(2)` and so on to get ready. A clone has to get ready anew.
pub(crate) fn slow_to_ready<B>(
    service: Answering<B>,
    time: impl Fn(u32) -> Duration + Clone + Send + Sync + 'static,
) -> SlowToReady<B, impl Fn(u32) -> Duration + Clone + Send + Sync + 'static> {
    SlowToReady { service, time, number: Arc::default(), sleep: None, is_ready: false }
}

pub(crate) struct SlowToReady<B, F> {
    service: Answering<B>,
    time: F,
    number: Arc<Mutex<u32>>,
    sleep: Option<Pin<Box<Sleep>>>,
    is_ready: bool,
}

impl<B, F: Clone> Clone for SlowToReady<B, F> {
    fn clone(&self) -> Self {
        let (service, time, number) =
            (self.service.clone(), self.time.clone(), Arc::clone(&self.number));
        Self { service, time, number, sleep: None, is_ready: false }
    }
}

impl<B, F: Fn(u32) -> Duration> Service<Request<String>> for SlowToReady<B, F> {
    type Response = Response<B>;
    type Error = BoxError;
    type Future = <Answering<B> as Service<Request<String>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.is_ready {
            let Self { time, number, sleep: sleeps, .. } = self;
            let waits = sleeps.get_or_insert_with(|| {
                let mut number = number.lock().unwrap();
                *number += 1;
                Box::pin(sleep(time(*number)))
            });
            ready!(waits.as_mut().poll(cx));
            (self.sleep, self.is_ready) = (None, true);
        }
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(self.is_ready, "the service has to be ready");
        self.is_ready = false;
        self.service.call(request)
    }
}

/// A number below `most` that looks random, and is the same in each run.
pub(crate) fn scattered(number: u32, most: u32) -> u32 {
    number.wrapping_mul(2_654_435_761).rotate_left(15).wrapping_mul(0x85EB_CA6B) % most
}

pub(crate) fn request(target: &str) -> Request<String> {
    Request::post(target).body(String::new()).unwrap()
}

pub(crate) fn refusal(fields: &[(&'static str, &str)]) -> Response<String> {
    let mut response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(String::new()).unwrap()
}

/// Sends a request in a task of its own.
pub(crate) fn send<S>(client: &S, target: &str) -> JoinHandle<Result<StatusCode, BoxError>>
where
    S: Service<
            Request<String>,
            Response = Response<ResponseBody<String>>,
            Error = BoxError,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let call = client.clone().oneshot(request(target));
    tokio::spawn(async move {
        let answer = timeout(A_MONTH, call).await.expect("the call hangs");
        answer.map(|response| response.status())
    })
}

/// Sends `POST /call?0`, `/call?1` and so on, each in a task of its own, and returns the results.
pub(crate) async fn send_calls<S>(client: &S, calls: usize) -> Vec<Result<StatusCode, BoxError>>
where
    S: Service<
            Request<String>,
            Response = Response<ResponseBody<String>>,
            Error = BoxError,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let calls: Vec<_> = (0..calls).map(|number| send(client, &format!("/call?{number}"))).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

/// Lets all tasks run until each waits, without time passing.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The usage of the endpoint `call`.
pub(crate) fn usage_of_call(pacer: &Pacer) -> Usage {
    pacer.peek("/call").unwrap()
}

#[track_caller]
pub(crate) fn assert_all_ok(answers: &[Result<StatusCode, BoxError>]) {
    for (number, answer) in answers.iter().enumerate() {
        assert!(matches!(answer, Ok(StatusCode::OK)), "call {number}: {answer:?}");
    }
}

/// Asserts the time at which something happened, up to the milliseconds of the timers.
#[track_caller]
pub(crate) fn assert_at(at: Duration, expected: Duration) {
    assert!(
        at >= expected && at <= expected + Duration::from_millis(2),
        "at {at:?} instead of {expected:?}"
    );
}
