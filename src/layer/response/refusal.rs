//! Responses to refused requests.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use smallvec::SmallVec;

use super::buffer::Buffer;
use super::cache::{self, RefusalKey};
use super::fields::{self, Dialect, Format, retry_after};
use super::grpc;
use super::problem::{self, Cause, Detail, Message};
use crate::store::StoreError;
use crate::values::{Decision, Endpoint, Limit, LimitName, Outcome, Ruling, Scope};

/// A closure of the user that renders refusals.
pub(in crate::layer) type Renderer = Arc<dyn Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync>;

/// A refused request, and why it is refused.
///
/// It is passed to a closure that renders refusals: see
/// [`BolnaRateLimitLayer::render_refusals`](crate::BolnaRateLimitLayer::render_refusals).
///
/// ```
/// use bolna_rate_limit::BolnaRateLimitLayer;
/// use bolna_rate_limit::layer::{Reason, Refusal};
/// use http::{HeaderValue, Response};
///
/// /// `{"code":"rate_limited","limit":"call","retry_after":7}`, or the usual response.
/// fn render(refusal: &Refusal<'_>) -> Response<bytes::Bytes> {
///     let Reason::Limited(decision) = refusal.reason() else {
///         return refusal.problem();
///     };
///     // Rounded up, as `Retry-After` is, which the layer adds.
///     let seconds = refusal.wait().map_or(0, |wait| wait.as_nanos().div_ceil(1_000_000_000));
///     let json = format!(
///         r#"{{"code":"rate_limited","limit":"{}","retry_after":{seconds}}}"#,
///         decision.name(),
///     );
///     let mut response = Response::new(json.into());
///     *response.status_mut() = refusal.status();
///     let json = HeaderValue::from_static("application/json");
///     response.headers_mut().insert("content-type", json);
///     response
/// }
///
/// let layer = BolnaRateLimitLayer::new().render_refusals(render);
/// ```
pub struct Refusal<'a> {
    reason: Reason<'a>,
    ruling: &'a Ruling,
    status: StatusCode,
    format: Format,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

/// Why a request is refused.
///
/// The [example of `Refusal`](Refusal) matches it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Reason<'a> {
    /// A quota does not suffice, or a bucket is [blocked](Decision::is_blocked). The status is 429.
    /// The decision is that of the limit with the longest wait; those of all limits are in the
    /// [ruling](Refusal::ruling). The quota is a rate, or one of
    /// [requests in flight](crate::Quota::is_concurrent).
    Limited(Decision),
    /// The request has no account, so there is no principal to bill. The status is 401.
    Unidentified,
    /// The store failed, so no limit has decided. The status is 503.
    StoreFailed(&'a StoreError),
    /// The request costs more than the bucket of a limit can hold. The status is 413, or the one
    /// that was [set](crate::BolnaRateLimitLayer::too_costly_status).
    #[non_exhaustive]
    TooCostly {
        /// The limit.
        limit: Limit,
        /// The units that the request costs.
        cost: u32,
    },
    /// The path can be read in too many ways: it would be charged to
    /// [more limits](Outcome::TooAmbiguous) than fit into one charge. The status is 400.
    TooAmbiguous,
}

impl<'a> Refusal<'a> {
    /// A request that is refused by that ruling. `error` is there if the store failed, and
    /// `too_costly` is the status of a request that costs too much.
    pub(in crate::layer) fn new<B>(
        request: &'a Request<B>,
        ruling: &'a Ruling,
        error: Option<&'a StoreError>,
        too_costly: StatusCode,
        format: Format,
    ) -> Self {
        let (reason, status) = if let Some(decision) = ruling.only_violated() {
            (Reason::Limited(*decision), StatusCode::TOO_MANY_REQUESTS)
        } else if let Some((limit, cost)) = ruling.too_costly_for() {
            (Reason::TooCostly { limit, cost }, too_costly)
        } else if ruling.violated().next().is_some() {
            let decision = ruling.decision().expect("a limit is violated");
            (Reason::Limited(*decision), StatusCode::TOO_MANY_REQUESTS)
        } else {
            match error {
                Some(error) if ruling.outcome() == Outcome::StoreFailed => {
                    (Reason::StoreFailed(error), StatusCode::SERVICE_UNAVAILABLE)
                }
                _ if ruling.outcome() == Outcome::TooAmbiguous => {
                    (Reason::TooAmbiguous, StatusCode::BAD_REQUEST)
                }
                _ => (Reason::Unidentified, StatusCode::UNAUTHORIZED),
            }
        };
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        Self { reason, ruling, status, format, method, uri, headers }
    }

