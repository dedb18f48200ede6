//! What a response says about the wait of its request.

use std::io;
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pacer, RetryPolicy, Waited};
use http::{Request, Response, StatusCode};
use tokio::time::{Instant, advance};
use tower::retry::RetryLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{
    Log, Remote, assert_at, generous, mock, one_call_in, refusal, request, settle,
};

const TEN: Duration = Duration::from_secs(10);

/// What the response to one more call says, its status, and how long it took.
async fn call<S, B>(client: &S) -> (Waited, StatusCode, Duration)
where
    S: Service<Request<String>, Response = Response<B>, Error = BoxError> + Clone,
{
    let arrived = Instant::now();
    let response = client.clone().oneshot(request("/call")).await.unwrap();
    (Waited::of(response.extensions()), response.status(), arrived.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_at_once_has_no_entry() {
    let client = BolnaClientLayer::new().layer(generous(&Log::new()));
    let response = client.oneshot(request("/call")).await.unwrap();
    assert!(response.extensions().get::<Waited>().is_none());
    let waited = Waited::of(response.extensions());
    assert_eq!(
        (waited.in_queue(), waited.before_retries(), waited.total(), waited.attempts()),
        (Duration::ZERO, Duration::ZERO, Duration::ZERO, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_is_told() {
    let client = BolnaClientLayer::with_policy(one_call_in(TEN)).layer(generous(&Log::new()));
    call(&client).await;
    let (waited, _, took) = call(&client).await;
    assert_at(waited.in_queue(), TEN);
    assert_eq!((waited.total(), waited.attempts()), (took, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_response_tells_of_all_attempts() {
    let log = Log::new();
    // The second and the third request are refused.
    let server = mock(&log, |number| match number {
        2 | 3 => refusal(&[("retry-after", "15")]),
        _ => Response::new(String::new()),
    });
    let client = BolnaClientLayer::with_policy(one_call_in(TEN)).layer(server);
    call(&client).await;
    let (waited, status, took) = call(&client).await;
    assert_eq!((status, waited.attempts()), (StatusCode::OK, 3));
    // The server answers at once, so that all of the time was spent on waiting.
    assert!(took - waited.total() < Duration::from_millis(4), "{waited:?} of {took:?}");
    assert!(waited.in_queue() >= TEN, "{waited:?}");
    assert!(waited.before_retries() >= Duration::from_secs(30), "{waited:?}");
    // The next one begins anew.
    let (waited, _, took) = call(&client).await;
    assert_eq!((waited.total(), waited.before_retries()), (took, Duration::ZERO));
    assert_eq!(waited.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_handed_back_tells_too() {
    let server = mock(&Log::new(), |_| refusal(&[("retry-after", "15")]));
    let retry = RetryPolicy::builder().attempts(3).build().unwrap();
    let client = BolnaClientLayer::with_policy(one_call_in(TEN)).retry(retry).layer(server);
    let (waited, status, took) = call(&client).await;
    assert_eq!((status, waited.attempts()), (StatusCode::TOO_MANY_REQUESTS, 3));
    assert!(took - waited.total() < Duration::from_millis(4), "{waited:?} of {took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_connection_broke_counts() {
    let log = Log::new();
    let server = Remote::new(service_fn({
        let log = log.clone();
        move |request: Request<String>| {
            log.add(request.uri().to_string(), StatusCode::OK);
            let is_broken = log.len() == 1;
            async move {
                if is_broken {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
                Ok(Response::new(String::new()))
            }
        }
    }));
    let client = BolnaClientLayer::new().layer(server);
    let get = Request::get("/call").body(String::new()).unwrap();
    let response = client.oneshot(get).await.unwrap();
    let waited = Waited::of(response.extensions());
    assert_eq!((waited.attempts(), log.len()), (2, 2));
    assert_eq!((waited.in_queue(), waited.total()), (Duration::ZERO, waited.before_retries()));
}

#[tokio::test(start_paused = true)]
async fn retries_without_a_pacer_tell_too() {
    let server = mock(&Log::new(), |number| match number {
        1 => refusal(&[("retry-after", "15")]),
        _ => Response::new(String::new()),
    });
    let client = RetryLayer::new(RetryPolicy::new()).layer(server);
    let (waited, _, took) = call(&client).await;
    assert_eq!((waited.attempts(), waited.in_queue()), (2, Duration::ZERO));
    assert_at(took, waited.before_retries());
}

#[tokio::test(start_paused = true)]
async fn a_delay_counts_as_long_as_it_was() {
    let server = mock(&Log::new(), |number| match number {
        1 => refusal(&[("retry-after", "15")]),
        _ => Response::new(String::new()),
    });
    let client = BolnaClientLayer::new().layer(server);
    let suspended = async {
        settle().await;
        // The process does not run for a while.
        advance(TEN * 4).await;
    };
    let ((waited, _, took), ()) = tokio::join!(call(&client), suspended);
    assert!(took >= TEN * 4, "{took:?}");
    assert_at(took, waited.total());
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_several_clients_around_each_other_are_added() {
    let log = Log::new();
    let server = mock(&log, |number| match number {
        2 => refusal(&[("retry-after", "15")]),
        _ => Response::new(String::new()),
    });
    let user = Pacer::with_policy(one_call_in(TEN));
    let key = Pacer::with_policy(one_call_in(TEN * 3));
    let client = ServiceBuilder::new()
        .layer(BolnaClientLayer::with_pacer(user))
        .layer(BolnaClientLayer::with_pacer(key))
        .service(server);
    call(&client).await;
    let (waited, _, took) = call(&client).await;
    assert_eq!((waited.attempts(), log.len()), (2, 3));
    assert!(took - waited.total() < Duration::from_millis(8), "{waited:?} of {took:?}");
}
