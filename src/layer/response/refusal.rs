//! Responses to refused requests.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::cache::Texts;
use super::fields::{self, Fields, Format, retry_after};
use super::problem::{self, Limited};
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
        match self.reason {
            Reason::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Reason::Unidentified => StatusCode::UNAUTHORIZED,
            Reason::StoreFailed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
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
        self.problem_from(self.texts())
    }

    fn texts(&self) -> Option<&'static Texts> {
        match &self.reason {
            Reason::Limited(decision) => Texts::of(decision.endpoint(), decision.quota()),
            _ => None,
        }
    }

    fn problem_from(&self, texts: Option<&'static Texts>) -> Response<Bytes> {
        let body = match (&self.reason, texts) {
            (Reason::Limited(decision), _) if decision.is_blocked() => {
                problem::blocked(decision.endpoint(), retry_after::seconds(decision)).into()
            }
            (Reason::Limited(decision), Some(texts)) => texts.body(decision),
            (Reason::Limited(decision), None) => {
                let problem = Limited::new(decision.endpoint(), decision.quota());
                problem.body(retry_after::seconds(decision)).into()
            }
            (Reason::Unidentified, _) => Bytes::from_static(problem::UNIDENTIFIED.as_bytes()),
            (Reason::StoreFailed(_), _) => Bytes::from_static(problem::STORE_FAILED.as_bytes()),
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }

    /// The finished response. Even if the user's closure has rendered it, it says when to try
    /// again.
    pub(in crate::layer) fn answer(
        &self,
        renderer: Option<&Renderer>,
        format: Format,
    ) -> RefusalResponse {
        let texts = self.texts();
        let as_usual = renderer.is_none() && *self.method != Method::HEAD;
        let rendered = match (&self.reason, texts) {
            (Reason::Limited(decision), Some(texts)) if as_usual && !decision.is_blocked() => {
                texts.refusal(decision, format, || self.render(Some(texts), None, format))
            }
            (Reason::Unidentified, _) if as_usual => {
                Some(UNIDENTIFIED.get_or_init(|| self.render(None, None, format)))
            }
            _ => None,
        };
        let make = || RefusalResponse::Made(Box::new(self.render(texts, renderer, format)));
        rendered.map_or_else(make, RefusalResponse::Rendered)
    }

    /// Renders the refusal from the texts, if there are some, or afresh.
    pub(super) fn render(
        &self,
        texts: Option<&'static Texts>,
        renderer: Option<&Renderer>,
        format: Format,
    ) -> Response<Bytes> {
        let mut response = renderer.map_or_else(|| self.problem_from(texts), |render| render(self));
        let headers = response.headers_mut();
        fields::add(headers, CACHE_CONTROL, || HeaderValue::from_static("no-store"));
        match &self.reason {
            Reason::Limited(decision) => {
                retry_after::add_to(headers, decision, format);
                Fields::from_texts(texts, decision, format).append_to(headers);
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

/// The refusal of an unidentified request. Nothing in it depends on the policy.
static UNIDENTIFIED: OnceLock<Response<Bytes>> = OnceLock::new();

/// A refusal that is ready to be sent.
pub(in crate::layer) enum RefusalResponse {
    /// A response from the cache.
    Rendered(&'static Response<Bytes>),
    /// A response that was made for this request. In a box, because the futures of admitted
    /// requests have room for it too.
    Made(Box<Response<Bytes>>),
}

impl RefusalResponse {
    pub(in crate::layer) fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Rendered(response) => response.clone(),
            Self::Made(response) => *response,
        }
    }
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
