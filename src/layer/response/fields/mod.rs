//! The header fields that say what was decided, with a file for each dialect.

pub(super) mod draft11;
mod legacy;
pub(super) mod retry_after;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::buffer::Buffer;
use super::cache;
use crate::values::Decision;

use legacy::Legacy;
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
    /// The values of `RateLimit-Policy` and `RateLimit`, from the table that all threads share.
    shared: Option<(&'static HeaderValue, &'static HeaderValue)>,
    other: Other,
}

#[derive(Debug, Default)]
enum Other {
    #[default]
    None,
    /// `RateLimit-Policy` and `RateLimit` for that decision. Their values are looked up or written
    /// when the response is there, so that they hold no memory until then.
    Of(Decision),
    /// The same, unless the values are shared, and the older fields. In a box, because there seldom
    /// are any.
    WithLegacy(Box<(Option<Decision>, Legacy)>),
}

impl Fields {
    /// The fields for that decision.
    #[inline(always)]
    pub(in crate::layer) fn new(decision: &Decision, format: Format) -> Self {
        let wanted = format.dialect == Dialect::Draft11;
        let shared = if wanted { cache::shared_fields(decision) } else { None };
        let missing = wanted && shared.is_none();
        let other = match format.legacy {
            None if missing => Other::Of(*decision),
            None => Other::None,
            Some(reset) => Other::with_legacy(decision, missing, reset),
        };
        Self { shared, other }
    }

    /// Appends the fields. Those that an upstream has set stay, since each list member is about a
    /// limit of its own.
    #[inline]
    pub(in crate::layer) fn append_to(self, headers: &mut HeaderMap) {
        if let Some((policy, limit)) = self.shared {
            append(headers, policy.clone(), limit.clone());
        }
        if !matches!(self.other, Other::None) {
            self.other.append_to(headers);
        }
    }
}

impl Other {
    #[inline(never)]
    fn with_legacy(decision: &Decision, missing: bool, reset: LegacyReset) -> Self {
        let fields = legacy::fields(decision, reset);
        Self::WithLegacy(Box::new((missing.then_some(*decision), fields)))
    }

    #[inline(never)]
    fn append_to(self, headers: &mut HeaderMap) {
        let (decision, legacy) = match self {
            Self::None => (None, None),
            Self::Of(decision) => (Some(decision), None),
            Self::WithLegacy(fields) => (fields.0, Some(fields.1)),
        };
        if let Some(decision) = decision {
            let (policy, limit) = cache::with(|texts| texts.fields(&decision));
            append(headers, policy, limit);
        }
        if let Some(legacy) = legacy {
            append_legacy(headers, legacy);
        }
    }
}

/// Appends the fields to a refusal. Their texts are written to the buffer.
pub(super) fn append_written(
    headers: &mut HeaderMap,
    decision: &Decision,
    format: Format,
    buffer: &mut Buffer,
) {
    if format.dialect == Dialect::Draft11 {
        let policy = draft11::policy(buffer, decision.endpoint(), decision.quota());
        append(headers, policy, draft11::limit(buffer, decision));
    }
    if let Some(reset) = format.legacy {
        append_legacy(headers, legacy::fields(decision, reset));
    }
}

// If the map is full, these fields are left out. The response is still sent.

fn append_legacy(headers: &mut HeaderMap, fields: Legacy) {
    for (name, value) in fields {
        let _ = headers.try_append(name, value);
    }
}

#[inline]
fn append(headers: &mut HeaderMap, policy: HeaderValue, limit: HeaderValue) {
    let _ = headers.try_append(draft11::RATELIMIT_POLICY, policy);
    let _ = headers.try_append(draft11::RATELIMIT, limit);
}

/// Adds a field, unless it is there or the map is full. (`HeaderMap::entry` panics if it is full.)
pub(super) fn add(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    if !headers.contains_key(&name) {
        let _ = headers.try_insert(name, value());
    }
}

/// The value of a field whose text is rendered by this crate.
#[inline]
fn value(text: Bytes) -> HeaderValue {
    // The name of an endpoint is checked when it is made. The rest is digits and punctuation.
    HeaderValue::from_maybe_shared(text).expect("the field is visible ASCII")
}
