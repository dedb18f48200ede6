//! Many threads that share limits of requests in flight.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use http::{Request, Response, StatusCode};
use tower::{Layer, Service};

use super::{Limited, admit, calls_at_once, member};
use crate::support::{call_by, now, stopped_limiter};

const THREADS: u32 = 8;
const MOST: u32 = 3;
const EACH: u32 = 300;

fn generous() -> PolicyBuilder {
    Policy::bolna().quota("call", Quota::per_second(1_000_000).burst(1_000_000))
}

/// Sends requests until one is admitted.
fn insist(limiter: &Limited, account: &Account) -> Admission {
    loop {
        if let (_, Some(admission)) = admit(limiter, account, "/call") {
            return admission;
        }
        thread::yield_now();
    }
}

#[test]
fn the_handler_never_serves_more_than_the_limit_and_serves_all() {
    let policy = generous().concurrent("call", MOST).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let (inside, highest) = (AtomicU32::new(0), AtomicU32::new(0));
    let (handled, start) = (AtomicU32::new(0), Barrier::new(THREADS as usize));
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let inner = tower::service_fn(async |_: Request<String>| {
                    let now_inside = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    highest.fetch_max(now_inside, Ordering::SeqCst);
                    handled.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, std::convert::Infallible>(Response::new(String::new()))
                });
                let mut service = layer.layer(inner);
                start.wait();
                for _ in 0..EACH {
                    let sent = || now(service.call(call_by("u", "o"))).unwrap();
                    let statuses = std::iter::repeat_with(sent).map(|response| response.status());
                    let refused = statuses.take_while(|status| *status != StatusCode::OK);
                    refused.for_each(|status| {
                        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                        thread::yield_now();
                    });
                }
            });
        }
    });
    assert!(highest.into_inner() <= MOST);
    assert_eq!(handled.into_inner(), THREADS * EACH);
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn as_many_as_the_limit_are_in_flight_when_all_threads_try() {
    for _ in 0..50 {
        let (limiter, _clock) = stopped_limiter(calls_at_once(MOST));
        let start = Barrier::new(THREADS as usize);
        let kept: Vec<_> = thread::scope(|scope| {
            let admit = || {
                start.wait();
                (0..3).filter_map(|_| admit(&limiter, &member("u", "o"), "/call").1).collect()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(admit)).collect();
            threads.into_iter().flat_map(|it| -> Vec<_> { it.join().unwrap() }).collect()
        });
        assert_eq!((kept.len(), limiter.report().in_flight), (3, 3));
    }
}

#[test]
fn limits_in_any_order_do_not_deadlock() {
    let everyone = |name| LimitBuilder::everyone(name, Quota::concurrent(5));
    let policy = generous()
        .also("call", everyone("all-concurrent"))
        .concurrent("call", MOST)
        .also("call", LimitBuilder::user("call-user-concurrent", Quota::concurrent(2)))
        .build()
        .unwrap();
    // The same limits in the other order, as a plan.
    let plan = generous()
        .also("call", LimitBuilder::user("call-user-concurrent", Quota::concurrent(2)))
        .concurrent("call", MOST)
        .build()
        .unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let inside = AtomicU32::new(0);
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (limiter, plan, inside, start) = (&limiter, &plan, &inside, &start);
            scope.spawn(move || {
                let user = if thread % 4 < 2 { "u" } else { "v" };
                let account = member(user, if thread % 2 == 0 { "o" } else { "p" });
                let account = if thread < 4 { account } else { account.with_policy(plan.clone()) };
                start.wait();
                for _ in 0..EACH {
                    let admission = insist(limiter, &account);
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 5);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(admission);
                }
            });
        }
    });
    assert_eq!(limiter.report().in_flight, 0);
}

#[test]
fn clones_that_end_on_many_threads_free_one_place_and_refund_once() {
    let policy = Policy::bolna().quota("call", Quota::per_day(100)).concurrent("call", 50);
    let (limiter, _clock) = stopped_limiter(policy.build().unwrap());
    let caller = member("u", "o");
    let spent = admit(&limiter, &caller, "/call").1.unwrap();
    for _ in 0..100 {
        let admission = admit(&limiter, &caller, "/call").1.unwrap();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                let (admission, start) = (admission.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    admission.refund();
                    admission.end();
                });
            }
        });
        assert_eq!(limiter.report().in_flight, 1);
    }
    assert_eq!(limiter.report().refunds, 100);
    assert_eq!(super::left(&limiter, &caller, "call"), 99);
    drop(spent);
    assert_eq!(limiter.report().in_flight, 0);
}
