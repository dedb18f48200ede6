//! The header fields that say what was decided, with a file for each dialect.

pub(super) mod draft11;
mod legacy;
pub(super) mod retry_after;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::buffer::Buffer;
use super::{cache, shared_caches};
use crate::values::{Decision, Enforced, Ruling};

use legacy::Legacy;
pub use legacy::LegacyReset;
pub(in crate::layer) use retry_after::Longest;

/// The form of the `RateLimit` header fields of responses.
///
/// ```
/// use bolna_rate_limit::{Account, BolnaRateLimitLayer};
/// use bolna_rate_limit::layer::Dialect;
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio_test::block_on(async {
/// // Callers do not learn the limits.
/// let service = ServiceBuilder::new()
///     .layer(BolnaRateLimitLayer::new().dialect(Dialect::Off))
///     .service(service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(())) }));
/// let call = Request::post("/call").extension(Account::user("u-17")).body(String::new())?;
/// assert!(!service.oneshot(call).await?.headers().contains_key("ratelimit"));
/// # Ok::<(), BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// [draft-ietf-httpapi-ratelimit-headers-11][draft]:
    ///
    /// * `RateLimit-Policy: "agent";q=500;w=60`: the limit, its burst, and the seconds in which the
    ///   burst comes back.
    /// * `RateLimit: "agent";r=250;t=30`: the limit, the units that remain, and the seconds for
    ///   which they last at the sustained rate; if none remains, the seconds until one comes back;
    ///   of a limit that refuses the request, the seconds until it would be allowed.
    ///
    /// For a limit of [requests in flight](crate::Quota::concurrent):
    ///
    /// * `RateLimit-Policy: "agent-concurrent";q=10;qu="concurrent-requests"`: the limit, and how
    ///   many requests may be in flight.
    /// * `RateLimit: "agent-concurrent";r=4`: the limit, and how many more may be. If the limit
    ///   refuses the request, `;t=1` follows: the seconds to wait.
    ///
    /// There is a field line for each limit that is enforced on the principal.
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
    pub(in crate::layer) retry_after_ms: bool,
    /// The longest wait that refusals name.
    pub(in crate::layer) longest: Longest,
    /// Settings that few layers have. They are in one `Option`, so that the other layers test one
    /// value for each request.
    pub(in crate::layer) special: Option<Special>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::layer) struct Special {
    /// Whether the older fields are sent, and the meaning of one of them.
    pub(in crate::layer) legacy: Option<LegacyReset>,
    /// Whether responses that a shared cache may store have no fields.
    pub(in crate::layer) private: bool,
}

impl Format {
    pub(super) fn legacy(self) -> Option<LegacyReset> {
        self.special.and_then(|special| special.legacy)
    }

    fn is_private(self) -> bool {
        self.special.is_some_and(|special| special.private)
    }
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
    /// The same, unless a shared cache may store the response.
    Private(Decision),
    /// The same for the limits of a ruling that are enforced, or for all of them.
    Several { ruling: Box<[Decision]>, shown: Enforced, private: bool },
    /// The older fields, and others. In a box, because there seldom are any.
    WithLegacy(Box<WithLegacy>),
}

#[derive(Debug)]
struct WithLegacy {
    other: Other,
    legacy: Legacy,
    private: bool,
}

impl Fields {
    /// The fields of an admitted request: those of the limits that are enforced, or of all limits
    /// if they are wanted `in_shadow`. Several decisions are moved out of the ruling.
    #[inline(always)]
    pub(in crate::layer) fn new(ruling: &mut Ruling, format: Format, in_shadow: bool) -> Self {
        match ruling.decisions() {
            [decision] if in_shadow || ruling.enforces_own() => Self::of_one(decision, format),
            [] | [_] => Self::default(),
            _ => Self::of_several(ruling, format, in_shadow),
        }
    }

    /// The fields for that decision.
    #[inline(always)]
    pub(super) fn of_one(decision: &Decision, format: Format) -> Self {
        if let Some(special) = format.special {
            return Self { shared: None, other: Other::special(decision, format.dialect, special) };
        }
        let wanted = format.dialect == Dialect::Draft11;
        let shared = if wanted { cache::shared_fields(decision) } else { None };
        let missing = wanted && shared.is_none();
        Self { shared, other: if missing { Other::Of(*decision) } else { Other::None } }
    }

    #[inline(never)]
    fn of_several(ruling: &mut Ruling, format: Format, in_shadow: bool) -> Self {
        let (decisions, enforced) = ruling.drain_decisions();
        let shown = if in_shadow { Enforced::ALL } else { enforced };
        let legacy = of_tightest(format.legacy(), shown.among(&decisions));
        let private = format.is_private();
        let other = match format.dialect {
            Dialect::Draft11 => Other::Several { ruling: decisions, shown, private },
            Dialect::Off => Other::None,
        };
        Self { shared: None, other: other.with_legacy(legacy, private) }
    }

    /// Appends the fields. Those that an upstream has set stay, since each list member is about a
    /// limit of its own.
    #[inline]
    pub(in crate::layer) fn append_to<B>(self, response: &mut Response<B>) {
        if let Some((policy, limit)) = self.shared {
            append(response.headers_mut(), policy.clone(), limit.clone());
        }
        if !matches!(self.other, Other::None) {
            let status = response.status();
            if !self.other.is_private() || !shared_caches::may_store(status, response.headers()) {
                self.other.append_to(response.headers_mut());
            }
        }
    }
}

impl Other {
    #[inline(never)]
    fn special(decision: &Decision, dialect: Dialect, special: Special) -> Self {
        let other = match dialect {
            Dialect::Draft11 if special.private => Self::Private(*decision),
            Dialect::Draft11 => Self::Of(*decision),
            Dialect::Off => Self::None,
        };
        let legacy = of_tightest(special.legacy, std::iter::once(decision));
        other.with_legacy(legacy, special.private)
    }

    fn with_legacy(self, legacy: Option<Legacy>, private: bool) -> Self {
        match legacy {
            Some(legacy) => Self::WithLegacy(Box::new(WithLegacy { other: self, legacy, private })),
            None => self,
        }
    }

    /// Whether a response that a shared cache may store does not get the fields.
    fn is_private(&self) -> bool {
        match self {
            Self::None | Self::Of(_) => false,
            Self::Private(_) => true,
            Self::Several { private, .. } => *private,
            Self::WithLegacy(fields) => fields.private,
        }
    }

    #[inline(never)]
    fn append_to(self, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Of(decision) | Self::Private(decision) => append_cached(headers, &decision),
            Self::Several { ruling, shown, .. } => {
                shown.among(&ruling).for_each(|decision| append_cached(headers, decision));
            }
            Self::WithLegacy(fields) => {
                fields.other.append_to(headers);
                append_legacy(headers, fields.legacy);
            }
        }
    }
}

