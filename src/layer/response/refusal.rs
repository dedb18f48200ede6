//! Responses to refused requests.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::buffer::Buffer;
use super::cache::{self, RefusalKey};
use super::fields::{self, Dialect, Format, retry_after};
use super::problem;
use crate::store::StoreError;
use crate::values::Decision;

/// A closure of the user that renders refusals.
pub(in crate::layer) type Renderer = Arc<dyn Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync>;

/// A refused request, and why it is refused.
///
/// It is passed to a closure that renders refusals: see
/// [`BolnaRateLimitLayer::render_refusals`](crate::BolnaRateLimitLayer::render_refusals).
pub struct Refusal<'a> {
    reason: Reason<'a>,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Reason<'a> {
    /// The quota is used up, or the bucket is [blocked](Decision::is_blocked). The status is 429.
    Limited(Decision),
    /// The request has no account, so there is no principal to bill. The status is 401.
    Unidentified,
    /// The store failed, so no limit has decided. The status is 503.
    StoreFailed(&'a StoreError),
}

impl Reason<'_> {
    const fn status(&self) -> StatusCode {
        match self {
            Reason::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Reason::Unidentified => StatusCode::UNAUTHORIZED,
            Reason::StoreFailed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl<'a> Refusal<'a> {
    pub(in crate::layer) fn new<B>(request: &'a Request<B>, reason: Reason<'a>) -> Self {
        Self { reason, method: request.method(), uri: request.uri(), headers: request.headers() }
    }

    /// Why the request is refused.
    #[must_use]
    pub const fn reason(&self) -> Reason<'a> {
        self.reason
    }

    /// The status for the reason: 429, 401 or 503.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.reason.status()
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
        cache::with(|texts| problem(&self.reason, texts.buffer()))
    }

    /// The finished response. Even if the user's closure has rendered it, it says when to try
    /// again.
    pub(in crate::layer) fn answer(
        &self,
        renderer: Option<&Renderer>,
        format: Format,
    ) -> RefusalResponse {
        let as_usual = renderer.is_none() && *self.method != Method::HEAD;
        match self.reason {
            // The older fields tell the time, so they are not left for later.
            Reason::Limited(decision) if as_usual && format.legacy.is_none() => {
                match key(&decision, format).and_then(|key| cache::shared_refusal(&key)) {
                    Some(response) => RefusalResponse::Rendered(response),
                    None => RefusalResponse::Of(decision, format),
                }
            }
            Reason::Unidentified if as_usual => {
                RefusalResponse::Rendered(UNIDENTIFIED.get_or_init(|| self.render(None, format)))
            }
            _ => RefusalResponse::Made(Box::new(self.render(renderer, format))),
        }
    }

    pub(super) fn render(&self, renderer: Option<&Renderer>, format: Format) -> Response<Bytes> {
        let mut response = renderer.map_or_else(|| self.problem(), |render| render(self));
        cache::with(|texts| {
            add_fields(&self.reason, response.headers_mut(), format, texts.buffer());
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

/// The response without the header fields that the layer adds.
fn problem(reason: &Reason<'_>, buffer: &mut Buffer) -> Response<Bytes> {
    let body = match reason {
        Reason::Limited(decision) if decision.is_blocked() => {
            problem::blocked(buffer, decision.endpoint(), retry_after::seconds(decision))
        }
        Reason::Limited(decision) => problem::limited(
            buffer,
            decision.endpoint(),
            decision.quota(),
            retry_after::seconds(decision),
        ),
        Reason::Unidentified => Bytes::from_static(problem::UNIDENTIFIED.as_bytes()),
        Reason::StoreFailed(_) => Bytes::from_static(problem::STORE_FAILED.as_bytes()),
    };
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let mut response = Response::new(body);
    *response.status_mut() = reason.status();
    *response.headers_mut() = headers;
    response
}

fn add_fields(reason: &Reason<'_>, headers: &mut HeaderMap, format: Format, buffer: &mut Buffer) {
    fields::add(headers, CACHE_CONTROL, || HeaderValue::from_static("no-store"));
    match reason {
        Reason::Limited(decision) => {
            retry_after::add_to(headers, decision, format, buffer);
            fields::append_written(headers, decision, format, buffer);
        }
        Reason::Unidentified => {
            fields::add(headers, WWW_AUTHENTICATE, || {
                HeaderValue::from_static("Bearer realm=\"api\"")
            });
        }
        Reason::StoreFailed(_) => {
            fields::add(headers, RETRY_AFTER, || HeaderValue::from_static("1"));
        }
    }
}

/// The refusal of an unidentified request. Nothing in it depends on the policy.
static UNIDENTIFIED: OnceLock<Response<Bytes>> = OnceLock::new();

/// A refusal that is ready to be sent, or that is written when it is sent.
pub(in crate::layer) enum RefusalResponse {
    /// A response that all threads share.
    Rendered(&'static Response<Bytes>),
    /// The usual response to a limited request. It is looked up or written when it is sent.
    Of(Decision, Format),
    /// A response that was made for this request. In a box, because the futures of admitted
    /// requests have room for it too.
    Made(Box<Response<Bytes>>),
}

impl RefusalResponse {
    pub(in crate::layer) fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Rendered(response) => response.clone(),
            Self::Of(decision, format) => usual(&decision, format),
            Self::Made(response) => *response,
        }
    }
}

/// The usual response to a limited request.
#[inline(never)]
fn usual(decision: &Decision, format: Format) -> Response<Bytes> {
    let render = |buffer: &mut Buffer| rendered(&Reason::Limited(*decision), format, buffer);
    cache::with(|texts| match key(decision, format) {
        Some(key) => texts.refusal(key, render),
        None => render(texts.buffer()),
    })
}

/// What the response depends on. `None` if that is more than the key says.
#[inline]
fn key(decision: &Decision, format: Format) -> Option<RefusalKey> {
    if decision.is_blocked() || decision.remaining() > 0 || format.retry_after_ms {
        return None;
    }
    Some(RefusalKey {
        endpoint: decision.endpoint(),
        quota: decision.quota(),
        seconds: retry_after::seconds(decision),
        with_fields: format.dialect == Dialect::Draft11,
    })
}

fn rendered(reason: &Reason<'_>, format: Format, buffer: &mut Buffer) -> Response<Bytes> {
    let mut response = problem(reason, buffer);
    add_fields(reason, response.headers_mut(), format, buffer);
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
