//! The lock of a group, its worker and its requests under the orders in which threads can take
//! their steps, with at most three preemptions of one thread by another: `scripts/loom`.
//!
//! Loom replaces the lock and the notification of the worker. The threads of these tests stand for
//! tasks: the worker's thread does what the task does, but a timer ends at once, since its time is
//! the test's own. Trusted and not replaced is the runtime, which runs a task that was spawned or
//! woken.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::endpoints::{Member, group_of};
use super::queue::{Polled, Ticket};
use super::settings::Settings;
use super::shared::Shared;
use super::state::{Arrival, Newcomer, Verdict};
use crate::client::max_wait::WaitOptions;
use crate::policy::Policy;
use crate::values::Quota;

const SECOND: u64 = 1_000_000_000;

/// Four requests at once, and then one in a second.
fn one_a_second() -> Policy {
    Policy::bolna().quota("call", Quota::per_second(1).burst(4)).build().expect("it is valid")
}

/// One request in flight.
fn one_in_flight() -> Policy {
    Policy::bolna().concurrent("call", 1).build().expect("it is valid")
}

/// A group and the time of the test, which the worker's timer moves on.
struct Test {
    shared: Shared,
    now: AtomicU64,
    arrivals: AtomicU64,
    timer: Timer,
}

/// Whether the worker's timer ends before the worker is notified.
#[derive(Clone, Copy, PartialEq)]
enum Timer {
    AtOnce,
    Never,
}

impl Test {
    /// All that can be has been sent, at 0 s.
    fn new(policy: &Policy, timer: Timer) -> Arc<Self> {
        let index = policy.index_of("/call").expect("the path is not exempt");
        let settings = Settings { jitter: Duration::ZERO, ..Settings::default() };
        let group = group_of(std::iter::once(&Member::of(&policy.rules()[index])), settings);
        let (now, arrivals) = (AtomicU64::new(0), AtomicU64::new(0));
        let test = Self { shared: Shared::new(group), now, arrivals, timer };
        while test.shared.lock().pass(0, 0, false) {}
        Arc::new(test)
    }

    fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// A request arrives, which has read the clock at 0 s. Returns `None` if it was sent at once.
    fn arrive(&self) -> Option<Ticket> {
        let mut group = self.shared.lock();
        if group.pass(0, 0, false) {
            return None;
        }
        let newcomer = Newcomer {
            number: self.arrivals.fetch_add(1, Relaxed),
            options: WaitOptions::default(),
            again: None,
            path: "/call".into(),
        };
        let (arrival, is_news) = group.wait(0, 0, newcomer);
        drop(group);
        if is_news {
            self.shared.notify();
        }
        let Arrival::Waits { ticket, .. } = arrival else { panic!("the queue has room") };
        Some(ticket)
    }

    /// Polls the request until it is sent. Starts a worker whenever there is none.
    fn live(self: &Arc<Self>, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let (task, mut workers) = (Task::new(), Vec::new());
        loop {
            let mut waker = task.waker();
            let (polled, lacks_worker) = self.shared.poll(0, ticket, &mut waker);
            if lacks_worker && self.shared.wants_worker() {
                let test = Arc::clone(self);
                workers.push(thread::spawn(move || test.work()));
            }
            match polled {
                Polled::Dispatched if self.send(ticket, &task) => break,
                Polled::Dispatched => {}
                _ => task.wait(),
            }
        }
        workers.into_iter().for_each(|worker| worker.join().expect("no worker panics"));
    }

    /// Sends a request, or returns `false` if it has lapsed.
    fn send(&self, ticket: Ticket, task: &Arc<Task>) -> bool {
        let mut group = self.shared.lock();
        let (state, pairs) = group.endpoint(0);
        let (verdict, _waker) = state.send(pairs, ticket, self.now(), false, &mut task.waker());
        drop(group);
        assert_ne!(verdict, Verdict::Hold, "none is sent late");
        verdict == Verdict::Go
    }

