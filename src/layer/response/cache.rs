//! A cache of rendered texts, which all layers share. Nothing in it is ever freed.
//!
//! Policies and limiters know no header fields. So the texts of a response are found by the
//! endpoint and the quota of the decision, and are rendered when they are first needed.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::fields::{Dialect, Format, draft11, retry_after};
use super::problem::Limited;
use crate::values::{Decision, Endpoint, Quota};

/// The values of `RateLimit` are cached for up to this many remaining units. With more units left,
/// the value is rendered for each response.
const REMAINDERS: u32 = 4096;

/// Refusals are cached for waits of up to this many seconds.
const WAITS: u32 = 60;

/// The size of the cache: the most remainders that all its endpoints and quotas have together,
/// where each wait counts as sixteen remainders. A remainder takes about 100 bytes once it has
/// occurred. This is enough for some fifty policies of the size of Bolna's. The texts of further
/// policies are rendered for each response.
const MAX: u32 = 1 << 17;

/// The number of chains, of which one is searched, chosen by a hash of the endpoint and the quota.
/// A power of two.
const CHAINS: usize = 1 << 10;

/// The texts of the responses for one endpoint with one quota.
///
/// They live as long as the process. If they were shared in another way, they would have a
/// reference count, which each request would write, whatever core it runs on.
pub(in crate::layer) struct Texts {
    endpoint: Endpoint,
    quota: Quota,
    /// The next texts in the chain: those of another endpoint or quota with the same hash.
    next: OnceLock<&'static Texts>,
    policy: HeaderValue,
    problem: OnceLock<Limited>,
    /// The value of `RateLimit` for each number of remaining units, from 1 on.
    limits: OnceLock<Box<[OnceLock<HeaderValue>]>>,
    /// The texts if no unit remains, for each wait in whole seconds, from 1 on.
    waits: OnceLock<Box<[Wait]>>,
}

#[derive(Default)]
struct Wait {
    limit: OnceLock<HeaderValue>,
    body: OnceLock<Bytes>,
    /// The refusal without the `RateLimit` fields, and with them.
    refusals: [OnceLock<Response<Bytes>>; 2],
}

/// A hash table that only grows, so that it can be read without a lock.
struct Cache {
    chains: [OnceLock<&'static Texts>; CHAINS],
    /// The part of [`MAX`] that is used.
    size: AtomicU32,
    /// Held while texts are added.
    adding: Mutex<()>,
}

static CACHE: Cache = Cache::new();

impl Cache {
    const fn new() -> Self {
        Self {
            chains: [const { OnceLock::new() }; CHAINS],
            size: AtomicU32::new(0),
            adding: Mutex::new(()),
        }
    }

    #[inline]
    fn get(&self, endpoint: Endpoint, quota: Quota) -> Option<&'static Texts> {
        self.find(endpoint, quota).ok()
    }

    /// The texts.
    ///
    /// # Errors
    /// The place for them, at the end of their chain.
    #[inline]
    fn find(
        &self,
        endpoint: Endpoint,
        quota: Quota,
    ) -> Result<&'static Texts, &OnceLock<&'static Texts>> {
        let mut place = &self.chains[chain(endpoint, quota)];
        while let Some(texts) = place.get() {
            if texts.endpoint == endpoint && texts.quota == quota {
                return Ok(texts);
            }
            place = &texts.next;
        }
        Err(place)
    }

    /// Adds texts, unless they are there. `None` if there is no room.
    #[cold]
    fn add(&self, endpoint: Endpoint, quota: Quota) -> Option<&'static Texts> {
        let needed = remainders(quota) + 16 * waits(quota);
        let used = || self.size.load(Ordering::Relaxed);
        // This test takes no lock, so that requests with a quota for which there is no room never
        // wait for each other.
        if used() + needed > MAX {
            return None;
        }
        // A panic can't leave anything broken here, so a poisoned lock does no harm.
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match self.find(endpoint, quota) {
            Ok(texts) => return Some(texts),
            Err(place) => place,
        };
        if used() + needed > MAX {
            return None;
        }
        self.size.fetch_add(needed, Ordering::Relaxed);
        Some(place.get_or_init(|| Box::leak(Box::new(Texts::new(endpoint, quota)))))
    }
}

