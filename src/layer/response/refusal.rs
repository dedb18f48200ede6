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
use crate::values::{Decision, Ruling};

/// A closure of the user that renders refusals.
pub(in crate::layer) type Renderer = Arc<dyn Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync>;

/// A refused request, and why it is refused.
///
/// It is passed to a closure that renders refusals: see
/// [`BolnaRateLimitLayer::render_refusals`](crate::BolnaRateLimitLayer::render_refusals).
pub struct Refusal<'a> {
    cause: Cause<'a>,
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

/// The reason of a refusal, with the texts to render it.
#[derive(Clone, Copy, Debug)]
pub(in crate::layer) enum Cause<'a> {
    Limited(Decision, Option<&'static Texts>),
    Unidentified,
    StoreFailed(&'a StoreError),
}

impl<'a> Cause<'a> {
    pub(in crate::layer) fn of(ruling: &Ruling, error: Option<&'a StoreError>) -> Self {
        match (ruling.decision(), error) {
            (Some(decision), _) => {
                Self::Limited(*decision, Texts::of(decision.endpoint(), decision.quota()))
            }
            (None, Some(error)) => Self::StoreFailed(error),
            (None, None) => Self::Unidentified,
        }
    }
}

impl<'a> Refusal<'a> {
    pub(in crate::layer) fn new<B>(request: &'a Request<B>, cause: Cause<'a>) -> Self {
        Self { cause, method: request.method(), uri: request.uri(), headers: request.headers() }
    }

    /// Why the request is refused.
    #[must_use]
    pub const fn reason(&self) -> Reason<'a> {
        match self.cause {
            Cause::Limited(decision, _) => Reason::Limited(decision),
            Cause::Unidentified => Reason::Unidentified,
            Cause::StoreFailed(error) => Reason::StoreFailed(error),
        }
    }

    /// The status for the reason: 429, 401 or 503.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self.cause {
            Cause::Limited(..) => StatusCode::TOO_MANY_REQUESTS,
            Cause::Unidentified => StatusCode::UNAUTHORIZED,
            Cause::StoreFailed(_) => StatusCode::SERVICE_UNAVAILABLE,
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
        let body = match self.cause {
            Cause::Limited(decision, _) if decision.is_blocked() => {
                problem::blocked(decision.endpoint(), retry_after::seconds(&decision)).into()
            }
            Cause::Limited(decision, Some(texts)) => texts.body(&decision),
            Cause::Limited(decision, None) => {
                let problem = Limited::new(decision.endpoint(), decision.quota());
                problem.body(retry_after::seconds(&decision)).into()
            }
            Cause::Unidentified => Bytes::from_static(problem::UNIDENTIFIED.as_bytes()),
            Cause::StoreFailed(_) => Bytes::from_static(problem::STORE_FAILED.as_bytes()),
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
    pub(in crate::layer) fn answer(self, renderer: Option<&Renderer>, format: Format) -> Answer {
        let as_usual = renderer.is_none() && *self.method != Method::HEAD;
        let rendered = match self.cause {
            Cause::Limited(decision, Some(texts)) if as_usual && !decision.is_blocked() => {
                texts.refusal(&decision, format, || self.render(None, format))
            }
            Cause::Unidentified if as_usual => {
                Some(UNIDENTIFIED.get_or_init(|| self.render(None, format)))
            }
            _ => None,
        };
        rendered
            .map_or_else(|| Answer::Made(Box::new(self.render(renderer, format))), Answer::Rendered)
    }

    fn render(&self, renderer: Option<&Renderer>, format: Format) -> Response<Bytes> {
        let mut response = renderer.map_or_else(|| self.problem(), |render| render(self));
        let headers = response.headers_mut();
        fields::add(headers, CACHE_CONTROL, || HeaderValue::from_static("no-store"));
        match self.cause {
            Cause::Limited(decision, texts) => {
                retry_after::add_to(headers, &decision, format);
                Fields::from_texts(texts, &decision, format).append_to(headers);
            }
            Cause::Unidentified => {
                fields::add(headers, WWW_AUTHENTICATE, || {
                    HeaderValue::from_static("Bearer realm=\"api\"")
                });
            }
            Cause::StoreFailed(_) => {
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
pub(in crate::layer) enum Answer {
    /// A response from the cache.
    Rendered(&'static Response<Bytes>),
    /// A response that was made for this request. In a box, because the futures of admitted
    /// requests have room for it too.
    Made(Box<Response<Bytes>>),
}

impl Answer {
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
