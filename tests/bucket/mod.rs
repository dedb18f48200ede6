//! Asks stores about one bucket, as most tests do.
#![allow(dead_code, reason = "not every test crate asks for all of it")]

use std::time::Duration;

use bolna_rate_limit::store::{self, Charge, Checked, Command, Entry, Store, StoreError};
use bolna_rate_limit::{Decision, Endpoint, Principal, Quota};

/// One bucket of a principal, measured by one quota.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<'a> {
    principal: &'a Principal,
    entry: Entry,
}

impl<'a> Bucket<'a> {
    pub(crate) fn new(principal: &'a Principal, endpoint: Endpoint, quota: Quota) -> Self {
        Self { principal, entry: Entry::new(endpoint, quota) }
    }

    /// A charge of one unit.
    pub(crate) const fn charge(&self) -> Charge<'_> {
        Charge::of_one(self.principal, &self.entry)
    }
}

/// What tests ask of a store, one bucket at a time.
pub(crate) trait OneBucket: Store {
    /// Waits for the decision about one unit.
    async fn check_one(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        one(self.check(bucket.charge()).wait().await)
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        let reply = self.command(Command::Peek(bucket.charge())).await?;
        one(Ok(reply.into_decisions().expect("a peek is answered with decisions")))
    }

    /// From 1 unit to the quota's burst.
    async fn refund(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let entry = bucket.entry.with_cost(units).expect("from 1 to the burst");
        self.command(Command::Refund(Charge::of_one(bucket.principal, &entry))).await.map(drop)
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.command(Command::Reset(store::Bucket::of_account(principal, endpoint))).await.map(drop)
    }

    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        self.command(Command::block(store::Bucket::of_account(principal, endpoint), period))
            .await
            .map(drop)
    }
}

impl<St: Store> OneBucket for St {}

/// The only decision of an answer about one bucket.
pub(crate) fn one(answer: Checked) -> Result<Decision, StoreError> {
    answer.map(|decisions| {
        let [decision] = decisions.as_slice() else { panic!("a decision for each entry") };
        assert_eq!(decisions.outcome().is_admitted(), decision.is_allowed());
        *decision
    })
}
