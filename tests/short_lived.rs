//! Limiters that serve one request each. Alone in its process, since all limiters of the process
//! are counted.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bolna_rate_limit::observe::{Advice, Event};
use bolna_rate_limit::{Account, BolnaRateLimitLayer};
use http::{Request, Response};
use tokio_test::assert_ready_ok;
use tokio_test::task::spawn;
use tower::{Layer, ServiceExt};

/// Makes a limiter that serves this many requests, identified or unidentified, and drops it.
fn serve(told: &Arc<Mutex<Vec<Advice>>>, requests: usize, of_somebody: bool) {
    let told = Arc::clone(told);
    let layer = BolnaRateLimitLayer::new();
    layer.limiter().on_event(move |event| {
        if let Event::Advice(diagnosis) = event {
            told.lock().unwrap().push(diagnosis.clone());
        }
    });
    let service = layer.layer(tower::service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    for _ in 0..requests {
        let mut request = Request::post("/call").body(String::new()).unwrap();
        if of_somebody {
            request.extensions_mut().insert(Account::user("u"));
        }
        let _ = assert_ready_ok!(spawn(service.clone().oneshot(request)).poll());
    }
}

#[test]
fn a_limiter_for_each_request_is_told_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    // Fewer than 64 limiters in a row that serve at most one request each, before one that serves
    // more, are not reported.
    for _ in 0..10 {
        (0..63).for_each(|number| serve(&told, number % 2, true));
        serve(&told, 2, true);
    }
    // Limiters that serve many unidentified requests are not reported.
    (0..100).for_each(|_| serve(&told, 3, false));
    // Limiters without an observer, that print nothing either, are not reported.
    for _ in 0..100 {
        BolnaRateLimitLayer::new().limiter().print_advice(false);
    }
    assert_eq!(*told.lock().unwrap(), []);
    for number in 0..200 {
        serve(&told, 1, number % 2 == 0);
        let diagnoses = told.lock().unwrap();
        assert_eq!(diagnoses.len(), usize::from(number >= 63), "after {number}");
    }
    let diagnosis = told.lock().unwrap()[0].clone();
    assert!(matches!(diagnosis, Advice::LimiterPerRequest { limiters: 64, .. }));
    assert!(diagnosis.help().ends_with("#variant.LimiterPerRequest"), "{diagnosis}");
    assert!(diagnosis.to_string().starts_with("BRL003: 64 limiters in a row "), "{diagnosis}");

    // If an observer panics, dropping the limiter does not panic: a second panic during a panic
    // would abort the process.
    serve(&told, 2, true);
    let told = Arc::new(AtomicU32::new(0));
    for _ in 0..64 {
        let told = Arc::clone(&told);
        BolnaRateLimitLayer::new().limiter().on_event(move |event| {
            told.fetch_add(1, Ordering::Relaxed);
            panic!("standard error is closed: {event}");
        });
    }
    assert_eq!(told.load(Ordering::Relaxed), 1);
}
