//! The fallback: what decides a request when the server can't.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::link::LinkCheck;
use super::shards::Shards;
use crate::store::{
    Answer, BreakerCheck, Bucket, LocalFallback, LocalFallbackCheck, Store, StoreError,
    StoreListener, StoreReport,
};
use crate::values::{Decision, Endpoint, Principal};

pub(super) enum Ladder {
    /// This process charges its own buckets, with its share of the limit.
    Counting(LocalFallback<Shards>),
    /// There is no fallback: the check fails, and the layer does with the request what the operator
    /// has chosen.
    Failing(Shards),
}

pin_project! {
    #[project = LadderCheckProjection]
    pub(super) enum LadderCheck {
        Counting {
            #[pin]
            check: LocalFallbackCheck<BreakerCheck<LinkCheck>>,
        },
        Failing {
            #[pin]
            check: BreakerCheck<LinkCheck>,
        },
    }
}

impl Store for Ladder {
    type Check = LadderCheck;

    fn check(&self, bucket: Bucket<'_>) -> Answer<LadderCheck> {
        match self {
            Self::Counting(store) => match store.check(bucket) {
                Answer::Now(answer) => Answer::Now(answer),
                Answer::Later(check) => Answer::Later(LadderCheck::Counting { check }),
            },
            Self::Failing(store) => match store.check(bucket) {
                Answer::Now(answer) => Answer::Now(answer),
                Answer::Later(check) => Answer::Later(LadderCheck::Failing { check }),
            },
        }
    }

    fn report(&self) -> StoreReport {
        match self {
            Self::Counting(store) => store.report(),
            Self::Failing(store) => store.report(),
        }
    }

    fn subscribe(&self, listener: StoreListener) {
        match self {
            Self::Counting(store) => store.subscribe(listener),
            Self::Failing(store) => store.subscribe(listener),
        }
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        match self {
            Self::Counting(store) => store.peek(bucket).await,
            Self::Failing(store) => store.peek(bucket).await,
        }
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        match self {
            Self::Counting(store) => store.reset(principal, endpoint).await,
            Self::Failing(store) => store.reset(principal, endpoint).await,
        }
    }

    async fn refund(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        match self {
            Self::Counting(store) => store.refund(bucket, units).await,
            Self::Failing(store) => store.refund(bucket, units).await,
        }
    }

    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        match self {
            Self::Counting(store) => store.block(principal, endpoint, period).await,
            Self::Failing(store) => store.block(principal, endpoint, period).await,
        }
    }
}

impl Future for LadderCheck {
    type Output = Result<Decision, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            LadderCheckProjection::Counting { check } => check.poll(cx),
            LadderCheckProjection::Failing { check } => check.poll(cx),
        }
    }
}
