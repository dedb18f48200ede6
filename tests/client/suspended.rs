//! A process that does not run for a while: it is stopped, its container is paused, or the machine is
//! suspended.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, WaitError};
use bolna_rate_limit::{Policy, Quota};
use tokio::time::advance;
use tower::Layer;

use crate::support::{
    Log, assert_all_ok, generous, one_call_in, send, send_calls, settle, usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn requests_that_wait_while_the_process_does_not_run_are_sent_afterwards() {
    let log = Log::new();
    let client = BolnaClientLayer::with_policy(one_call_in(Duration::from_secs(10)));
    let client = client.layer(generous(&log));
    let calls: Vec<_> = (0..20).map(|number| send(&client, &format!("/call?{number}"))).collect();
    settle().await;
    // Twice, since the deadlines have to be moved as often as that happens.
    for sent in [1, 2] {
        assert_eq!(log.len(), sent);
        // No task runs while the clock goes on.
        advance(HOUR).await;
        settle().await;
    }
    // One is sent at once, and the others as if the process had run.
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let least = 2 * HOUR + Duration::from_secs(170);
    assert!(log.elapsed() <= least + Duration::from_secs(10), "{:?}", log.elapsed());
    assert_eq!(usage_of_call(client.pacer()).unsent(), 0);
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_process_runs_counts_as_a_wait_also_after_it_was_stopped() {
    let log = Log::new();
    let pacer = Pacer::builder()
        .policy(one_call_in(Duration::from_secs(10)))
        .max_wait(Duration::from_secs(25))
        .build()
        .unwrap();
    let client = PaceLayer::new(pacer).layer(generous(&log));
    let waiting: Vec<_> = (0..3).map(|_| send(&client, "/call")).collect();
    settle().await;
    advance(HOUR).await;
    settle().await;
    // One waits for 10 s more. Another one may wait for 20 s, and a third would wait for 30 s.
    let later = send(&client, "/call");
    settle().await;
    let error = send(&client, "/call").await.unwrap().unwrap_err();
    assert_eq!(error.downcast::<WaitError>().unwrap().wait().as_secs(), 30);
    for call in waiting.into_iter().chain([later]) {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_place_while_the_process_does_not_run_are_sent_afterwards() {
    let log = Log::new();
    let policy = Policy::bolna().concurrent("call", 1).build().unwrap();
    let client = BolnaClientLayer::with_policy(policy).layer(generous(&log));
    let permit = client.pacer().acquire("/call").await.unwrap();
    let waiting = send(&client, "/call");
    settle().await;
    advance(HOUR).await;
    // The answer for which it waits has arrived in the meantime, and is read after the worker runs.
    settle().await;
    drop(permit);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_error_never_says_that_the_wait_is_zero() {
    let log = Log::new();
    let policy = Policy::bolna().quota("call", Quota::per_second(1).burst(2)).build().unwrap();
    let pacer = Pacer::builder().policy(policy).max_waiting(1).build().unwrap();
    let client = PaceLayer::new(pacer).layer(generous(&log));
    assert_all_ok(&send_calls(&client, 1).await);
    // It is due, but its future is not polled, and the queue has no room for another one.
    let mut unpolled = client.clone();
    let _unpolled: Vec<_> = (0..2)
        .map(|_| tower::Service::call(&mut unpolled, crate::support::request("/call")))
        .collect();
    advance(Duration::from_secs(10)).await;
    let error = send(&client, "/call").await.unwrap().unwrap_err();
    let error = error.downcast::<WaitError>().unwrap();
    assert!(error.is_full() && error.wait() > Duration::ZERO, "{error:?}");
    assert!(!error.to_string().contains("0.0ns"), "{error}");
}

/// The variable that tells this program to be the process that is stopped.
const CHILD: &str = "BOLNA_SUSPENDED_CHILD";

/// In a process of its own: twelve calls, one every 100 ms, that may wait for 2 s.
#[test]
#[ignore = "it is the other process of the test below"]
fn twelve_calls_of_a_process_that_is_stopped() {
    assert!(env::var_os(CHILD).is_some(), "the test below starts it");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let log = Log::new();
        let quota = Quota::per_second(10).burst(1);
        let policy = Policy::bolna().quota("call", quota).build().unwrap();
        let pacer = Pacer::builder().policy(policy).max_wait(Duration::from_secs(2));
        let client = BolnaClientLayer::with_pacer(pacer.build().unwrap()).layer(generous(&log));
        let calls: Vec<_> = (0..12).map(|_| send(&client, "/call")).collect();
        tokio::time::sleep(Duration::from_millis(150)).await;
        println!("they wait");
        for call in calls {
            match call.await.unwrap() {
                Ok(status) => println!("answer: {status}"),
                Err(error) => println!("answer: {error}"),
            }
        }
    });
}

fn signal(child: &Child, signal: &str) {
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[cfg(unix)]
#[test]
fn a_process_that_is_stopped_for_longer_than_its_requests_may_wait_loses_none() {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "suspended::twelve_calls_of_a_process_that_is_stopped"])
        .args(["--ignored", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("they wait")).expect("the process says that its calls wait");
    signal(&child, "-STOP");
    thread::sleep(Duration::from_secs(4));
    signal(&child, "-CONT");
    let answers: Vec<_> = lines.filter(|line| line.contains("answer: ")).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(answers.len(), 12);
    assert!(answers.iter().all(|answer| answer.contains("200 OK")), "{answers:#?}");
}
