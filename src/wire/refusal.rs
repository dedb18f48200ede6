//! Answers to requests that do not go on.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::fields::{self, Fields, Format};
use super::kept::Kept;
use super::problem::{self, Limited};
use crate::decision::Decision;
use crate::store::StoreError;

/// Renders refusals in the user's own way.
pub(crate) type Renderer = Arc<dyn Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync>;

/// A request that does not go on, for those who render refusals themselves.
///
/// See [`BolnaRateLimitLayer::render_refusals`](crate::BolnaRateLimitLayer::render_refusals).
pub struct Refusal<'a> {
    cause: Cause<'a>,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

/// Why a request does not go on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Reason<'a> {
    /// The quota is used up, or the bucket is [blocked](Decision::is_blocked): 429.
    Limited(Decision),
    /// Nobody is identified, so nobody can be billed: 401.
    Unidentified,
    /// The store could not be asked: 503.
    StoreFailed(&'a StoreError),
}

/// The reason with what it takes to render it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause<'a> {
    Limited(Decision, Option<&'static Kept>),
    Unidentified,
    StoreFailed(&'a StoreError),
}

impl<'a> Refusal<'a> {
    pub(crate) fn new<B>(request: &'a Request<B>, cause: Cause<'a>) -> Self {
        Self { cause, method: request.method(), uri: request.uri(), headers: request.headers() }
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason<'a> {
        match self.cause {
            Cause::Limited(decision, _) => Reason::Limited(decision),
            Cause::Unidentified => Reason::Unidentified,
            Cause::StoreFailed(error) => Reason::StoreFailed(error),
        }
    }

    /// The status that says so: 429, 401 or 503.
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

    /// The response that is sent unless a renderer makes another: `application/problem+json`.
    #[must_use]
    pub fn problem(&self) -> Response<Bytes> {
        let body = match self.cause {
            Cause::Limited(decision, _) if decision.is_blocked() => {
                problem::blocked(decision.endpoint(), fields::retry_after_seconds(&decision)).into()
            }
            Cause::Limited(decision, Some(kept)) => kept.body(&decision),
            Cause::Limited(decision, None) => {
                let problem = Limited::new(decision.endpoint(), decision.quota());
                problem.body(fields::retry_after_seconds(&decision)).into()
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

    /// The finished answer. Whatever a renderer made of it, the client is told when to come back.
    pub(crate) fn answer(self, renderer: Option<&Renderer>, format: Format) -> Answer {
        let as_usual = renderer.is_none() && *self.method != Method::HEAD;
        let kept = match self.cause {
            Cause::Limited(decision, Some(kept)) if as_usual && !decision.is_blocked() => {
                kept.refusal(&decision, format, || self.render(None, format))
            }
            Cause::Unidentified if as_usual => {
                Some(UNIDENTIFIED.get_or_init(|| self.render(None, format)))
            }
            _ => None,
        };
        kept.map_or_else(|| Answer::Made(Box::new(self.render(renderer, format))), Answer::Kept)
    }

    fn render(&self, renderer: Option<&Renderer>, format: Format) -> Response<Bytes> {
        let mut response = renderer.map_or_else(|| self.problem(), |render| render(self));
        let headers = response.headers_mut();
        fields::add(headers, CACHE_CONTROL, || HeaderValue::from_static("no-store"));
        match self.cause {
            Cause::Limited(decision, kept) => {
                fields::add_retry_after(headers, &decision, format);
                Fields::new(kept, &decision, format).append_to(headers);
            }
            Cause::Unidentified => {
                fields::add(headers, WWW_AUTHENTICATE, || {
                    HeaderValue::from_static("Bearer realm=\"api\"")
                });
            }
            Cause::StoreFailed(_) => {
                fields::add(headers, RETRY_AFTER, || HeaderValue::from_static("1"))
            }
        }
        if *self.method == Method::HEAD {
            // RFC 9110, section 9.3.2: the fields of a GET, its length included, and no content.
            let length = response.body().len();
            fields::add(response.headers_mut(), CONTENT_LENGTH, || length.into());
            *response.body_mut() = Bytes::new();
        }
        response
    }
}

/// What strangers get. Nothing in it depends on the policy.
static UNIDENTIFIED: OnceLock<Response<Bytes>> = OnceLock::new();

/// A refusal that is ready to be sent.
pub(crate) enum Answer {
    /// A usual one.
    Kept(&'static Response<Bytes>),
    /// Any other. In a box, for an admitted request makes room for it too.
    Made(Box<Response<Bytes>>),
}

impl Answer {
    pub(crate) fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Kept(response) => response.clone(),
            Self::Made(response) => *response,
        }
    }
}

impl fmt::Debug for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the header fields: credentials are among them.
        f.debug_struct("Refusal")
            .field("reason", &self.reason())
            .field("method", &self.method)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}
