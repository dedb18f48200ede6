use http::{HeaderMap, Method, StatusCode};

use super::hints::retry_after;

/// Which responses mean that a rate limit has refused the request: those with the status 429, and
/// by choice 503 and 403 as some servers use them.
///
/// A refusal pauses its endpoint for all callers, and its request is sent again. The
/// [`RetryPolicy`](super::RetryPolicy) of a [`BolnaClientLayer`](super::BolnaClientLayer) decides
/// what is a refusal for the whole client. A [`PaceLayer`](super::PaceLayer) on its own has to be
/// [told](super::PaceLayer::refusals):
///
/// ```
/// use bolna_rate_limit::client::{PaceLayer, Pacer, Refusals, RetryPolicy};
///
/// let retry = RetryPolicy::builder().retry_unavailable().build()?;
/// assert_eq!(retry.refusals(), Refusals::new().unavailable());
///
/// // For a stack with other retries.
/// let layer = PaceLayer::new(Pacer::new()).refusals(Refusals::new().unavailable());
/// # Ok::<(), bolna_rate_limit::client::RetryPolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Refusals {
    unavailable: bool,
    /// Only if `unavailable` is set too.
    any_unavailable: bool,
    forbidden: bool,
}

impl Refusals {
    /// Responses with the status 429 only.
    #[must_use]
    pub const fn new() -> Self {
        Self { unavailable: false, any_unavailable: false, forbidden: false }
    }

    /// Also responses with the status 503 that say when to come back, in `Retry-After` or
    /// another field of the [first three kinds](crate::client#how-times-are-read). A 503 without
    /// one usually means that the server is broken or overloaded, and is no refusal.
    ///
    /// All of them pause the endpoint. A request that got one is sent again only if its method is
    /// idempotent (RFC 9110, section 9.2.2): GET, HEAD, OPTIONS, TRACE, PUT or DELETE. With another
    /// method it may already have had its effect, and the caller gets the response.
    #[must_use]
    pub const fn unavailable(self) -> Self {
        Self { unavailable: true, ..self }
    }

    /// Also all responses with the status 503, whether they say when to come back or not. nginx's
    /// `limit_req` and `limit_conn` send 503 without `Retry-After`, unless `limit_req_status` or
    /// `add_header` says otherwise.
    ///
    /// As with [`unavailable`](Self::unavailable), they pause the endpoint, and requests are sent
    /// again only if their method is idempotent. Choose it only if the server's 503 means a rate
    /// limit. With other servers, each 503 by a single broken replica would pause all callers, and
    /// slow them down as a stricter limit does.
    #[must_use]
    pub const fn any_unavailable(self) -> Self {
        Self { unavailable: true, any_unavailable: true, ..self }
    }

    /// Also responses with the status 403 that have `X-RateLimit-Remaining: 0` or say when to come
    /// back, as for [503](Self::unavailable). [GitHub's API][github] sends the one if its rate
    /// limit is exhausted, and the other if requests come too fast.
    ///
    /// Such a request had no effect, and is sent again whatever its method.
    ///
    /// [github]: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    #[must_use]
    pub const fn forbidden(self) -> Self {
        Self { forbidden: true, ..self }
    }

    /// Whether a response with this status and these header fields is a refusal.
    #[must_use]
    #[inline]
    pub fn contains(self, status: StatusCode, headers: &HeaderMap) -> bool {
        match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => {
                self.any_unavailable || (self.unavailable && retry_after(headers).is_some())
            }
            StatusCode::FORBIDDEN => {
                self.forbidden && (has_none_left(headers) || retry_after(headers).is_some())
            }
            _ => false,
        }
    }

    /// Whether a request with this method that was refused with this status had no effect, or may
    /// have it twice.
    pub(super) fn may_be_repeated(status: StatusCode, method: &Method) -> bool {
        status != StatusCode::SERVICE_UNAVAILABLE || method.is_idempotent()
    }
}

/// Whether `X-RateLimit-Remaining` is 0.
fn has_none_left(headers: &HeaderMap) -> bool {
    let remaining = headers.get("x-ratelimit-remaining").map(|value| value.as_bytes().trim_ascii());
    remaining.is_some_and(|digits| !digits.is_empty() && digits.iter().all(|digit| *digit == b'0'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_is_chosen_is_a_refusal() {
        const NONE_LEFT: &[(&str, &str)] = &[("x-ratelimit-remaining", " 0")];
        const SOME_LEFT: &[(&str, &str)] = &[("x-ratelimit-remaining", "10")];
        const LATER: &[(&str, &str)] = &[("retry-after", "1")];
        let all = Refusals::new().unavailable().forbidden();
        for (status, fields, refusals, expected) in [
            (429, &[][..], Refusals::new(), true),
            (429, LATER, Refusals::new(), true),
            (503, LATER, Refusals::new(), false),
            (503, LATER, Refusals::new().forbidden(), false),
            (503, LATER, Refusals::new().unavailable(), true),
            (503, NONE_LEFT, all, false),
            (503, &[], all, false),
            (503, &[], Refusals::new().any_unavailable(), true),
            (503, LATER, Refusals::new().any_unavailable(), true),
            (503, &[], Refusals::new().any_unavailable().unavailable(), true),
            (403, LATER, Refusals::new().any_unavailable(), false),
            (500, &[], Refusals::new().any_unavailable(), false),
            (403, NONE_LEFT, Refusals::new(), false),
            (403, NONE_LEFT, Refusals::new().unavailable(), false),
            (403, NONE_LEFT, Refusals::new().forbidden(), true),
            (403, LATER, Refusals::new().forbidden(), true),
            (403, SOME_LEFT, all, false),
            (403, &[("x-ratelimit-remaining", "")], all, false),
            (403, &[("x-ratelimit-remaining", "none")], all, false),
            (403, &[], all, false),
            (200, NONE_LEFT, all, false),
            (200, LATER, all, false),
            (500, LATER, all, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(refusals.contains(status, &headers), expected, "{status} {fields:?}");
        }
    }
}
