//! A server that answers as the test says, and records the requests that it received.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower::retry::{Policy, Retry};
use tower::{Service, ServiceExt, service_fn};

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct Server {
    started: Instant,
    got: Arc<Mutex<Vec<Got>>>,
}

struct Got {
    at: Duration,
    request: Request<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), got: Arc::default() }
    }

    /// A client of the server, which answers the first request by `answer(1)`, and so on.
    pub(crate) fn client<P>(
        &self,
        policy: P,
        answer: impl Fn(usize) -> Result<Response<String>, io::Error> + Clone,
    ) -> impl Service<Request<String>, Response = Response<String>, Error = io::Error> + Clone
    where
        P: Policy<Request<String>, Response<String>, io::Error> + Clone,
    {
        let server = self.clone();
        Retry::new(
            policy,
            service_fn(move |request| {
                let mut got = server.got.lock().unwrap();
                got.push(Got { at: server.elapsed(), request });
                let answer = answer(got.len());
                async { answer }
            }),
        )
    }

    /// How many requests the server received.
    pub(crate) fn requests(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// When the server received them, since it was started.
    pub(crate) fn times(&self) -> Vec<Duration> {
        self.got.lock().unwrap().iter().map(|got| got.at).collect()
    }

    /// How long ago the server was started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The requests themselves.
    pub(crate) fn take(&self) -> Vec<Request<String>> {
        self.got.lock().unwrap().drain(..).map(|got| got.request).collect()
    }
}

/// Sends a request with a policy, to a server that answers as the test says. Returns the final
/// result, the times at which the server received the request, and when the client had its
/// response.
pub(crate) async fn exchange<P>(
    policy: P,
    request: Request<String>,
    answer: impl Fn(usize) -> Response<String> + Clone,
) -> (Response<String>, Vec<Duration>, Duration)
where
    P: Policy<Request<String>, Response<String>, io::Error> + Clone,
{
    let server = Server::start();
    let response =
        server.client(policy, move |number| Ok(answer(number))).oneshot(request).await.unwrap();
    (response, server.times(), server.elapsed())
}

pub(crate) fn post() -> Request<String> {
    Request::post("/call").body("body".to_owned()).unwrap()
}

/// A response with that status and fields, and its number as its body.
pub(crate) fn response(
    status: StatusCode,
    fields: &[(&'static str, &str)],
    number: usize,
) -> Response<String> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(number.to_string()).unwrap()
}

/// `429 Too Many Requests`.
pub(crate) fn refusal(fields: &[(&'static str, &str)], number: usize) -> Response<String> {
    response(StatusCode::TOO_MANY_REQUESTS, fields, number)
}

/// A refusal at first, and then `200 OK`.
pub(crate) fn refusal_once(fields: &[(&'static str, &str)], number: usize) -> Response<String> {
    if number == 1 { refusal(fields, number) } else { response(StatusCode::OK, &[], number) }
}
