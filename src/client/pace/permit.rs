//! What keeps a request in flight.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Extensions;

use super::endpoint::PacedEndpoint;

/// Keeps one of the places that a limit of
/// [requests in flight](crate::policy::PolicyBuilder::concurrent) has, for something that lasts
/// longer than a request, such as a phone call. Dropping it gives the place back, and the next
/// request that waits for one is sent.
///
/// There are three ways to get one:
/// * [`Permit::of`] a response, for what the request has started;
/// * [`Pacer::acquire`](super::Pacer::acquire) waits in the queue like a request, and is for
///   requests that are sent in another way than through the layer;
/// * [`Pacer::occupy`](super::Pacer::occupy) does not wait, and is for what runs already.
///
/// A permit can be moved to another task, and belongs to the pacer, not to one clone of the client.
/// Like tokio's [`OwnedSemaphorePermit`](tokio::sync::OwnedSemaphorePermit), it can't be cloned, so
/// that there is one owner, which decides when the call has ended. An owner that has to find it by
/// an id keeps a map:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use bolna_rate_limit::Policy;
/// use bolna_rate_limit::client::{BolnaClientLayer, Permit};
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::{BodyExt, Full};
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use tower::{BoxError, Layer, ServiceExt};
///
/// /// The calls that run, by their ids.
/// type Running = Mutex<HashMap<String, Option<Permit>>>;
///
/// async fn dial(
///     http: Client<HttpConnector, Full<Bytes>>,
///     leads: Vec<String>,
///     running: &Running,
/// ) -> Result<(), BoxError> {
///     // At most 10 calls at once.
///     let policy = Policy::bolna().concurrent("call", 10).build()?;
///     let client = BolnaClientLayer::with_policy(policy).layer(http);
///     for lead in leads {
///         let call = Request::post("http://127.0.0.1:3000/call").body(Full::from(lead))?;
///         // Waits while 10 calls run.
///         let response = client.clone().oneshot(call).await?;
///         if response.status().is_success() {
///             let permit = Permit::of(response.extensions());
///             let id = response.into_body().collect().await?.to_bytes();
///             let id = String::from_utf8(id.into())?;
///             running.lock().expect("no panic").insert(id, permit);
///         }
///     }
///     Ok(())
/// }
///
/// /// A webhook says that a call has ended.
/// fn ended(running: &Running, id: &str) {
///     running.lock().expect("no panic").remove(id);
/// }
/// ```
///
/// A permit that is never dropped keeps its place for ever. If a webhook can be lost, or can be
/// faster than the response that names the call, drop permits that are older than a call can last.
#[must_use = "dropping a permit gives its place back at once"]
pub struct Permit {
    /// `None` if the path is exempt.
    share: Option<Share>,
    /// That of a client further in.
    _inner: Option<Box<Permit>>,
}

/// One of those that keep a request in flight: the body of the response, or a [`Permit`].
pub(super) struct Share {
    request: Arc<InFlight>,
}

/// The permits of one request, which are given back when the last [`Share`] is dropped.
struct InFlight {
    endpoint: Arc<PacedEndpoint>,
    shares: AtomicUsize,
    /// How often its permits are taken: once, or not at all if the policy had no such endpoint at
    /// that time. For a moment it is twice, if a share is taken while the last one is dropped.
    taken: AtomicUsize,
}

/// In the extensions of a response. It keeps nothing in flight.
#[derive(Clone)]
struct Handle {
    request: Arc<InFlight>,
    /// The one that this replaces: that of a client further in.
    inner: Option<Arc<Handle>>,
}

impl Permit {
    /// The permit of the request to which this response belongs; `extensions` are those of the
    /// response. The request then counts as in flight until both the body of the response has ended
    /// and the permit was dropped. Further permits of one response keep the same place. If the
    /// request has passed through several of these clients, one around the other, the permit keeps
    /// its place in each of them.
    ///
    /// The best time to call this is before the body is read: if it has ended already, the place
    /// may have gone to another request. The permit counts nevertheless, so that for a while one
    /// more than allowed may be in flight.
    ///
    /// Returns `None` if there is no place to keep: the endpoint has no limit of requests in
    /// flight, neither in the policy nor reported by the server, or is exempt; the request was
    /// refused; or the response does not come from this client.
    ///
    /// Takes the extensions because all clients have them, whatever the type of their responses:
    /// `http`, `reqwest` and `tonic`. A layer around this one may have removed them.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().map(Self::of_handle)
    }

    fn of_handle(Handle { request, inner }: &Handle) -> Self {
        let share = Some(Share::of(request));
        Self { share, _inner: inner.as_deref().map(|inner| Box::new(Self::of_handle(inner))) }
    }

    pub(super) const fn new(share: Option<Share>) -> Self {
        Self { share, _inner: None }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.share.as_ref().map(|share| share.request.endpoint.endpoint());
        f.debug_struct("Permit").field("endpoint", &endpoint).finish()
    }
}

impl Share {
    /// The first share of a request. Its permits are taken, unless the policy has no such endpoint
    /// any more.
    pub(super) fn new(endpoint: Arc<PacedEndpoint>, is_taken: bool) -> Self {
        let (shares, taken) = (AtomicUsize::new(1), AtomicUsize::new(is_taken.into()));
        Self { request: Arc::new(InFlight { endpoint, shares, taken }) }
    }

    /// A further share. If the permits were given back already, takes them anew.
    fn of(request: &Arc<InFlight>) -> Self {
        if request.shares.fetch_add(1, Ordering::Relaxed) == 0 {
            let is_taken = Arc::clone(&request.endpoint).occupy();
            request.taken.fetch_add(is_taken.into(), Ordering::Relaxed);
        }
        Self { request: Arc::clone(request) }
    }

    /// Lets [`Permit::of`] find the request.
    pub(super) fn insert_into(&self, extensions: &mut Extensions) {
        let inner = extensions.remove().map(Arc::new);
        extensions.insert(Handle { request: Arc::clone(&self.request), inner });
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let InFlight { endpoint, shares, taken } = &*self.request;
        if shares.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        let less = |taken: usize| taken.checked_sub(1);
        // Otherwise it would give back what another request has taken since.
        if taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            Arc::clone(endpoint).release();
        }
    }
}