    /// Why the request is refused.
    #[must_use]
    pub const fn reason(&self) -> Reason<'a> {
        self.reason
    }

    /// What all limits say, those that do not refuse the request included.
    #[must_use]
    pub const fn ruling(&self) -> &'a Ruling {
        self.ruling
    }

    /// The status for the reason: 429, 401, 503, 413 or 400.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong and what to do, in whole English sentences: the `detail` of the
    /// [problem](Self::problem).
    #[must_use]
    pub fn detail(&self) -> String {
        Detail(self.cause()).to_string()
    }

    /// What is wrong, in a few English words, without the wait: the `message` of the
    /// [problem](Self::problem).
    #[must_use]
    pub fn message(&self) -> String {
        Message(self.cause()).to_string()
    }

    /// The endpoint that the request belongs to. `None` if the request is unidentified.
    #[must_use]
    pub const fn endpoint(&self) -> Option<Endpoint> {
        self.ruling.endpoint()
    }

    /// The limits that refuse the request, or the limit that it costs too much of. None if the
    /// reason is no limit.
    pub fn limits(&self) -> impl Iterator<Item = Limit> {
        let too_costly = self.ruling.too_costly_for().map(|(limit, _)| limit);
        self.ruling.violated().map(Decision::limit).chain(too_costly)
    }

    /// The wait that the refusal names: `Retry-After` is this, in whole seconds. `None` if
    /// waiting does not help, as for an unidentified request.
    ///
    /// It is the time until the request would be admitted, or
    /// [`max_retry_after`](crate::BolnaRateLimitLayer::max_retry_after) if that is less. The true
    /// time is [`Ruling::retry_after`], and the [detail](Self::detail) says it. If too many
    /// requests are in flight, it is 1 s, which is a guess: it is not known when one will end.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match &self.reason {
            Reason::Limited(decision) => {
                decision.retry_after().map(|wait| self.format.longest.wait(wait))
            }
            Reason::StoreFailed(_) => Some(Duration::from_secs(1)),
            Reason::Unidentified | Reason::TooCostly { .. } | Reason::TooAmbiguous => None,
        }
    }

    /// The [wait](Self::wait) in milliseconds, rounded up: for bodies that name it in this unit.
    #[must_use]
    pub fn wait_ms(&self) -> Option<u64> {
        let millis = self.wait()?.as_nanos().div_ceil(1_000_000);
        Some(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Whether the request is refused because a bucket is blocked, not because a quota does not
    /// suffice.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.ruling.outcome() == Outcome::Blocked
    }

    /// The request's method.
    #[must_use]
    pub const fn method(&self) -> &'a Method {
        self.method
    }

    /// The request's target.
    #[must_use]
    pub const fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// The request's header fields.
    #[must_use]
    pub const fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The default response, `application/problem+json`. The layer adds header fields to it.
    #[must_use]
    pub fn problem(&self) -> Response<Bytes> {
        cache::with(|texts| self.written(texts.buffer()))
    }

    /// The finished response. Even if the user's closure has rendered it, it says when to try
    /// again.
    pub(in crate::layer) fn answer(&self, renderer: Option<&Renderer>) -> RefusalResponse {
        let as_usual = renderer.is_none() && *self.method != Method::HEAD;
        let response = match self.reason {
            // The older fields tell the time, so they are not left for later.
            Reason::Limited(decision) if as_usual && self.format.legacy().is_none() => {
                self.by_one_of_several(&decision)
            }
            Reason::Unidentified if as_usual => {
                let response = UNIDENTIFIED.get_or_init(|| self.render(None));
                return RefusalResponse::Rendered(response);
            }
            _ => self.render(renderer),
        };
        RefusalResponse::Made(Box::new(response))
    }

    /// The finished response to a gRPC request. The user's closure does not render it.
    pub(in crate::layer) fn answer_grpc(&self) -> RefusalResponse {
        let code = match &self.reason {
            Reason::Limited(_) | Reason::TooCostly { .. } => grpc::Code::ResourceExhausted,
            Reason::Unidentified => grpc::Code::Unauthenticated,
            Reason::StoreFailed(_) => grpc::Code::Unavailable,
            Reason::TooAmbiguous => grpc::Code::InvalidArgument,
        };
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        // It names the encoding of messages, and whether it is gRPC-Web.
        if let Some(kind) = self.headers.get(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, kind.clone());
        }
        // As in a problem document, a block is no violation of a quota.
        let is_by_quota = matches!(self.reason, Reason::Limited(_)) && !self.is_blocked();
        let violated = self.limits().filter(|_| is_by_quota).map(|limit| limit.name());
        grpc::add_status(headers, code, &self.detail(), self.wait(), violated);
        cache::with(|texts| self.add_fields(headers, texts.buffer()));
        RefusalResponse::Made(Box::new(response))
    }

    /// Whether the limit that refuses is the endpoint's own.
    fn is_own_limit(&self) -> bool {
        match &self.reason {
            Reason::Limited(decision) => is_own(self.ruling, decision),
            _ => false,
        }
    }

    /// The usual response to a request that one of several limits refuses: that of this limit alone
    /// without its fields, and the fields of all limits.
    fn by_one_of_several(&self, decision: &Decision) -> Response<Bytes> {
        let without = Format { dialect: Dialect::Off, ..self.format };
        let is_alone = self.ruling.violated().nth(1).is_none();
        let Some(key) = key(decision, self.is_own_limit(), without).filter(|_| is_alone) else {
            return self.render(None);
        };
        let mut response = match cache::shared_refusal(&key) {
            Some(response) => response.clone(),
            None => cache::with(|texts| {
                texts.refusal(key, |buffer| limited(decision, key.is_own, without, buffer))
            }),
        };
        if self.format.dialect == Dialect::Draft11 {
            for decision in self.ruling.enforced() {
                fields::append_cached(response.headers_mut(), decision);
            }
        }
        response
    }

    pub(super) fn render(&self, renderer: Option<&Renderer>) -> Response<Bytes> {
        let mut response = renderer.map_or_else(|| self.problem(), |render| render(self));
        cache::with(|texts| {
            self.add_fields(response.headers_mut(), texts.buffer());
        });
        if *self.method == Method::HEAD {
            // RFC 9110, section 9.3.2: the same header fields as for GET, including the length, but
            // no content.
            let length = response.body().len();
            fields::add(response.headers_mut(), CONTENT_LENGTH, || length.into());
            *response.body_mut() = Bytes::new();
        }
        response
    }
}