/// The older fields have room for one limit: the rate with the fewest further requests left. They
/// say when a bucket is full again, which is not known for requests in flight.
fn of_tightest<'a>(
    reset: Option<LegacyReset>,
    decisions: impl Iterator<Item = &'a Decision>,
) -> Option<Legacy> {
    let reset = reset?;
    let rates = decisions.filter(|decision| !decision.quota().is_concurrent());
    let tightest = rates.min_by_key(|decision| decision.remaining() / decision.cost())?;
    Some(legacy::fields(tightest, reset))
}

pub(super) fn append_cached(headers: &mut HeaderMap, decision: &Decision) {
    if let Some((policy, limit)) = cache::shared_fields(decision) {
        return append(headers, policy.clone(), limit.clone());
    }
    let (policy, limit) = cache::with(|texts| texts.fields(decision));
    append(headers, policy, limit);
}

/// Appends the fields to a refusal, for the limits that are enforced. Their texts are written to
/// the buffer. `violated` is the limit that the older fields are about. A refusal says `no-store`
/// unless the user's closure says something else.
pub(super) fn append_written(
    headers: &mut HeaderMap,
    decisions: &[Decision],
    violated: &Decision,
    format: Format,
    buffer: &mut Buffer,
) {
    if format.is_private() && shared_caches::may_store(StatusCode::TOO_MANY_REQUESTS, headers) {
        return;
    }
    if format.dialect == Dialect::Draft11 {
        for decision in decisions {
            let policy = draft11::policy(buffer, decision.name(), decision.quota());
            append(headers, policy, draft11::limit(buffer, decision));
        }
    }
    if let Some(reset) = format.legacy() {
        append_legacy(headers, legacy::fields(violated, reset));
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
