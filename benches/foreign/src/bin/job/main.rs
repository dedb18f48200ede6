//! A bulk job against a limiter: makes calls through the client, and prints in one line of JSON
//! what became of them.
//!
//! The options are environment variables. `ADDRESS` is the server's. `CALLS` calls are made by
//! `CALLERS` callers, each of which makes its next call when it has the response to the last; 0
//! callers make all calls at once. The client's policy is `RATE` calls in `RATE_MS`, sent evenly
//! with `EVENLY=1`. `METHOD` is that of the calls; `UNAVAILABLE=1` makes the client retry calls
//! that are refused with 503 and a wait, and `UNAVAILABLE=any` without one too. `START_MS` is the
//! Unix time at which the job starts, so that several processes start together. The client may give
//! up a call after `TOTAL_S` seconds. If `TRACE` is set, each request is written to the file of
//! that name.

mod report;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::client::{BolnaClientLayer, Pacer, RetryPolicy, WaitError};
use bolna_rate_limit::{Policy, Quota};
use bytes::Bytes;
use foreign::option;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimitLayer;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

use report::{Call, End};
use trace::Trace;

/// How long the network and a busy machine may delay a request.
const JITTER: Duration = Duration::from_millis(50);
/// How many connections are open at most.
const CONNECTIONS: usize = 100;
/// How long a connection is kept without a request. gunicorn closes it after two seconds.
const IDLE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let calls = option("CALLS", 1500_usize)?;
    let callers = Some(option("CALLERS", 0)?).filter(|callers| *callers > 0).unwrap_or(calls);
    let total = Duration::from_secs(option("TOTAL_S", 900)?);
    let target = Target {
        method: option("METHOD", Method::POST)?,
        uri: format!("http://{}/call", option("ADDRESS", String::new())?).parse()?,
    };

    let rate = Quota::per(option("RATE", 500)?, Duration::from_millis(option("RATE_MS", 1000)?));
    let policy = Policy::bolna().quota("call", rate).build()?;
    let mut pacer = Pacer::builder().policy(policy).jitter(JITTER).max_wait(total);
    if option("EVENLY", 0)? == 1 {
        pacer = pacer.evenly();
    }
    let mut retry = RetryPolicy::builder().total_time(total);
    retry = match option("UNAVAILABLE", String::new())?.as_str() {
        "1" => retry.retry_unavailable(),
        "any" => retry.retry_any_unavailable(),
        _ => retry,
    };
    // What is sent is counted here, below the client, and not by the client itself.
    let sent = Arc::new(AtomicU64::new(0));
    let http = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build_http::<Full<Bytes>>();
    let trace = Trace::new(option("TRACE", String::new())?);
    let counted = {
        let (sent, trace) = (Arc::clone(&sent), trace.clone());
        service_fn(move |request| {
            sent.fetch_add(1, Ordering::Relaxed);
            trace.clone().follow(http.request(request))
        })
    };
    let client = ServiceBuilder::new()
        .layer(BolnaClientLayer::with_pacer(pacer.build()?).retry(retry.build()?))
        .layer(ConcurrencyLimitLayer::new(CONNECTIONS))
        .service(counted);

    let start = UNIX_EPOCH + Duration::from_millis(option("START_MS", 0)?);
    sleep(start.duration_since(SystemTime::now()).unwrap_or_default()).await;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (client, target) = (client.clone(), target.clone());
        tasks.spawn(async move {
            let mut made = Vec::new();
            for _ in (caller..calls).step_by(callers) {
                made.push(make(client.clone(), target.request()).await);
            }
            made
        });
    }
    let made = tasks.join_all().await.into_iter().flatten().collect();
    report::print(made, sent.load(Ordering::Relaxed), started);
    trace.write(started)?;
    Ok(())
}

/// Where the calls go.
#[derive(Clone)]
struct Target {
    method: Method,
    uri: Uri,
}

impl Target {
    fn request(&self) -> Request<Full<Bytes>> {
        let body = if self.method == Method::GET { "" } else { r#"{"agent_id":"17"}"# };
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let fields = request.headers_mut();
        fields.insert(AUTHORIZATION, HeaderValue::from_static("Bearer bn-1"));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }
}

/// Makes one call, and reads the body of the response.
async fn make<S, B>(client: S, request: Request<Full<Bytes>>) -> Call
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let made = Instant::now();
    let end = match client.oneshot(request).await {
        Ok(response) => {
            let status = response.status();
            match response.into_body().collect().await {
                Err(error) => End::Failed(error.into().to_string()),
                Ok(_) if status.is_success() => End::Placed,
                Ok(_) if status == StatusCode::TOO_MANY_REQUESTS => End::Refused,
                Ok(_) if status == StatusCode::SERVICE_UNAVAILABLE => End::Refused,
                Ok(_) => End::Failed(status.to_string()),
            }
        }
        Err(error) if error.is::<WaitError>() => End::NotSent(error.to_string()),
        Err(error) => End::Failed(error.to_string()),
    };
    Call { end, wait: made.elapsed(), ended: Instant::now() }
}
