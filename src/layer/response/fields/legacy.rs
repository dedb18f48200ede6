//! `X-RateLimit-*`, for clients that do not know the newer fields.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};

use super::retry_after::whole_seconds;
use crate::values::Decision;

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The meaning of `X-RateLimit-Reset`. No specification defines it, and APIs differ.
///
/// The older fields have room for one limit. If the request is admitted, this is the rate with the
/// fewest further requests left. If it is refused, it is the limit with the longest wait. This can
/// be one of [requests in flight](crate::Quota::concurrent), and `X-RateLimit-Reset` is then in one
/// second.
///
/// ```
/// use bolna_rate_limit::{Account, BolnaRateLimitLayer};
/// use bolna_rate_limit::layer::LegacyReset;
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio_test::block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(BolnaRateLimitLayer::new().legacy_headers(LegacyReset::DeltaSeconds))
///     .service(service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(())) }));
/// let call = Request::post("/call").extension(Account::user("u-17")).body(String::new())?;
/// let response = service.oneshot(call).await?;
/// assert_eq!(response.headers()["x-ratelimit-remaining"], "499");
/// assert_eq!(response.headers()["x-ratelimit-reset"], "1");
/// # Ok::<(), BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LegacyReset {
    /// The seconds from now until the bucket is full again, rounded up.
    DeltaSeconds,
    /// The Unix time in seconds, rounded up, at which the bucket is full again.
    EpochSeconds,
}

pub(super) type Legacy = [(HeaderName, HeaderValue); 3];

/// All three fields.
pub(super) fn fields(decision: &Decision, reset: LegacyReset) -> Legacy {
    let reset = match reset {
        LegacyReset::DeltaSeconds => decision.reset(),
        LegacyReset::EpochSeconds => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_add(decision.reset())
        }
    };
    [
        (X_RATELIMIT_LIMIT, decision.quota().burst().into()),
        (X_RATELIMIT_REMAINING, decision.remaining().into()),
        (X_RATELIMIT_RESET, whole_seconds(reset).into()),
    ]
}
