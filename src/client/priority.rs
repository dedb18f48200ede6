//! Which requests are sent first.

/// Which of the requests that wait are sent first. Put it into the extensions of a request:
///
/// ```
/// use bolna_rate_limit::client::Priority;
/// use http::Request;
///
/// // One of ten thousand calls, which has time.
/// let mut call = Request::post("http://127.0.0.1:3000/call").body(String::new())?;
/// call.extensions_mut().insert(Priority::Bulk);
/// # Ok::<(), http::Error>(())
/// ```
///
/// A client that sends bulk requests only can mark all of them, with
/// [`map_request`](tower::ServiceBuilder::map_request) around the client's layer.
///
/// While requests of both priorities wait for the same units, interactive ones are sent first, and
/// bulk ones keep [a share](super::PacerBuilder::bulk_share): one of ten unless set otherwise. Each
/// priority is sent in the order of arrival, its retries first. While requests of one priority wait
/// alone, nothing is held back from them.
///
/// It orders the requests in the client's queue, and not those that wait for the inner service to
/// get ready: limit requests in flight [by the
/// policy](crate::client#layers-in-which-requests-wait), and not by a layer further in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// A person waits for it. This is the default, and what a request without a priority is.
    #[default]
    Interactive,
    /// It is part of a job that has time.
    Bulk,
}
