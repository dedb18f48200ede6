//! What an operator does while requests run: ends pauses.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, PacerBuilder, PacerError};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use http::{Response, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, ServiceExt};

use crate::support::{
    Log, Remote, assert_all_ok, assert_at, mock, patient, refusal, request, send, send_calls,
    settle, usage_of_call,
};

const SECOND: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

/// Refuses the first request for years, and admits all others.
fn nonsense_once(log: &Log) -> Remote {
    mock(log, |number| match number {
        1 => refusal(&[("retry-after", "99999999999")]),
        _ => Response::new(String::new()),
    })
}

async fn paused(builder: PacerBuilder, server: Remote) -> (Pacer, impl Fn(usize) -> Calls) {
    let pacer = builder.build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let refused = client.clone().oneshot(request("/call")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let calls = move |calls| (0..calls).map(|_| send(&client, "/call")).collect();
    (pacer, calls)
}

type Calls = Vec<JoinHandle<Result<StatusCode, BoxError>>>;

async fn assert_sent(calls: Calls) {
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_ended_holds_no_more() {
    let log = Log::new();
    let (pacer, calls) = paused(patient(), nonsense_once(&log)).await;
    let waiting = calls(50);
    sleep(3 * SECOND).await;
    assert_eq!((log.len(), usage_of_call(&pacer).waiting()), (1, 50));
    pacer.resume("/call");
    assert_eq!(usage_of_call(&pacer).paused(), Duration::ZERO);
    assert_sent(waiting).await;
    assert_at(log.elapsed(), 3 * SECOND);
    assert_eq!(usage_of_call(&pacer).refused(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_pauses_of_one_endpoint_are_ended() {
    let log = Log::new();
    let server = mock(&log, |_| refusal(&[("retry-after", "600")]));
    let pacer = patient().build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    for path in ["/call", "/user/me", "/v2/agent/7"] {
        client.clone().oneshot(request(path)).await.unwrap();
    }
    let is_paused = |path| !pacer.peek(path).unwrap().paused().is_zero();
    pacer.resume("/user/me");
    assert_eq!(["/call", "/user/me", "/v2/agent/7"].map(is_paused), [true, false, true]);
    pacer.resume_all();
    assert_eq!(["/call", "/user/me", "/v2/agent/7"].map(is_paused), [false; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_whose_retry_waits_for_the_pause_is_sent_too() {
    let log = Log::new();
    let server = mock(&log, |number| match number {
        1 => refusal(&[("retry-after", "250")]),
        _ => Response::new(String::new()),
    });
    let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
    let call = send(&client, "/call");
    sleep(5 * SECOND).await;
    client.pacer().resume_all();
    assert_eq!(call.await.unwrap().unwrap(), StatusCode::OK);
    assert_at(log.elapsed(), 5 * SECOND);

    // The time that it has saved is left for a further retry.
    let log = Log::new();
    let server = mock(&log, |number| match number {
        1 | 2 => refusal(&[("retry-after", "250")]),
        _ => Response::new(String::new()),
    });
    let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
    let call = send(&client, "/call");
    sleep(5 * SECOND).await;
    client.pacer().resume_all();
    settle().await;
    assert_eq!(log.len(), 2);
    assert_eq!(call.await.unwrap().unwrap(), StatusCode::OK);
    assert!(log.elapsed() >= 255 * SECOND, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_retry_to_another_endpoint_waits_on_unless_they_share_a_limit() {
    let quota = Quota::per_minute(500);
    let shared = LimitBuilder::account("both", quota);
    let policy = Policy::builder().endpoint("a", quota, ["/a"]).endpoint("b", quota, ["/b"]);
    let policy = policy.endpoint("c", quota, ["/c"]).shared(shared, ["a", "b"]).build().unwrap();
    for (path, ends) in [("/a", [true, true, false]), ("/c", [false, false, true])] {
        let log = Log::new();
        let server = mock(&log, |number| match number {
            1..=3 => refusal(&[("retry-after", "60")]),
            _ => Response::new(String::new()),
        });
        let pacer = patient().policy(policy.clone()).build().unwrap();
        let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(server);
        let calls = ["/a", "/b", "/c"].map(|path| send(&client, path));
        sleep(SECOND).await;
        pacer.resume(path);
        settle().await;
        // A retry whose delay is over is sent or waits in the queue.
        let arrived = ["/a", "/b", "/c"].map(|path| {
            let is_sent = log.targets()[3..].iter().any(|target| target == path);
            is_sent || pacer.peek(path).unwrap().waiting() > 0
        });
        assert_eq!(arrived, ends, "after the pauses of {path} were ended");
        pacer.resume_all();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), StatusCode::OK);
        }
        assert!(log.elapsed() <= 3 * SECOND, "{:?}", log.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn after_it_the_server_is_approached_slowly() {
    let log = Log::new();
    // It never answers after the refusal.
    let server = mock(&log, |_| refusal(&[("retry-after", "600")]));
    let silent = tower::service_fn({
        let (server, log) = (server.clone(), log.clone());
        move |request| {
            let (server, first) = (server.clone(), log.len() == 0);
            async move {
                let response = server.oneshot(request).await;
                if !first {
                    std::future::pending::<()>().await;
                }
                response
            }
        }
    });
    let (pacer, calls) = paused(patient(), Remote::new(silent)).await;
    let _waiting = calls(400);
    settle().await;
    pacer.resume("/call");
    sleep(SECOND / 2).await;
    assert_eq!(log.len(), 1 + 50, "a tenth of the burst");
}

#[tokio::test(start_paused = true)]
async fn the_next_refusal_is_the_first_of_a_series() {
    let log = Log::new();
    let server = mock(&log, |_| refusal(&[("retry-after", "1")]));
    let pacer = patient().build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    for _ in 0..16 {
        client.clone().oneshot(request("/call")).await.unwrap();
    }
    assert!(usage_of_call(&pacer).paused() >= 8 * SECOND, "they pause for longer and longer");
    pacer.resume("/call");
    client.clone().oneshot(request("/call")).await.unwrap();
    assert!(usage_of_call(&pacer).paused() <= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_refusals_have_taught_can_be_forgotten() {
    for forgets in [false, true] {
        let log = Log::new();
        // It admits one request in ten seconds, until it is replaced after ten minutes.
        let server = mock(&log, {
            let (log, last) = (log.clone(), std::sync::Mutex::new(None).into());
            let last: std::sync::Arc<std::sync::Mutex<Option<Duration>>> = last;
            move |_| {
                let (now, mut last) = (log.elapsed(), last.lock().unwrap());
                if now < 10 * MINUTE && last.is_some_and(|at| now < at + 10 * SECOND) {
                    return refusal(&[]);
                }
                *last = Some(now);
                Response::new(String::new())
            }
        });
        let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
        let job: Calls = (0..40).map(|_| send(&client, "/call")).collect();
        sleep(10 * MINUTE).await;
        job.into_iter().for_each(|call| call.abort());
        settle().await;
        let before = log.len();
        if forgets {
            client.pacer().forget("/call");
        } else {
            client.pacer().resume("/call");
        }
        let _more: Vec<_> = (0..30).map(|_| send(&client, "/call")).collect();
        sleep(SECOND).await;
        let sent = log.len() - before;
        assert!(if forgets { sent == 30 } else { sent <= 3 }, "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_longer_than_the_pacer_allows() {
    for (pause, fields) in [
        (10 * SECOND, &[("retry-after", "99999999999")][..]),
        (
            MINUTE,
            &[
                ("x-ratelimit-limit", "500"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "3600"),
            ],
        ),
        (SECOND / 10, &[("retry-after", "7")]),
    ] {
        let log = Log::new();
        let server = mock(&log, move |number| match number {
            1 => refusal(fields),
            _ => Response::new(String::new()),
        });
        let (pacer, calls) = paused(patient().max_pause(pause), server.clone()).await;
        // A random time of one interval is added.
        let paused = usage_of_call(&pacer).paused();
        assert!(paused >= pause && paused <= pause + SECOND, "{paused:?}");
        timeout(2 * MINUTE, assert_sent(calls(1))).await.unwrap();
        assert!(log.elapsed() <= pause + SECOND, "{:?}", log.elapsed());
        // The retries come back then, too.
        let log = Log::new();
        let server = mock(&log, move |number| match number {
            1 => refusal(fields),
            _ => Response::new(String::new()),
        });
        let pacer = patient().max_pause(pause).build().unwrap();
        let client = BolnaClientLayer::with_pacer(pacer).layer(server);
        assert_eq!(send(&client, "/call").await.unwrap().unwrap(), StatusCode::OK);
        assert!(log.elapsed() <= pause + SECOND, "{:?}", log.elapsed());
    }
    // A report without a refusal.
    let log = Log::new();
    let exhausted = mock(&log, |_| {
        let fields =
            [("ratelimit-policy", "\"call\";q=500;w=3600"), ("ratelimit", "\"call\";r=0;t=3600")];
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(name, value);
        }
        response.body(String::new()).unwrap()
    });
    let pacer = patient().max_pause(MINUTE).build().unwrap();
    let client = PaceLayer::new(pacer).layer(exhausted);
    assert_all_ok(&timeout(3 * MINUTE, send_calls(&client, 2)).await.unwrap());

    let error = patient().max_pause(Duration::ZERO).build().unwrap_err();
    assert_eq!(error, PacerError::ZeroPause);
    assert!(error.to_string().contains("max_pause is 0 s"), "{error}");
}
