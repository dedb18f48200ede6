//! A store answers in time wherever it was made and wherever its checks are waited for.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bolna_rate_limit::store::{RedisStore, Store};
use bolna_rate_limit::{Decision, Limiter};
use redis::InfoDict;
use tokio::runtime::{Builder, Runtime};

use crate::servers::{Server, until, when};
use crate::support::{DEADLINE, organization, slow, store};

/// The time that a busy machine may add.
const MARGIN: Duration = Duration::from_millis(300);

const BURST: u32 = 1000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future outside of any runtime.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// On another thread, which has no runtime either.
fn check(limiter: &Limiter<RedisStore>) -> Decision {
    let limiter = limiter.clone();
    let checked = thread::spawn(move || {
        let began = Instant::now();
        let ruling =
            wait(limiter.check(&(&organization("acme")).into(), "/").unwrap().wait()).unwrap();
        assert!(began.elapsed() < DEADLINE + MARGIN, "{:?}", began.elapsed());
        *ruling.decision().unwrap()
    });
    checked.join().unwrap()
}

fn by_server(decision: Decision) -> bool {
    decision.quota().burst() == BURST
}

/// Asserts that the server answers, that a suspended one is done without, and that the connection
/// ends with the store. `runtime` drives the test's own questions to the server.
fn assert_answers(store: RedisStore, server: &Server, runtime: &Runtime) {
    let limiter =
        Limiter::with_store(slow(BURST), store).expect("the store can do what the policy asks for");
    for left in (0..10).map(|spent| BURST - 1 - spent) {
        let decision = check(&limiter);
        assert_eq!((by_server(decision), decision.remaining()), (true, left));
    }
    server.suspend();
    assert!(!by_server(check(&limiter)));
    // Long enough for a probe to fail.
    thread::sleep(Duration::from_secs(2));
    assert!(!by_server(check(&limiter)));
    server.resume();
    runtime.block_on(async {
        until("the server decides", async || {
            let decision = check(&limiter);
            when(by_server(decision), decision)
        })
        .await;
    });
    let connections = async || -> u32 {
        let info: InfoDict = server.command(&["INFO", "clients"]).await.unwrap();
        info.get("connected_clients").unwrap()
    };
    runtime.block_on(async {
        assert_eq!(connections().await, 2, "the store's, and the one that asks");
        drop(limiter);
        until("the store's connection is closed", async || {
            let connections = connections().await;
            when(connections == 1, connections)
        })
        .await;
    });
}

fn of_one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_runtime_of_the_current_thread_that_is_not_driven_any_more() {
    let (runtime, makes) = (of_one_thread(), of_one_thread());
    let server = runtime.block_on(Server::start());
    let store = makes.block_on(store(server.url()).connect()).unwrap();
    // It is there, and nothing runs on it.
    assert_answers(store, &server, &runtime);
    drop(makes);
}

#[test]
fn a_runtime_of_the_current_thread_that_was_shut_down() {
    let (runtime, makes) = (of_one_thread(), of_one_thread());
    let server = runtime.block_on(Server::start());
    let store = makes.block_on(store(server.url()).connect()).unwrap();
    drop(makes);
    assert_answers(store, &server, &runtime);
}

#[test]
fn no_runtime_at_all() {
    let runtime = of_one_thread();
    let server = runtime.block_on(Server::start());
    let store = wait(store(server.url()).connect()).unwrap();
    assert_answers(store, &server, &runtime);
}

#[test]
fn a_runtime_with_threads() {
    let (runtime, makes) = (of_one_thread(), Builder::new_multi_thread().enable_all().build());
    let (server, makes) = (runtime.block_on(Server::start()), makes.unwrap());
    let store = makes.block_on(store(server.url()).connect()).unwrap();
    assert_answers(store, &server, &runtime);
}

/// Its tasks end with it, and there is nothing that could connect again.
#[test]
fn a_runtime_with_threads_that_was_shut_down() {
    let (runtime, makes) = (of_one_thread(), Builder::new_multi_thread().enable_all().build());
    let (server, makes) = (runtime.block_on(Server::start()), makes.unwrap());
    let store = makes.block_on(store(server.url()).connect()).unwrap();
    drop(makes);
    let limiter =
        Limiter::with_store(slow(BURST), store).expect("the store can do what the policy asks for");
    assert!(!by_server(check(&limiter)));
    assert_eq!(limiter.store().report().open_breakers, 1);
}