impl Refusal<'_> {
    /// The response without the header fields that the layer adds.
    fn written(&self, buffer: &mut Buffer) -> Response<Bytes> {
        let violated: SmallVec<[LimitName; 4]> =
            self.ruling.violated().map(Decision::name).collect();
        response(self.status, problem::body(buffer, self.cause(), self.status, &violated))
    }

    fn cause(&self) -> Cause<'_> {
        match &self.reason {
            Reason::Limited(decision) if self.is_blocked() => Cause::Blocked {
                endpoint: self.ruling.endpoint().map(|endpoint| endpoint.name()),
                seconds: retry_after::seconds(decision),
            },
            Reason::Limited(decision) => Cause::Limited {
                decision,
                is_own: self.is_own_limit(),
                seconds: retry_after::seconds(decision),
            },
            Reason::Unidentified => Cause::Unidentified,
            Reason::StoreFailed(_) => Cause::StoreFailed,
            Reason::TooCostly { limit, cost } => Cause::TooCostly { limit: *limit, cost: *cost },
            Reason::TooAmbiguous => Cause::TooAmbiguous,
        }
    }

    fn add_fields(&self, headers: &mut HeaderMap, buffer: &mut Buffer) {
        let format = self.format;
        fields::add(headers, CACHE_CONTROL, || HeaderValue::from_static("no-store"));
        match &self.reason {
            Reason::Limited(decision) => {
                retry_after::add_to(headers, decision, format, buffer);
                let enforced: SmallVec<[Decision; 4]> = self.ruling.enforced().copied().collect();
                fields::append_written(headers, &enforced, decision, format, buffer);
            }
            Reason::Unidentified => {
                fields::add(headers, WWW_AUTHENTICATE, || {
                    HeaderValue::from_static("Bearer realm=\"api\"")
                });
            }
            Reason::StoreFailed(_) => {
                fields::add(headers, RETRY_AFTER, || HeaderValue::from_static("1"));
            }
            Reason::TooCostly { .. } | Reason::TooAmbiguous => {}
        }
    }
}

