//! Callers that wait for their response, and callers that do not.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{sleep, timeout};

/// What a caller does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    Stays,
    /// Drops the call after that time without having polled it.
    NeverPolls(Duration),
    /// Drops the call after that time.
    Leaves(Duration),
    /// Drops the call when it is woken, instead of polling it.
    DropsWhenWoken,
    /// Does not poll the call again before that time.
    Dawdles(Duration),
}

pub(crate) fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let time = || (0..3000_u64).prop_map(Duration::from_millis);
    let caller = prop_oneof![
        3 => Just(Caller::Stays),
        1 => time().prop_map(Caller::NeverPolls),
        2 => time().prop_map(Caller::Leaves),
        1 => Just(Caller::DropsWhenWoken),
        1 => time().prop_map(Caller::Dawdles),
    ];
    // The callers that stay are served for longer than any other caller leaves its call unpolled.
    prop::collection::vec(caller, 0..80).prop_map(|mut callers| {
        callers.extend([Caller::Stays; 50]);
        callers
    })
}

impl Caller {
    /// Whether the call was answered.
    pub(crate) async fn call<F: Future<Output = bool>>(self, call: F) -> bool {
        match self {
            Self::Stays => call.await,
            Self::NeverPolls(time) => {
                sleep(time).await;
                false
            }
            Self::Leaves(time) => timeout(time, call).await.unwrap_or_default(),
            Self::DropsWhenWoken => {
                let mut call = pin!(call);
                let mut is_woken = false;
                poll_fn(|cx| {
                    if is_woken {
                        return Poll::Ready(false);
                    }
                    is_woken = true;
                    call.as_mut().poll(cx)
                })
                .await
            }
            Self::Dawdles(time) => {
                let mut call = pin!(call);
                let answer = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                match answer {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => {
                        sleep(time).await;
                        call.await
                    }
                }
            }
        }
    }
}