/// The index of a chain. All of a quota counts: the plans of a platform may differ in their bursts
/// or periods alone.
#[inline]
fn chain(endpoint: Endpoint, quota: Quota) -> usize {
    // 2^64 divided by the golden ratio: neighbouring numbers end up far apart.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let (period, number) = (quota.period(), u64::from(endpoint.number()));
    let units = u64::from(quota.limit()) << 32 | u64::from(quota.burst());
    let time = period.as_secs() ^ u64::from(period.subsec_nanos());
    let hash = (units ^ time).wrapping_add(number).wrapping_mul(GOLDEN);
    #[expect(clippy::cast_possible_truncation, reason = "below CHAINS")]
    let chain = (hash >> (u64::BITS - CHAINS.ilog2())) as usize;
    chain
}

impl Texts {
    /// The texts for that endpoint and quota. `None` if there is no room for them.
    #[inline]
    pub(super) fn of(endpoint: Endpoint, quota: Quota) -> Option<&'static Self> {
        CACHE.get(endpoint, quota).or_else(|| CACHE.add(endpoint, quota))
    }

    fn new(endpoint: Endpoint, quota: Quota) -> Self {
        Self {
            endpoint,
            quota,
            next: OnceLock::new(),
            policy: rendered(draft11::policy(endpoint, quota)),
            problem: OnceLock::new(),
            limits: OnceLock::new(),
            waits: OnceLock::new(),
        }
    }

    /// The value of `RateLimit-Policy`.
    #[inline]
    pub(super) fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// The value of `RateLimit`. `None` if it is not among the cached ones.
    #[inline]
    pub(super) fn limit(&self, decision: &Decision) -> Option<&HeaderValue> {
        let limit = match decision.remaining().checked_sub(1) {
            Some(index) => self.limits().get(index as usize)?,
            None => &self.wait(decision)?.limit,
        };
        Some(limit.get_or_init(|| rendered(draft11::limit(decision))))
    }

    #[inline]
    fn limits(&self) -> &[OnceLock<HeaderValue>] {
        let limits = || (0..remainders(self.quota)).map(|_| OnceLock::new()).collect();
        self.limits.get_or_init(limits)
    }

    /// The body of a refusal.
    pub(super) fn body(&self, decision: &Decision) -> Bytes {
        let problem = self.problem.get_or_init(|| Limited::new(self.endpoint, self.quota));
        let render = || problem.body(retry_after::seconds(decision));
        match self.wait(decision) {
            Some(wait) => {
                let body = || Bytes::from_static(render().leak().as_bytes());
                wait.body.get_or_init(body).clone()
            }
            None => render().into(),
        }
    }

    /// The refusal, which the first refused request renders. `None` if it is not among the cached
    /// ones.
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
        let waits = || (0..waits(self.quota)).map(|_| Wait::default()).collect();
        let index = draft11::seconds_until_one(decision).checked_sub(1)?;
        self.waits.get_or_init(waits).get(usize::try_from(index).ok()?)
    }
}

/// How many values of `RateLimit` are cached for a quota.
fn remainders(quota: Quota) -> u32 {
    quota.burst().min(REMAINDERS)
}

