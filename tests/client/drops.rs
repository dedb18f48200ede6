//! Callers that give up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::client::{Pace, PaceLayer, Pacer};
use bolna_rate_limit::{Policy, Quota};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service};

use crate::callers::{Caller, callers};
use crate::support::{
    Log, Remote, assert_at, generous, one_call_in, request, settle, usage_of_call,
};

/// Three requests at once, and then one every 100 ms.
fn ten_a_second() -> Policy {
    Policy::bolna().quota("call", Quota::per_second(10).burst(5)).build().unwrap()
}

fn client(log: &Log, policy: Policy) -> (Pace<Remote>, Pacer) {
    let pacer = Pacer::builder().policy(policy).build().unwrap();
    (PaceLayer::new(pacer.clone()).layer(generous(log)), pacer)
}

async fn hold(callers: Vec<Caller>) -> Result<(), TestCaseError> {
    let log = Log::new();
    let (mut client, pacer) = client(&log, ten_a_second());
    let mut set = JoinSet::new();
    for (number, caller) in callers.iter().copied().enumerate() {
        let call = client.call(request(&format!("/call?{number}")));
        set.spawn(async move { (number, caller, caller.call(async { call.await.is_ok() }).await) });
    }
    let mut answered = 0;
    let all = async {
        while let Some(caller) = set.join_next().await {
            let (number, caller, is_answered) = caller.unwrap();
            answered += usize::from(is_answered);
            let stays = matches!(caller, Caller::Stays | Caller::Dawdles(_));
            prop_assert!(is_answered || !stays, "{number}, who {caller:?}");
        }
        Ok(())
    };
    timeout(Duration::from_secs(600), all)
        .await
        .map_err(|_| TestCaseError::fail("a call hangs"))??;

    // A call that need not wait is sent before it is polled.
    let sent = log.len();
    prop_assert!(answered <= sent && sent <= answered + 3, "{answered} of {sent}");
    // As if the dropped calls had never been made: 100 ms each, except for the first three.
    let units = |units: usize| Duration::from_millis(100) * u32::try_from(units).unwrap();
    let (least, took) = (units(sent - 3), *log.times("").last().unwrap());
    prop_assert!(took >= least, "{:?} instead of {:?}", took, least);
    // Callers that leave their calls unpolled hold units for that long, and may come back when the
    // server's bucket is full.
    let dawdles = |caller: &&Caller| matches!(caller, Caller::Dawdles(_) | Caller::NeverPolls(_));
    let dawdlers = callers.iter().filter(dawdles).count();
    let most = least + Duration::from_millis(if dawdlers == 0 { 3 } else { 3000 });
    prop_assert!(took <= most, "{:?} instead of {:?}", took, least);
    if dawdlers == 0 {
        let order: Vec<usize> =
            log.targets().iter().map(|target| target[6..].parse().unwrap()).collect();
        prop_assert!(order.is_sorted(), "{:?}", order);
    }
    let usage = usage_of_call(&pacer);
    prop_assert_eq!((usage.waiting(), usage.unanswered(), usage.unsent()), (0, 0, 0));
    prop_assert_eq!(usage.sent(), sent as u64);
    // ... and the bucket fills up.
    advance(Duration::from_secs(1)).await;
    prop_assert_eq!(usage_of_call(&pacer).remaining(), 3);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn those_who_give_up_cost_the_others_nothing(callers in callers()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(hold(callers))?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_polled_holds_up_nobody() {
    for is_polled_once in [false, true] {
        let log = Log::new();
        let (mut client, pacer) = client(&log, one_call_in(Duration::from_secs(1)));
        client.call(request("/call?first")).await.unwrap();
        let mut idle = spawn(client.call(request("/call?idle")));
        if is_polled_once {
            assert_pending!(idle.poll());
        }
        let mut last = client.clone();
        timeout(Duration::from_secs(60), last.call(request("/call?last"))).await.unwrap().unwrap();
        // A quarter of a second after the idle call was dispatched, which has not used its unit.
        assert_at(log.elapsed(), Duration::from_millis(1250));

        // The idle call needs another unit then.
        assert_pending!(idle.poll());
        sleep(Duration::from_millis(1005)).await;
        assert_ready!(idle.poll()).unwrap();
        assert_eq!(log.targets(), ["/call?first", "/call?last", "/call?idle"]);
        let usage = usage_of_call(&pacer);
        assert_eq!((usage.waiting(), usage.unanswered(), usage.sent()), (0, 0, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_polled_late_are_no_burst_that_the_server_refuses() {
    // Twenty of them are dispatched within seven seconds, after which the bucket would have filled
    // up many times.
    let log = Log::new();
    let (mut client, pacer) = client(&log, ten_a_second());
    for _ in 0..3 {
        client.call(request("/call")).await.unwrap();
    }
    let mut idle: Vec<_> = (0..20).map(|_| spawn(client.call(request("/call")))).collect();
    for call in &mut idle {
        assert_pending!(call.poll());
    }
    settle().await;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(log.len(), 3);
    for _ in 0..2 {
        idle.retain_mut(|call| call.poll().is_pending());
        settle().await;
    }
    // As many are sent as the bucket has units now.
    assert_eq!((log.len(), usage_of_call(&pacer).remaining()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_not_polled_do_not_slow_the_others_down() {
    let log = Log::new();
    let pacer = Pacer::builder().evenly().build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    let mut idle: Vec<_> = (0..11).map(|_| spawn(client.call(request("/call")))).collect();
    assert_ready!(idle.remove(0).poll()).unwrap();
    for call in &mut idle {
        assert_pending!(call.poll());
    }
    let mut others = JoinSet::new();
    for _ in 0..50 {
        others.spawn(client.call(request("/call")));
    }
    timeout(Duration::from_secs(60), others.join_all()).await.unwrap();
    // At most as long as if the ten had been sent.
    let most = Duration::from_millis(120) * 60 + Duration::from_millis(250);
    assert!(log.elapsed() <= most, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn units_that_time_has_given_back_are_not_given_back_again() {
    let log = Log::new();
    let policy = Policy::bolna().quota("call", Quota::per_second(1000).burst(20)).build().unwrap();
    let pacer = Pacer::builder().policy(policy).jitter(Duration::ZERO).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    for _ in 0..20 {
        client.call(request("/call")).await.unwrap();
    }
    // Twenty are dispatched and not polled, while the bucket would have filled up many times.
    let mut idle: Vec<_> = (0..20).map(|_| spawn(client.call(request("/call")))).collect();
    for call in &mut idle {
        assert_pending!(call.poll());
    }
    sleep(Duration::from_millis(200)).await;
    let sent = log.len();
    let at_once = |client: &mut Pace<Remote>| {
        let mut calls: Vec<_> = (0..30).map(|_| spawn(client.call(request("/call")))).collect();
        for call in &mut calls {
            let _ = call.poll();
        }
    };
    at_once(&mut client);
    drop(idle);
    at_once(&mut client);
    assert!(log.len() - sent <= 20, "{} of a burst of 20", log.len() - sent);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_job_leaves_nothing_behind() {
    let log = Log::new();
    let (mut client, pacer) = client(&log, ten_a_second());
    for rest in [0, 1, 200] {
        let mut calls: Vec<_> = (0..1000).map(|_| spawn(client.call(request("/call")))).collect();
        for call in &mut calls {
            let _ = call.poll();
        }
        drop(calls.split_off(rest));
        settle().await;
        let usage = usage_of_call(&pacer);
        assert!(usage.waiting() <= rest && usage.unanswered() == 0, "{usage:?}");
        drop(calls);
        sleep(Duration::from_secs(1)).await;
        let usage = usage_of_call(&pacer);
        assert_eq!((usage.waiting(), usage.remaining(), usage.wait()), (0, 3, Duration::ZERO));
    }
}

/// A waker that drops a call when it is dropped itself, as the waker of a task does.
struct Task(#[expect(dead_code, reason = "it is kept only")] Mutex<BoxFuture>);

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_end_another_call_when_it_is_dropped() {
    let (done, is_done) = mpsc::channel();
    // If the client dropped the waker under its lock, dropping the call would wait for that lock
    // for ever.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let log = Log::new();
            let (mut client, pacer) = client(&log, one_call_in(Duration::from_secs(1)));
            client.call(request("/call")).await.unwrap();
            let mut wait = || -> BoxFuture {
                let call = client.call(request("/call"));
                Box::pin(async { drop(call.await) })
            };
            for is_polled_again in [true, false] {
                let (mut call, mut another) = (wait(), wait());
                assert!(
                    another.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
                );
                let waker = Waker::from(Arc::new(Task(Mutex::new(another))));
                assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                drop(waker);
                assert_eq!(usage_of_call(&pacer).waiting(), 2);
                if is_polled_again {
                    assert!(
                        call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
                    );
                    assert_eq!(usage_of_call(&pacer).waiting(), 1);
                }
                drop(call);
                assert_eq!(usage_of_call(&pacer).waiting(), 0);
            }
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}
