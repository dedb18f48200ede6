//! Many threads that share one bucket.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt};

use crate::support::{DecideNow, organization, stopped_limiter};

const THREADS: u32 = 8;

#[test]
fn threads_are_together_admitted_exactly_as_often_as_the_burst_allows() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    for round in 1..=20 {
        let admitted = AtomicU32::new(0);
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..500 {
                        if limiter.decide_now(&organization("o"), "/call").unwrap().is_allowed() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 500, "round {round}");
        clock.advance(Duration::from_secs(60));
    }
}

#[test]
fn threads_that_meet_at_new_buckets_share_them() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let start = Barrier::new(THREADS as usize);
    let admitted: u32 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let callers = (0..100).map(|number| organization(&number.to_string()));
                    let checks = callers.flat_map(|caller| (0..100).map(move |_| caller.clone()));
                    checks
                        .filter(|caller| limiter.decide_now(caller, "/call").unwrap().is_allowed())
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| u32::try_from(thread.join().unwrap()).unwrap()).sum()
    });
    assert_eq!(admitted, 100 * 500);
    assert_eq!(limiter.store().len(), 100);
}

#[test]
fn clones_of_a_layer_and_services_of_each_count_together() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    let handled = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let layer = layer.clone();
            let handled = &handled;
            scope.spawn(move || {
                let inner = tower::service_fn(async |_: Request<String>| {
                    handled.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, std::convert::Infallible>(Response::new(String::new()))
                });
                let mut service = layer.layer(inner);
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for user in 0..200 {
                        let mut request = Request::post("/call").body(String::new()).unwrap();
                        request
                            .extensions_mut()
                            .insert(Account::user(user.to_string()).in_organization("o"));
                        service.ready().await.unwrap().call(request).await.unwrap();
                    }
                });
            });
        }
    });
    assert_eq!(handled.into_inner(), 500);
}