/// A response with that body.
fn response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The refusal of an unidentified request. Nothing in it depends on the policy.
static UNIDENTIFIED: OnceLock<Response<Bytes>> = OnceLock::new();

/// A refusal that is ready to be sent, or that is written when it is sent.
pub(in crate::layer) enum RefusalResponse {
    /// A response that all threads share.
    Rendered(&'static Response<Bytes>),
    /// The usual response to a request that the endpoint's own limit refuses. It is looked up or
    /// written when it is sent.
    OfOwn(Decision, Format),
    /// The same for any other limit.
    OfOther(Decision, Format),
    /// A response that was made for this request. In a box, because the futures of admitted
    /// requests have room for it too.
    Made(Box<Response<Bytes>>),
}

impl RefusalResponse {
    /// The usual response if the only limit of an endpoint refuses the request, or if the request
    /// has no account. `None` in other cases, and the first time without an account.
    #[inline]
    pub(in crate::layer) fn usual(ruling: &Ruling, format: Format) -> Option<Self> {
        if let Some(decision) = ruling.only_violated() {
            // The older fields tell the time, so they are not left for later.
            if format.legacy().is_some() {
                return None;
            }
            let is_own = is_own(ruling, decision);
            let key = key(decision, is_own, format);
            return Some(match key.and_then(|key| cache::shared_refusal(&key)) {
                Some(response) => Self::Rendered(response),
                None if is_own => Self::OfOwn(*decision, format),
                None => Self::OfOther(*decision, format),
            });
        }
        if ruling.has_no_account() { UNIDENTIFIED.get().map(Self::Rendered) } else { None }
    }

    pub(in crate::layer) fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Rendered(response) => response.clone(),
            Self::OfOwn(decision, format) => usual(&decision, true, format),
            Self::OfOther(decision, format) => usual(&decision, false, format),
            Self::Made(response) => *response,
        }
    }
}

/// The usual response to a limited request.
#[inline(never)]
fn usual(decision: &Decision, is_own: bool, format: Format) -> Response<Bytes> {
    let render = |buffer: &mut Buffer| limited(decision, is_own, format, buffer);
    cache::with(|texts| match key(decision, is_own, format) {
        Some(key) => texts.refusal(key, render),
        None => render(texts.buffer()),
    })
}

/// Whether the decision is that of the endpoint's own limit. The active policy's limit for everyone
/// may have the name of an endpoint of a plan.
#[inline]
fn is_own(ruling: &Ruling, decision: &Decision) -> bool {
    let is_named_so = ruling.endpoint().is_some_and(|endpoint| decision.name() == endpoint);
    is_named_so && decision.limit().scope() == Scope::Account
}

/// What the response depends on. `None` if that is more than the key says.
#[inline]
fn key(decision: &Decision, is_own: bool, format: Format) -> Option<RefusalKey> {
    if decision.is_blocked() || decision.remaining() > 0 || format.retry_after_ms {
        return None;
    }
    let seconds = retry_after::seconds(decision);
    Some(RefusalKey {
        limit: decision.limit(),
        is_own,
        seconds,
        retry_after: format.longest.seconds(seconds),
        with_fields: format.dialect == Dialect::Draft11,
    })
}

/// The response to a request that one limit refuses, with the fields of that limit.
fn limited(
    decision: &Decision,
    is_own: bool,
    format: Format,
    buffer: &mut Buffer,
) -> Response<Bytes> {
    let seconds = retry_after::seconds(decision);
    let cause = if decision.is_blocked() {
        let is_of_address = decision.limit().scope() == Scope::Address;
        Cause::Blocked { endpoint: (!is_of_address).then(|| decision.name().name()), seconds }
    } else {
        Cause::Limited { decision, is_own, seconds }
    };
    let status = StatusCode::TOO_MANY_REQUESTS;
    let body = problem::body(buffer, cause, status, &[decision.name()]);
    let mut response = response(status, body);
    let headers = response.headers_mut();
    fields::add(headers, CACHE_CONTROL, || HeaderValue::from_static("no-store"));
    retry_after::add_to(headers, decision, format, buffer);
    fields::append_written(headers, std::slice::from_ref(decision), decision, format, buffer);
    response
}

impl fmt::Debug for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the header fields, since credentials are among them.
        f.debug_struct("Refusal")
            .field("reason", &self.reason())
            .field("method", &self.method)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}
