//! The header fields that say what was decided, with a file for each dialect.

pub(super) mod draft11;
mod legacy;
pub(super) mod retry_after;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::cache::Texts;
use crate::values::Decision;

pub use legacy::LegacyReset;

/// The form of the `RateLimit` header fields of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// [draft-ietf-httpapi-ratelimit-headers-11][draft]:
    ///
    /// * `RateLimit-Policy: "agent";q=500;w=60`: the endpoint, its burst, and the seconds in which
    ///   the burst comes back.
    /// * `RateLimit: "agent";r=250;t=30`: the endpoint, the units that remain, and the seconds for
    ///   which they last at the sustained rate; if none remains, the seconds until one comes back.
    ///
    /// [draft]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/
    #[default]
    Draft11,
    /// Neither field. Refusals still have `Retry-After`.
    Off,
}

/// Which header fields responses have.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::layer) struct Format {
    pub(in crate::layer) dialect: Dialect,
    pub(in crate::layer) legacy: Option<LegacyReset>,
    pub(in crate::layer) retry_after_ms: bool,
}

/// The header fields of one response that say what was decided.
#[derive(Debug, Default)]
pub(in crate::layer) struct Fields {
    /// `RateLimit-Policy` and `RateLimit`, if both values are in the cache.
    rendered: Option<(&'static HeaderValue, &'static HeaderValue)>,
    /// The fields that were rendered for this response. In a box, because there seldom are any.
    made: Option<Box<[(HeaderName, HeaderValue)]>>,
}

impl Fields {
    /// The fields for that decision.
    #[inline(always)]
    pub(in crate::layer) fn new(decision: &Decision, format: Format) -> Self {
        let texts = match format.dialect {
            Dialect::Draft11 => Texts::of(decision.endpoint(), decision.quota()),
            Dialect::Off => None,
        };
        Self::from_texts(texts, decision, format)
    }

    #[inline(always)]
    pub(super) fn from_texts(
        texts: Option<&'static Texts>,
        decision: &Decision,
        format: Format,
    ) -> Self {
        let wanted = format.dialect == Dialect::Draft11;
        let texts = texts.filter(|_| wanted);
        let rendered =
            texts.and_then(|texts| texts.limit(decision).map(|limit| (texts.policy(), limit)));
        let missing = wanted && rendered.is_none();
        let made = if missing || format.legacy.is_some() {
            Some(make(texts, decision, format.legacy, missing))
        } else {
            None
        };
        Self { rendered, made }
    }

    /// Appends the fields. Those that an upstream has set stay, since each list member is about a
    /// limit of its own.
    #[inline]
    pub(in crate::layer) fn append_to(self, headers: &mut HeaderMap) {
        // If the map is full, these fields are left out. The response is still sent.
        if let Some((policy, limit)) = self.rendered {
            let _ = headers.try_append(draft11::RATELIMIT_POLICY, policy.clone());
            let _ = headers.try_append(draft11::RATELIMIT, limit.clone());
        }
        for (name, value) in self.made.into_iter().flatten() {
            let _ = headers.try_append(name, value);
        }
    }
}

/// Renders the standard fields, if they are not in the cache, and the older ones.
#[inline(never)]
fn make(
    texts: Option<&'static Texts>,
    decision: &Decision,
    legacy: Option<LegacyReset>,
    with_standard: bool,
) -> Box<[(HeaderName, HeaderValue)]> {
    let standard = with_standard.then(|| draft11::fields(texts, decision));
    let legacy = legacy.map(|reset| legacy::fields(decision, reset));
    standard.into_iter().flatten().chain(legacy.into_iter().flatten()).collect()
}

/// Adds a field, unless it is there or the map is full. (`HeaderMap::entry` panics if it is full.)
pub(super) fn add(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    if !headers.contains_key(&name) {
        let _ = headers.try_insert(name, value());
    }
}

fn number(number: u64) -> HeaderValue {
    if number == 1 { HeaderValue::from_static("1") } else { number.into() }
}