/// How many waits are cached for a quota: one for each second in which a unit comes back, at most
/// [`WAITS`].
fn waits(quota: Quota) -> u32 {
    let seconds = retry_after::whole_seconds(quota.emission_interval());
    u32::try_from(seconds).map_or(WAITS, |seconds| seconds.min(WAITS))
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn rendered(text: String) -> HeaderValue {
    HeaderValue::from_static(text.leak())
}

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Request, Response};

    use super::super::{Dialect, Fields, Format, Reason, Refusal};
    use super::{CHAINS, Cache, MAX, REMAINDERS, Texts, chain};
    use crate::values::{Decision, Endpoint, Quota};

    fn quota(limit: u32) -> Quota {
        Quota::per_minute(limit).build().expect("the quota is valid")
    }

    #[test]
    fn the_cache_is_bounded_and_holds_texts_once() {
        let cache = Cache::new();
        let first = cache.add(Endpoint::CALL, quota(1)).expect("there is room");
        let full = |more| cache.add(Endpoint::CALL, quota(REMAINDERS + more)).is_none();
        let more = (0..).take_while(|more| !full(*more)).count();
        assert_eq!(more, (MAX / REMAINDERS) as usize - 1);
        let again = cache.add(Endpoint::CALL, quota(1)).expect("it is there");
        assert!(ptr::eq(first, again));
    }

    #[test]
    fn texts_of_one_chain_are_told_apart() {
        let cache = Cache::new();
        let quotas: Vec<_> = (1..=2 * u32::try_from(CHAINS).expect("it is small"))
            .map(|limit| Quota::per(limit, Duration::from_secs(1)).burst(1).build())
            .map(|quota| quota.expect("the quota is valid"))
            .collect();
        for quota in &quotas {
            cache.add(Endpoint::CALL, *quota).expect("there is room");
        }
        for quota in quotas {
            let texts = cache.get(Endpoint::CALL, quota).expect("it is there");
            assert_eq!((texts.endpoint, texts.quota), (Endpoint::CALL, quota));
            assert!(cache.get(Endpoint::AGENT, quota).is_none());
        }
    }

    /// A chain is walked for each response.
    #[test]
    fn quotas_that_differ_in_one_number_are_spread_over_the_chains() {
        let all = || 1..=1000_u32;
        let second = Duration::from_secs(1);
        let limits = all().map(|limit| Quota::per(limit, second)).collect::<Vec<_>>();
        let one_burst = all().map(|limit| Quota::per(limit, second).burst(1)).collect();
        let bursts = all().map(|burst| Quota::per_minute(500).burst(burst)).collect();
        let periods = all().map(|seconds| Quota::per(500, seconds * second)).collect();
        let millis = all().map(|millis| Quota::per(5, Duration::from_millis(millis.into())));
        for quotas in [limits, one_burst, bursts, periods, millis.collect()] {
            let mut lengths = vec![0; CHAINS];
            for quota in quotas {
                lengths[chain(Endpoint::CALL, quota.build().expect("the quota is valid"))] += 1;
            }
            let longest = lengths.into_iter().max();
            assert!(longest <= Some(8), "{longest:?} of 1000 quotas are in one chain");
        }
    }

    #[test]
    fn a_text_is_the_same_whether_it_is_cached_or_not() {
        let quota = Quota::per_minute(20).burst(3).build().expect("the quota is valid");
        let texts = Texts::of(Endpoint::CALL, quota);
        assert!(texts.is_some());
        let off = Format { dialect: Dialect::Off, ..Format::default() };
        for debt in (0..=10_000).step_by(250).map(Duration::from_millis) {
            let allowed = Decision::allowed(Endpoint::CALL, quota, debt);
            let limited = Decision::limited(Endpoint::CALL, quota, debt);
            let blocked = Decision::blocked(Endpoint::CALL, quota, debt);
            let fields = |texts, decision| {
                let mut headers = HeaderMap::new();
                Fields::from_texts(texts, decision, Format::default()).append_to(&mut headers);
                headers
            };
            for decision in [&allowed, &limited, &blocked] {
                assert_eq!(fields(texts, decision), fields(None, decision), "{decision:?}");
            }
            let parts = |response: Response<Bytes>| {
                let (head, body) = response.into_parts();
                (head.status, head.headers, body)
            };
            for format in [Format::default(), off] {
                for decision in [limited, blocked] {
                    let request = Request::new(());
                    let refusal = Refusal::new(&request, Reason::Limited(decision));
                    let kept = refusal.answer(None, format).into_response();
                    let afresh = refusal.render(None, None, format);
                    assert_eq!(parts(kept), parts(afresh), "{decision:?}");
                }
            }
        }
    }
}