    /// What the worker's task does.
    fn work(&self) {
        let mut woken = Vec::new();
        loop {
            let (next, _) = self.shared.step(self.now(), &mut woken);
            woken.drain(..).for_each(Waker::wake);
            match (next, self.timer) {
                (None, _) => break,
                // By then all units have come back.
                (Some(next), Timer::AtOnce) => self.now.store(next + 10 * SECOND, Relaxed),
                // This blocks the thread.
                (Some(_), Timer::Never) => drop(self.shared.changed().now_or_never()),
            }
        }
    }

    /// None waits, no worker runs, and so many units are left.
    fn assert_at_rest(&self, left: u32) {
        let mut group = self.shared.lock();
        assert!(!group.has_worker);
        let usage = group.usage(0, self.now());
        assert_eq!((usage.waiting(), usage.remaining()), (0, left));
    }
}

/// The task of a request, as far as it is woken.
struct Task {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Task {
    fn new() -> Arc<Self> {
        Arc::new(Self { is_woken: Mutex::new(false), changed: Condvar::new() })
    }

    fn waker(self: &Arc<Self>) -> Option<Waker> {
        Some(Waker::from(Arc::clone(self)))
    }

    fn wait(&self) {
        let mut is_woken = self.is_woken.lock().expect("no test panics under the lock");
        while !*is_woken {
            is_woken = self.changed.wait(is_woken).expect("... nor here");
        }
        *is_woken = false;
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().expect("no test panics under the lock") = true;
        self.changed.notify_one();
    }
}

/// Runs `test` for every order of steps. With more than three preemptions of one thread by another
/// there would be too many orders.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn a_request_that_arrives_while_the_worker_ends_is_dispatched() {
    model(|| {
        let test = Test::new(&one_a_second(), Timer::AtOnce);
        let other = thread::spawn({
            let test = Arc::clone(&test);
            move || test.live(test.arrive())
        });
        test.live(test.arrive());
        other.join().expect("no request panics");
        test.assert_at_rest(2);
    });
}

#[test]
fn a_permit_that_is_given_back_while_the_worker_looks_for_one_wakes_it() {
    model(|| {
        let test = Test::new(&one_in_flight(), Timer::Never);
        let response = thread::spawn({
            let test = Arc::clone(&test);
            move || {
                let mut group = test.shared.lock();
                let (state, pairs) = group.endpoint(0);
                state.abandon(pairs, 0);
                let is_news = group.has_waiting();
                drop(group);
                if is_news {
                    test.shared.notify();
                }
            }
        });
        test.live(test.arrive());
        response.join().expect("no response panics");
        test.assert_at_rest(0);
    });
}

#[test]
fn a_request_that_is_dropped_while_it_is_dispatched_leaves_its_units_to_the_next() {
    model(|| {
        let test = Test::new(&one_a_second(), Timer::AtOnce);
        let (dropped, stays) = (test.arrive().expect("it waits"), test.arrive());
        let drops = thread::spawn({
            let test = Arc::clone(&test);
            move || {
                let mut group = test.shared.lock();
                let (state, pairs) = group.endpoint(0);
                let (is_sooner, waker) = state.leave(pairs, dropped);
                drop(group);
                drop(waker);
                if is_sooner {
                    test.shared.notify();
                }
            }
        });
        test.live(stays);
        drops.join().expect("no drop panics");
        test.assert_at_rest(3);
    });
}

#[test]
fn a_worker_that_is_dropped_with_its_runtime_is_replaced() {
    model(|| {
        let test = Test::new(&one_a_second(), Timer::AtOnce);
        let ticket = test.arrive();
        // The worker of a runtime that ends before the first step.
        assert!(test.shared.wants_worker());
        let runtime = thread::spawn({
            let test = Arc::clone(&test);
            move || test.shared.lose_worker()
        });
        test.live(ticket);
        runtime.join().expect("the runtime ends");
        test.assert_at_rest(3);
    });
}
