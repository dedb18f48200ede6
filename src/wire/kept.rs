//! What is rendered once and kept for the life of the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::fields;
use super::problem;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// Values of `RateLimit` are kept for remainders below this; beyond, they are written afresh for each response.
const REMAINDERS: u32 = 4096;

/// All quotas that are kept have at most this many remainders together, at about 100 bytes each once they have occurred:
/// some fifty policies of the size of Bolna's. The quotas of later ones are rendered afresh for each response.
const ALL_REMAINDERS: u32 = 1 << 17;

/// The texts of one endpoint's responses while one quota is in force.
///
/// They are statics, and so never freed: a value that is shared in any other way has a reference count, which every
/// request of an endpoint would write, on whatever core it runs.
pub(crate) struct Kept {
    pub(super) policy: HeaderValue,
    /// The `RateLimit` value for each remainder, which determines it (but for a last unit that takes over a second).
    limits: OnceLock<Box<[OnceLock<HeaderValue>]>>,
    /// The body of a refusal that asks for one second, as nearly all do.
    body: OnceLock<Bytes>,
    /// That refusal.
    refusal: OnceLock<Response<Bytes>>,
}

/// The texts of all endpoints and quotas that have been asked for, while there was room.
static ALL: RwLock<Option<All>> = RwLock::new(None);

#[derive(Default)]
struct All {
    texts: HashMap<(Endpoint, Quota), &'static Kept>,
    remainders: u32,
}

impl Kept {
    /// The texts for that endpoint and quota, or `None` if too many are kept already.
    pub(crate) fn of(endpoint: Endpoint, quota: Quota) -> Option<&'static Self> {
        // Nothing is done to it in two steps, so a poisoned lock guards nothing broken.
        let known =
            ALL.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|all| all.get(endpoint, quota));
        known.or_else(|| {
            let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
            all.get_or_insert_default().keep(endpoint, quota)
        })
    }

    /// The value of `RateLimit`, if it is one that is kept.
    #[inline]
    pub(super) fn limit(&self, decision: &Decision) -> Option<&HeaderValue> {
        let remaining = decision.remaining();
        let limit = self.limits(decision).get(remaining as usize)?;
        if remaining == 0 && fields::seconds_until_one(decision) != 1 {
            return None;
        }
        Some(limit.get_or_init(|| kept_value(fields::limit(decision))))
    }

    #[inline]
    fn limits(&self, decision: &Decision) -> &[OnceLock<HeaderValue>] {
        self.limits.get_or_init(|| {
            let remainders = decision.quota().burst().min(REMAINDERS);
            (0..remainders).map(|_| OnceLock::new()).collect()
        })
    }

    /// The body of a refusal that asks for one second.
    pub(super) fn body(&self, decision: &Decision) -> Bytes {
        self.body.get_or_init(|| Bytes::from_static(problem::limited(decision, 1).leak().as_bytes())).clone()
    }

    /// A refusal that asks for one second, rendered by the first.
    pub(super) fn refusal(&self, render: impl FnOnce() -> Response<Bytes>) -> &Response<Bytes> {
        self.refusal.get_or_init(render)
    }
}

impl All {
    fn get(&self, endpoint: Endpoint, quota: Quota) -> Option<&'static Kept> {
        self.texts.get(&(endpoint, quota)).copied()
    }

    fn keep(&mut self, endpoint: Endpoint, quota: Quota) -> Option<&'static Kept> {
        if let Some(kept) = self.get(endpoint, quota) {
            return Some(kept);
        }
        let remainders = self.remainders + quota.burst().min(REMAINDERS);
        if remainders > ALL_REMAINDERS {
            return None;
        }
        let kept: &'static Kept = Box::leak(Box::new(Kept {
            policy: kept_value(fields::policy(endpoint, quota)),
            limits: OnceLock::new(),
            body: OnceLock::new(),
            refusal: OnceLock::new(),
        }));
        self.remainders = remainders;
        self.texts.insert((endpoint, quota), kept);
        Some(kept)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn kept_value(text: String) -> HeaderValue {
    HeaderValue::from_static(text.leak())
}

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::time::Duration;

    use http::{HeaderMap, Request};

    use super::{ALL_REMAINDERS, All, Kept, REMAINDERS};
    use crate::decision::Decision;
    use crate::endpoint::Endpoint;
    use crate::quota::Quota;
    use crate::wire::{Cause, Fields, Format, Refusal};

    #[test]
    fn what_is_kept_is_bounded_and_kept_once() {
        let mut all = All::default();
        let quota = |limit| Quota::per_minute(limit).build().expect("the quota is valid");
        let kept = |all: &mut All| all.keep(Endpoint::CALL, quota(1)).expect("there was room");
        let first = kept(&mut all);
        let more = (0..).take_while(|more| all.keep(Endpoint::CALL, quota(REMAINDERS + more)).is_some()).count();
        assert_eq!(more, (ALL_REMAINDERS / REMAINDERS) as usize - 1);
        assert!(ptr::eq(kept(&mut all), first));
    }

    #[test]
    fn what_is_not_kept_is_rendered_alike() {
        let quota = Quota::per_minute(30).burst(3).build().expect("the quota is valid");
        let kept = Kept::of(Endpoint::CALL, quota);
        assert!(kept.is_some());
        let format = Format::default();
        for debt in (0..=7000).step_by(250).map(Duration::from_millis) {
            let allowed = Decision::allowed(Endpoint::CALL, quota, debt);
            let limited = Decision::limited(Endpoint::CALL, quota, debt);
            let fields = |kept, decision| {
                let mut headers = HeaderMap::new();
                Fields::new(kept, decision, format).append_to(&mut headers);
                headers
            };
            for decision in [&allowed, &limited] {
                assert_eq!(fields(kept, decision), fields(None, decision), "{decision:?}");
            }
            let refusal = |kept| {
                let request = Request::new(());
                let (head, body) = Refusal::new(&request, Cause::Limited(limited, kept))
                    .answer(None, format)
                    .into_response()
                    .into_parts();
                (head.status, head.headers, body)
            };
            assert_eq!(refusal(kept), refusal(None), "{limited:?}");
        }
    }
}
