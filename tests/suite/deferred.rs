//! A store that answers later, as one beyond a network does.

use std::pin::Pin;

use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::store::{Answer, Bucket, MemoryStore, Store, StoreError};
use bolna_rate_limit::{Decision, Endpoint, Limiter, Policy, Principal};
use tokio::sync::watch;

/// Decides at once, and says so when it is released.
#[derive(Debug)]
pub(crate) struct DeferredStore {
    decides: MemoryStore<ManualClock>,
    answers: watch::Sender<Answers>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answers {
    NotYet,
    Decision,
    Failure,
}

impl DeferredStore {
    pub(crate) fn limiter(policy: Policy) -> Limiter<Self> {
        let decides = MemoryStore::with_clock(ManualClock::default());
        Limiter::with_store(policy, Self { decides, answers: watch::Sender::new(Answers::NotYet) })
    }

    pub(crate) fn now_answers(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// The number of checks that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.answers.receiver_count()
    }
}

impl Store for DeferredStore {
    type Check = Pin<Box<dyn Future<Output = Result<Decision, StoreError>> + Send>>;

    fn check(&self, bucket: Bucket<'_>) -> Answer<Self::Check> {
        let decision = self.decides.check(bucket).now().unwrap();
        let mut answers = self.answers.subscribe();
        Answer::Later(Box::pin(async move {
            match *answers.wait_for(|answers| *answers != Answers::NotYet).await.unwrap() {
                Answers::Failure => Err(StoreError::new("connection refused")),
                _ => decision,
            }
        }))
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        self.decides.peek(bucket).await
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.decides.reset(principal, endpoint).await
    }
}
