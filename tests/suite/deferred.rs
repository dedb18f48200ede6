//! A store that answers later, as a store beyond a network does.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bolna_rate_limit::store::{
    Answer, Capabilities, Charge, Checked, Command, MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Limiter, Policy};
use tokio::sync::watch;

use crate::support::quiet;

/// A store that decides at once, but answers only when it is told to.
#[derive(Debug)]
pub(crate) struct DeferredStore {
    decides: Arc<MemoryStore<ManualClock>>,
    answers: watch::Sender<Answers>,
    asked: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answers {
    NotYet,
    Decision,
    Failure,
    FailureOfRequest,
    DecisionAtOnce,
    FailureAtOnce,
}

impl DeferredStore {
    pub(crate) fn limiter(policy: Policy) -> Limiter<Self> {
        let store = Self::before(Arc::new(MemoryStore::with_clock(ManualClock::default())));
        quiet(Limiter::with_store(policy, store).unwrap())
    }

    /// The connection of one replica to the store that all replicas share.
    pub(crate) fn before(decides: Arc<MemoryStore<ManualClock>>) -> Self {
        Self { decides, answers: watch::Sender::new(Answers::NotYet), asked: AtomicUsize::new(0) }
    }

    /// A store of its own that answers in this way.
    pub(crate) fn that(answers: Answers, clock: &ManualClock) -> Arc<Self> {
        let store = Self::before(Arc::new(MemoryStore::with_clock(clock.clone())));
        store.now_answers(answers);
        Arc::new(store)
    }

    pub(crate) fn now_answers(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// The number of checks that wait for their answer.
    pub(crate) fn waiting(&self) -> usize {
        self.answers.receiver_count()
    }

    /// The number of checks since the last call of this method.
    pub(crate) fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }

    fn answer<T>(answers: Answers, decided: Result<T, StoreError>) -> Result<T, StoreError> {
        match answers {
            Answers::Failure | Answers::FailureAtOnce => Err(refused()),
            Answers::FailureOfRequest => Err(StoreError::of_request("too many at once")),
            Answers::NotYet | Answers::Decision | Answers::DecisionAtOnce => decided,
        }
    }
}

/// A store that is lost.
pub(crate) fn lost_store() -> Arc<DeferredStore> {
    DeferredStore::that(Answers::FailureAtOnce, &ManualClock::new())
}

/// An error with a source.
fn refused() -> StoreError {
    #[derive(Debug)]
    struct Refused(io::Error);
    impl fmt::Display for Refused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("connection refused")
        }
    }
    impl Error for Refused {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    StoreError::new(Refused(io::Error::other("nothing listens")))
}

impl Store for DeferredStore {
    type Check = Pin<Box<dyn Future<Output = Checked> + Send>>;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answers = *self.answers.borrow();
        // A check that does not reach the store is not charged.
        let decided = match answers {
            Answers::NotYet | Answers::Decision | Answers::DecisionAtOnce => {
                self.decides.check(charge).now().unwrap()
            }
            _ => Err(StoreError::new("not asked")),
        };
        if matches!(answers, Answers::DecisionAtOnce | Answers::FailureAtOnce) {
            return Answer::Now(Self::answer(answers, decided));
        }
        let mut released = self.answers.subscribe();
        Answer::Later(Box::pin(async move {
            let answers = match answers {
                Answers::NotYet => {
                    *released.wait_for(|answers| *answers != Answers::NotYet).await.unwrap()
                }
                answers => answers,
            };
            Self::answer(answers, decided)
        }))
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        let answers = *self.answers.borrow();
        Self::answer(answers, Ok(()))?;
        self.decides.command(command).await
    }

    fn capabilities(&self) -> Capabilities {
        self.decides.capabilities()
    }
}
