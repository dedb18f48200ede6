//! The bodies of requests that may have to be sent again.

/// How to keep a copy of a request's body, in case the request has to be sent again.
///
/// The retry policy calls it before it sends a request, because after a refusal the body is gone.
/// It is implemented by [`CloneBodies`] (the default), by [`SendOnce`], and by every closure
/// `Fn(&B) -> Option<B>` that is [`Clone`]; see
/// [`RetryPolicyBuilder::clone_bodies_with`](super::RetryPolicyBuilder::clone_bodies_with).
///
/// The [example of `clone_bodies_with`](super::RetryPolicyBuilder::clone_bodies_with) copies empty
/// bodies only.
pub trait CloneBody<B>: Clone {
    /// Returns a body with the same content, or `None` if the body can't be copied. With `None` the
    /// request is sent only once, and the caller gets a refusal unchanged.
    fn clone_body(&self, body: &B) -> Option<B>;
}

/// Clones every body. This does not copy the data of a body of one shared buffer, such as
/// `Full<Bytes>`.
///
/// The client in the [example of the module](crate::client) does so.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "its name is its only value")]
pub struct CloneBodies;

impl<B: Clone> CloneBody<B> for CloneBodies {
    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Clones no body, of whatever type: no request is sent again.
///
/// ```
/// use bolna_rate_limit::client::{BolnaClientLayer, RetryPolicy, SendOnce};
///
/// // For uploads that are streams: paced, and the caller gets a refusal.
/// let retry: RetryPolicy<SendOnce> = RetryPolicy::builder().send_once().build()?;
/// let layer = BolnaClientLayer::new().retry(retry);
/// # Ok::<(), bolna_rate_limit::client::RetryPolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "its name is its only value")]
pub struct SendOnce;

impl<B> CloneBody<B> for SendOnce {
    fn clone_body(&self, _: &B) -> Option<B> {
        None
    }
}

impl<B, F: Fn(&B) -> Option<B> + Clone> CloneBody<B> for F {
    fn clone_body(&self, body: &B) -> Option<B> {
        self(body)
    }
}
