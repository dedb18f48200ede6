//! A store beyond a network.

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bolna_rate_limit::store::{
    Answer, Capabilities, Charge, Checked, Command, MemoryStore, Reply, Store, StoreError,
    StoreReport,
};

/// A store that answers later, as one beyond a network does, and fails on demand.
#[derive(Clone)]
pub(crate) struct Distant {
    store: Arc<MemoryStore>,
    fails: Arc<AtomicBool>,
    /// The sweeps in the next reports. The last element is used first.
    sweeps: Arc<Mutex<Vec<u64>>>,
}

impl Distant {
    pub(crate) fn new() -> Self {
        Self { store: Arc::default(), fails: Arc::default(), sweeps: Arc::default() }
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) fn sweep(&self, sweeps: Vec<u64>) {
        *self.sweeps.lock().unwrap() = sweeps;
    }

    fn answer<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if self.fails.load(Ordering::SeqCst) { Err(StoreError::new("it is down")) } else { answer }
    }
}

impl Store for Distant {
    type Check = Ready<Checked>;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        let answer = self.store.check(charge).now().unwrap();
        Answer::Later(ready(self.answer(answer)))
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn report(&self) -> StoreReport {
        let mut report = StoreReport::default();
        report.sweeps = self.sweeps.lock().unwrap().pop().unwrap_or_default();
        report
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        let reply = self.store.command(command).await;
        self.answer(reply)
    }
}
