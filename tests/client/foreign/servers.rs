//! A server with a limiter that all clients share.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::service_fn;

use super::algorithms::{Algorithm, Limit, Limiter};
use super::dialects::{Dialect, Standing};
use super::network::Network;
use super::{Nanos, SECOND, nanos};
use crate::support::Answering;

/// What a server does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) limit: Limit,
    pub(super) refused: Refused,
    pub(super) dialect: Dialect,
    pub(super) network: Network,
    /// How long a request that is admitted is served.
    pub(super) service: Duration,
    pub(super) clock: Clock,
}

/// What a refused request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nothing.
    Free,
    /// As much as one that is admitted.
    Counted,
    /// No request is admitted for a window after it.
    Blocking,
}

/// The server's clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// Since 1970. The clock is far away from the client's, and each run is the same.
    At(Nanos),
    /// The client's.
    Synchronized,
}

/// A server. Clones are the same server.
#[derive(Clone)]
pub(super) struct Server {
    setup: Setup,
    started: Instant,
    /// The time at which the server was started, since 1970.
    epoch: Nanos,
    ways: Arc<AtomicU32>,
    state: Arc<Mutex<State>>,
}

struct State {
    limiter: Box<dyn Limiter>,
    blocked_until: Nanos,
    got: Vec<Got>,
}

/// A request that a server got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Got {
    pub(super) client: usize,
    /// When it was sent and when it was there, since the server was started.
    pub(super) sent_at: Nanos,
    pub(super) at: Nanos,
    pub(super) is_admitted: bool,
}

impl Server {
    pub(super) fn start(setup: Setup) -> Self {
        let epoch = match setup.clock {
            Clock::At(epoch) => epoch,
            Clock::Synchronized => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                nanos(now.expect("after 1970"))
            }
        };
        let state = State { limiter: setup.limit.limiter(), blocked_until: 0, got: Vec::new() };
        Self {
            setup,
            started: Instant::now(),
            epoch,
            ways: Arc::default(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// When the server was started, since 1970.
    pub(super) fn epoch(&self) -> Nanos {
        self.epoch
    }

    /// How long ago the server was started.
    pub(super) fn elapsed(&self) -> Nanos {
        nanos(self.started.elapsed())
    }

    /// The requests that it got, in their order.
    pub(super) fn got(&self) -> Vec<Got> {
        self.state.lock().unwrap().got.clone()
    }

    /// The server as the client with that number sees it.
    pub(super) fn for_client(&self, client: usize) -> Answering<String> {
        let server = self.clone();
        Answering::new(service_fn(move |_: Request<String>| {
            let server = server.clone();
            let sent_at = server.elapsed();
            async move {
                let Setup { network, service, .. } = server.setup;
                sleep(network.next_trip(&server.ways)).await;
                let (standing, held) = server.arrive(client, sent_at);
                if standing.is_admitted {
                    if held + nanos(service) > 0 {
                        sleep(Duration::from_nanos(held) + service).await;
                    }
                    server.state.lock().unwrap().limiter.end();
                }
                sleep(network.next_trip(&server.ways)).await;
                Ok(server.respond(standing))
            }
        }))
    }

    /// Decides, and returns what the limiter knows then and how long it holds the request.
    fn arrive(&self, client: usize, sent_at: Nanos) -> (Standing, Nanos) {
        let Setup { limit, refused, .. } = self.setup;
        let elapsed = self.elapsed();
        let now = self.epoch + elapsed;
        let state = &mut *self.state.lock().unwrap();
        let is_admitted = state.blocked_until <= now && state.limiter.wait(now) == 0;
        let mut held = 0;
        match refused {
            _ if is_admitted => held = state.limiter.admit(now),
            Refused::Free => {}
            Refused::Counted => state.limiter.charge_refused(now),
            Refused::Blocking => state.blocked_until = now + limit.window,
        }
        state.got.push(Got { client, sent_at, at: elapsed, is_admitted });
        let blocked = state.blocked_until.saturating_sub(now);
        let standing = Standing {
            is_admitted,
            now,
            wait: state.limiter.wait(now).max(blocked),
            remaining: if blocked > 0 { 0 } else { state.limiter.remaining(now) },
            reset: state.limiter.reset(now).max(blocked),
            quota: limit.reported(),
        };
        (standing, held)
    }

    fn respond(&self, standing: Standing) -> Response<String> {
        let status =
            if standing.is_admitted { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        let mut response = Response::builder().status(status);
        for (name, value) in self.setup.dialect.render(standing) {
            response = response.header(name, value);
        }
        response.body(String::new()).unwrap()
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limit: Limit { algorithm: Algorithm::FixedWindow, requests: 50, window: 60 * SECOND },
            refused: Refused::Free,
            dialect: Dialect::SILENT,
            network: Network::of_millis(50),
            service: Duration::ZERO,
            // 20.25 s after a full minute.
            clock: Clock::At(1_764_417_620_250_000_000),
        }
    }
}
