//! What is rendered once and kept for the life of the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::fields::{self, Dialect, Format};
use super::problem::Limited;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// Values of `RateLimit` are kept for remainders below this; beyond, they are written afresh for
/// each response.
const REMAINDERS: u32 = 4096;

/// Refusals are kept for waits of up to so many seconds.
const WAITS: u32 = 60;

/// All endpoints and quotas that are kept have at most this many remainders and sixteenths of a
/// wait together. Each takes about 100 bytes once it has occurred. It is enough for some fifty
/// policies of the size of Bolna's; the texts of later ones are rendered afresh for each response.
const MOST: u32 = 1 << 17;

/// The texts of one endpoint's responses while one quota is in force.
///
/// They are statics, and so never freed: a value that is shared in any other way has a reference
/// count, which every request of an endpoint would write, on whatever core it runs.
pub(crate) struct Kept {
    pub(super) policy: HeaderValue,
    problem: OnceLock<Limited>,
    /// The value of `RateLimit` for each remainder from 1 on, which determines it.
    limits: OnceLock<Box<[OnceLock<HeaderValue>]>>,
    /// What there is to say when nothing remains, for each wait from one second on.
    waits: OnceLock<Box<[Wait]>>,
}

#[derive(Default)]
struct Wait {
    limit: OnceLock<HeaderValue>,
    body: OnceLock<Bytes>,
    /// The refusal without the `RateLimit` fields, and with them.
    refusals: [OnceLock<Response<Bytes>>; 2],
}

/// The texts of all endpoints and quotas that have been asked for, while there was room.
static ALL: RwLock<Option<All>> = RwLock::new(None);

#[derive(Default)]
struct All {
    texts: HashMap<(Endpoint, Quota), &'static Kept>,
    size: u32,
}

impl Kept {
    /// The texts for that endpoint and quota, or `None` if too many are kept already.
    pub(crate) fn of(endpoint: Endpoint, quota: Quota) -> Option<&'static Self> {
        // Nothing is done to it in two steps, so a poisoned lock guards nothing broken.
        let known = ALL
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|all| all.get(endpoint, quota));
        known.or_else(|| {
            let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
            all.get_or_insert_default().keep(endpoint, quota)
        })
    }

    /// The value of `RateLimit`, if it is one that is kept.
    #[inline]
    pub(super) fn limit(&self, decision: &Decision) -> Option<&HeaderValue> {
        let limit = match decision.remaining().checked_sub(1) {
            Some(index) => self.limits(decision).get(index as usize)?,
            None => &self.wait(decision)?.limit,
        };
        Some(limit.get_or_init(|| kept_value(fields::limit(decision))))
    }

    #[inline]
    fn limits(&self, decision: &Decision) -> &[OnceLock<HeaderValue>] {
        self.limits
            .get_or_init(|| (0..remainders(decision.quota())).map(|_| OnceLock::new()).collect())
    }

    /// The body of a refusal.
    pub(super) fn body(&self, decision: &Decision) -> Bytes {
        let problem =
            self.problem.get_or_init(|| Limited::new(decision.endpoint(), decision.quota()));
        let render = || problem.body(fields::retry_after_seconds(decision));
        match self.wait(decision) {
            Some(wait) => {
                wait.body.get_or_init(|| Bytes::from_static(render().leak().as_bytes())).clone()
            }
            None => render().into(),
        }
    }

    /// The refusal, rendered by the first who is refused, if it is one that is kept.
    pub(super) fn refusal(
        &self,
        decision: &Decision,
        format: Format,
        render: impl FnOnce() -> Response<Bytes>,
    ) -> Option<&Response<Bytes>> {
        let with_fields = match format {
            Format { dialect: Dialect::Off, legacy: None, retry_after_ms: false } => 0,
            Format { dialect: Dialect::Draft11, legacy: None, retry_after_ms: false } => 1,
            _ => return None,
        };
        Some(self.wait(decision)?.refusals[with_fields].get_or_init(render))
    }

    #[inline]
    fn wait(&self, decision: &Decision) -> Option<&Wait> {
        let waits = self
            .waits
            .get_or_init(|| (0..waits(decision.quota())).map(|_| Wait::default()).collect());
        waits.get(usize::try_from(fields::seconds_until_one(decision).checked_sub(1)?).ok()?)
    }
}

