//! The fallback: what decides a request when the server can't.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::link::LinkCheck;
use super::shards::Shards;
use crate::store::{
    Answer, BreakerCall, Charge, Checked, Command, Concluding, FallbackCall, LocalFallback, Reply,
    Store, StoreError, StoreListener, StoreReport,
};

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
            check: Concluding<Concluding<LinkCheck, BreakerCall>, FallbackCall>,
        },
        Failing {
            #[pin]
            check: Concluding<LinkCheck, BreakerCall>,
        },
    }
}

impl Store for Ladder {
    type Check = LadderCheck;

    fn check(&self, charge: Charge<'_>) -> Answer<LadderCheck> {
        match self {
            Self::Counting(store) => match store.check(charge) {
                Answer::Now(answer) => Answer::Now(answer),
                Answer::Later(check) => Answer::Later(LadderCheck::Counting { check }),
            },
            Self::Failing(store) => match store.check(charge) {
                Answer::Now(answer) => Answer::Now(answer),
                Answer::Later(check) => Answer::Later(LadderCheck::Failing { check }),
            },
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match self {
            Self::Counting(store) => store.command(command).await,
            Self::Failing(store) => store.command(command).await,
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
}

impl Future for LadderCheck {
    type Output = Checked;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            LadderCheckProjection::Counting { check } => check.poll(cx),
            LadderCheckProjection::Failing { check } => check.poll(cx),
        }
    }
}
