//! How retries learn that the pause for whose end they wait was ended by hand.

use std::collections::HashMap;
use std::future::pending;

use tokio::sync::watch;

use crate::values::Endpoint;

/// Tells retries when the pauses of their endpoints are ended by hand.
#[derive(Debug, Default)]
pub(in crate::client) struct Resumptions {
    times: watch::Sender<Times>,
}

/// How often pauses were ended: those of all endpoints together, and those of single ones.
#[derive(Debug, Default)]
struct Times {
    all: u64,
    single: HashMap<Endpoint, u64>,
}

impl Times {
    fn of(&self, endpoint: Endpoint) -> u64 {
        self.all + self.single.get(&endpoint).copied().unwrap_or(0)
    }
}

impl Resumptions {
    /// The pauses of these endpoints are ended.
    pub(in crate::client) fn resume(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.times.send_modify(|times| {
            endpoints.into_iter().for_each(|it| *times.single.entry(it).or_default() += 1);
        });
    }

    /// The pauses of all endpoints are ended, also of those that are not in the policy any more.
    pub(in crate::client) fn resume_all(&self) {
        self.times.send_modify(|times| times.all += 1);
    }

    /// The next time at which the pauses of this endpoint are ended.
    pub(in crate::client) fn next(&self, endpoint: Endpoint) -> Resumption {
        let times = self.times.subscribe();
        let before = times.borrow().of(endpoint);
        Resumption { times, endpoint, before }
    }
}

/// The next time at which the pauses of an endpoint are ended by hand.
#[derive(Clone, Debug)]
pub(in crate::client) struct Resumption {
    times: watch::Receiver<Times>,
    endpoint: Endpoint,
    /// How often they had been ended before.
    before: u64,
}

impl Resumption {
    /// Whether they have been ended.
    pub(super) fn has_come(&self) -> bool {
        self.times.borrow().of(self.endpoint) != self.before
    }

    /// Waits until they are ended.
    pub(super) async fn come(self) {
        let Self { mut times, endpoint, before } = self;
        let has_come = times.wait_for(|times| times.of(endpoint) != before).await.is_ok();
        if !has_come {
            // Without a pacer, no pause is ended by hand any more.
            pending::<()>().await;
        }
    }
}
