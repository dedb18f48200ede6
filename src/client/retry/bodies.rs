//! The bodies of requests that may have to be sent again.

/// How the body of a request is kept, in case that the request has to be sent again.
///
/// It is asked before the request is sent, and not only when it is refused: by then the body is
/// gone. Implemented by [`CloneBodies`], which is the default, by [`SendOnce`], and by every
/// closure `Fn(&B) -> Option<B>` that is [`Clone`]; see
/// [`RetryPolicyBuilder::clone_bodies_with`](super::RetryPolicyBuilder::clone_bodies_with).
pub trait CloneBody<B>: Clone {
    /// A body that says the same, or `None` if there is none: then the request is sent once, and a
    /// refusal is handed back.
    fn clone_body(&self, body: &B) -> Option<B>;
}

/// Clones every body. A body of one shared piece such as `Full<Bytes>` is not copied by that.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBodies;

impl<B: Clone> CloneBody<B> for CloneBodies {
    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Clones no body, of whatever type: no request is sent again.
#[derive(Clone, Copy, Debug, Default)]
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
