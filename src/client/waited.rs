//! How long a request has waited.

use std::time::Duration;

use http::Extensions;

/// For how long the client has held a request back, and how often it has sent it, as the response
/// says in its extensions.
///
/// ```
/// use bolna_rate_limit::client::{BolnaClientLayer, Waited};
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let client = ServiceBuilder::new().layer(BolnaClientLayer::new()).service(service_fn(
///     async |_: Request<String>| Ok::<_, BoxError>(Response::new(String::new())),
/// ));
/// let response = client.oneshot(Request::post("/call").body(String::new())?).await?;
/// let waited = Waited::of(response.extensions());
/// println!("sent {} times after {:?}", waited.attempts(), waited.total());
/// # assert_eq!((waited.attempts(), waited.total()), (1, std::time::Duration::ZERO));
/// # Ok(())
/// # }
/// ```
///
/// The response is that of the last attempt, and tells of all of them. Only the wait in the queue
/// before an attempt that got no response, because its connection broke, is not known any more.
///
/// If a request passes through several of these clients, one around the other, the waits of all are
/// added, and each attempt of the innermost one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    in_queue: Duration,
    before_retries: Duration,
    attempts: u32,
}

impl Waited {
    /// Reads the extensions of a response. Those of a request that was sent at once, and only once,
    /// have no entry, so that such a request costs nothing: this then returns no wait and one
    /// attempt, as it does for a response that does not come from this client.
    ///
    /// Takes the extensions because all clients have them, whatever the type of their responses. A
    /// layer around this one may have removed them.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        let at_once =
            Self { in_queue: Duration::ZERO, before_retries: Duration::ZERO, attempts: 1 };
        extensions.get().copied().unwrap_or(at_once)
    }

    /// How long the request was in the [pacer](super::Pacer)'s queue, from its arrival until it was
    /// sent; all attempts together. It includes the time in which the inner service got ready after
    /// the dispatch.
    #[must_use]
    pub const fn in_queue(&self) -> Duration {
        self.in_queue
    }

    /// How long the delays of the [`RetryPolicy`](super::RetryPolicy) were, from a refusal or a
    /// broken connection until the request arrived again in the queue, all together. Zero for
    /// retries of another layer.
    #[must_use]
    pub const fn before_retries(&self) -> Duration {
        self.before_retries
    }

    /// Both: how much earlier the request would have been sent for the last time without limits,
    /// apart from the time in which the server answered the attempts before.
    #[must_use]
    pub const fn total(&self) -> Duration {
        self.in_queue.saturating_add(self.before_retries)
    }

    /// How often the request was sent, at least once. Retries of another layer do not count.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A request was so long in the queue, to which the response with these extensions belongs.
    #[cold]
    pub(super) fn add_queue(extensions: &mut Extensions, in_queue: Duration) {
        let waited = Self::of(extensions);
        let in_queue = waited.in_queue.saturating_add(in_queue);
        extensions.insert(Self { in_queue, ..waited });
    }

    /// The same after a delay before a retry.
    pub(super) const fn delayed(self, delay: Duration) -> Self {
        Self { before_retries: self.before_retries.saturating_add(delay), ..self }
    }

    /// The same if the last delay ended so much later than it was to, or earlier.
    pub(super) const fn moved(self, later: Duration, earlier: Duration) -> Self {
        let before_retries = self.before_retries.saturating_add(later).saturating_sub(earlier);
        Self { before_retries, ..self }
    }

    /// The same with a further attempt, or several.
    pub(super) const fn then(self, next: Self) -> Self {
        Self {
            in_queue: self.in_queue.saturating_add(next.in_queue),
            before_retries: self.before_retries.saturating_add(next.before_retries),
            attempts: self.attempts.saturating_add(next.attempts),
        }
    }
}
