//! One replica: a process that sends requests and says what is admitted.

use std::io::Read;
use std::time::Duration;
use std::{env, thread};

use bolna_rate_limit::store::{RedisStore, Store, StoreEvent, StoreListener};
use bolna_rate_limit::{Account, Limiter};
use tokio::sync::watch;

use super::traffic::{CALLERS, Caller, QUOTAS, REPLICAS, nanos_of_day, policy};

/// The variable that names the server. It is set only in the processes that are replicas.
pub(super) const SERVER: &str = "BOLNA_BOUNDS_SERVER";

/// The beginning of each line that a replica writes: the test harness writes other lines.
pub(super) const MARK: &str = "replica: ";

/// What begins with a [`MARK`] is on a line of its own.
macro_rules! say {
    ($($what:tt)*) => {
        println!("\n{MARK}{}", format_args!($($what)*))
    };
}

/// Is a replica until the end of standard input, if this process was started to be one. Returns
/// whether it was.
pub(crate) fn run_if_asked() -> bool {
    let Ok(server) = env::var(SERVER) else { return false };
    let (stop, stopped) = watch::channel(false);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = stop.send(true);
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(run(&server, stopped));
    true
}

async fn run(server: &str, mut stopped: watch::Receiver<bool>) {
    let store = RedisStore::builder(server).expected_replicas(REPLICAS).connect().await.unwrap();
    store.subscribe(StoreListener::new(|event| match event {
        StoreEvent::Lost { kind, .. } => say!("lost {} {kind}", nanos_of_day()),
        StoreEvent::Regained { .. } => say!("regained {}", nanos_of_day()),
        _ => {}
    }));
    let limiter =
        Limiter::with_store(policy(), store).expect("the store can do what the policy asks for");
    say!("ready {}", nanos_of_day());
    let sending: Vec<_> =
        CALLERS.into_iter().map(|caller| tokio::spawn(send(limiter.clone(), caller))).collect();
    let _ = stopped.wait_for(|stopped| *stopped).await;
    sending.iter().for_each(tokio::task::JoinHandle::abort);
    // Leaves time to charge back what is owed, which is done in the background.
    for _ in 0..100 {
        if limiter.store().report().owed == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report = limiter.store().report();
    say!("ended {} {}", report.fallbacks, report.owed);
}

async fn send(limiter: Limiter<RedisStore>, caller: Caller) {
    let account = Account::user(caller.name());
    loop {
        for (path, _) in QUOTAS {
            let ruling = limiter.check(&account, path).unwrap().wait().await.unwrap();
            if ruling.is_admitted() {
                say!("admitted {} {}{path}", nanos_of_day(), caller.name());
            }
        }
        tokio::time::sleep(caller.pause()).await;
    }
}