fn remainders(quota: Quota) -> u32 {
    quota.burst().min(REMAINDERS)
}

/// As many seconds as a unit takes to come back.
fn waits(quota: Quota) -> u32 {
    u32::try_from(fields::whole_seconds(quota.emission_interval()))
        .map_or(WAITS, |seconds| seconds.min(WAITS))
}

impl All {
    fn get(&self, endpoint: Endpoint, quota: Quota) -> Option<&'static Kept> {
        self.texts.get(&(endpoint, quota)).copied()
    }

    fn keep(&mut self, endpoint: Endpoint, quota: Quota) -> Option<&'static Kept> {
        if let Some(kept) = self.get(endpoint, quota) {
            return Some(kept);
        }
        let size = self.size + remainders(quota) + 16 * waits(quota);
        if size > MOST {
            return None;
        }
        let kept: &'static Kept = Box::leak(Box::new(Kept {
            policy: kept_value(fields::policy(endpoint, quota)),
            problem: OnceLock::new(),
            limits: OnceLock::new(),
            waits: OnceLock::new(),
        }));
        self.size = size;
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

    use super::{All, Kept, MOST, REMAINDERS};
    use crate::decision::Decision;
    use crate::endpoint::Endpoint;
    use crate::quota::Quota;
    use crate::wire::{Cause, Dialect, Fields, Format, Refusal};

    #[test]
    fn what_is_kept_is_bounded_and_kept_once() {
        let mut all = All::default();
        let quota = |limit| Quota::per_minute(limit).build().expect("the quota is valid");
        let kept = |all: &mut All| all.keep(Endpoint::CALL, quota(1)).expect("there was room");
        let first = kept(&mut all);
        let more = (0..)
            .take_while(|more| all.keep(Endpoint::CALL, quota(REMAINDERS + more)).is_some())
            .count();
        assert_eq!(more, (MOST / REMAINDERS) as usize - 1);
        assert!(ptr::eq(kept(&mut all), first));
    }

    #[test]
    fn what_is_not_kept_is_rendered_alike() {
        let quota = Quota::per_minute(20).burst(3).build().expect("the quota is valid");
        let kept = Kept::of(Endpoint::CALL, quota);
        assert!(kept.is_some());
        let off = Format { dialect: Dialect::Off, ..Format::default() };
        for debt in (0..=10_000).step_by(250).map(Duration::from_millis) {
            let allowed = Decision::allowed(Endpoint::CALL, quota, debt);
            let limited = Decision::limited(Endpoint::CALL, quota, debt);
            let blocked = Decision::blocked(Endpoint::CALL, quota, debt);
            let fields = |kept, decision| {
                let mut headers = HeaderMap::new();
                Fields::new(kept, decision, Format::default()).append_to(&mut headers);
                headers
            };
            for decision in [&allowed, &limited, &blocked] {
                assert_eq!(fields(kept, decision), fields(None, decision), "{decision:?}");
            }
            let refusal = |kept, format, decision| {
                let request = Request::new(());
                let (head, body) = Refusal::new(&request, Cause::Limited(decision, kept))
                    .answer(None, format)
                    .into_response()
                    .into_parts();
                (head.status, head.headers, body)
            };
            for format in [Format::default(), off] {
                for decision in [limited, blocked] {
                    assert_eq!(
                        refusal(kept, format, decision),
                        refusal(None, format, decision),
                        "{decision:?}"
                    );
                }
            }
        }
    }
}
