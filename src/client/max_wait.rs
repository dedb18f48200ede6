//! How long one request may wait.

use std::time::Duration;

use super::priority::Priority;

/// How long this request may wait in the queue, in place of the [bound of the
/// pacer](super::PacerBuilder::max_wait): longer or shorter. Put it into the extensions of a
/// request, or pass it to [`Pacer::acquire_with`](super::Pacer::acquire_with).
///
/// With [`MaxWait::ZERO`], a request that can't be sent at once fails at once with a
/// [`WaitError`](super::WaitError), which says how long it would have had to wait:
///
/// ```
/// use bolna_rate_limit::client::{BolnaClientLayer, MaxWait, ResponseBody, WaitError};
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use hyper::body::{Bytes, Incoming};
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use tower::{BoxError, Layer, ServiceExt};
///
/// type Http = Client<HttpConnector, Full<Bytes>>;
/// type Answer = Response<ResponseBody<Incoming>>;
///
/// /// `None` if the call can't be made now.
/// async fn try_call(http: Http, layer: &BolnaClientLayer) -> Result<Option<Answer>, BoxError> {
///     let mut call = Request::post("http://127.0.0.1:3000/call").body(Full::default())?;
///     call.extensions_mut().insert(MaxWait::ZERO);
///     match layer.layer(http).oneshot(call).await {
///         Err(error) if error.is::<WaitError>() => Ok(None),
///         answer => answer.map(Some),
///     }
/// }
/// ```
///
/// If the request is refused by the server, its retries may take as long again, counted from the
/// first refusal, or the [total time](super::RetryPolicyBuilder::total_time) of the retry policy if
/// that is less. A request
/// with [`MaxWait::ZERO`] that is refused is not retried: the caller gets the refusal.
///
/// The time in which the process does not run does not count. Nor does the time in which the inner
/// service gets ready, also with [`MaxWait::ZERO`]: limit requests in flight [by the
/// policy](crate::client#layers-in-which-requests-wait), and not by a layer further in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is a duration with a name")]
pub struct MaxWait(pub Duration);

impl MaxWait {
    /// The request does not wait: it is sent at once or fails.
    pub const ZERO: Self = Self(Duration::ZERO);
}

/// How a request waits that is not sent through the layer: see
/// [`Pacer::acquire_with`](super::Pacer::acquire_with). It is made from a [`Priority`], a
/// [`MaxWait`] or both, in either order. By default, the request is
/// [interactive](Priority::Interactive), and the [bound of the
/// pacer](super::PacerBuilder::max_wait) is that of its wait.
///
/// The [example of `acquire_with`](super::Pacer::acquire_with) passes both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitOptions {
    pub(super) priority: Priority,
    pub(super) max_wait: Option<MaxWait>,
}

impl From<Priority> for WaitOptions {
    fn from(priority: Priority) -> Self {
        Self { priority, max_wait: None }
    }
}

impl From<MaxWait> for WaitOptions {
    fn from(max_wait: MaxWait) -> Self {
        Self { priority: Priority::default(), max_wait: Some(max_wait) }
    }
}

impl From<(MaxWait, Priority)> for WaitOptions {
    fn from((max_wait, priority): (MaxWait, Priority)) -> Self {
        Self { priority, max_wait: Some(max_wait) }
    }
}

impl From<(Priority, MaxWait)> for WaitOptions {
    fn from((priority, max_wait): (Priority, MaxWait)) -> Self {
        Self { priority, max_wait: Some(max_wait) }
    }
}
