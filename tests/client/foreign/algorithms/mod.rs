//! How limiters decide.

mod concurrency;
mod counter;
mod gcra;
mod log;
mod nginx;
mod tests;
mod tokens;
mod window;

use super::Nanos;

/// How many requests a server admits, and by which algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) algorithm: Algorithm,
    /// At least 1. Of requests in flight if the algorithm is [`Algorithm::Concurrency`].
    pub(super) requests: u64,
    pub(super) window: Nanos,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Algorithm {
    /// A counter that starts anew at each multiple of the window since 1970.
    FixedWindow,
    /// A counter that starts anew with the first request after the window.
    WindowFromFirst,
    /// The times of the requests of the last window.
    SlidingLog,
    /// The requests of this window, and a share of those of the window before.
    SlidingCounter,
    /// A bucket of whole tokens, of which one comes back at a time.
    Tokens { burst: u64 },
    /// The generic cell rate algorithm, which is also a bucket of tokens with fractions.
    Gcra { burst: u64 },
    /// nginx's `limit_req`.
    Nginx { burst: u64, delays: bool },
    /// Requests in flight.
    Concurrency,
}

/// The state of a limit, for one key.
pub(super) trait Limiter: Send {
    /// How long it will be until a request is admitted if none comes before; 0 if it is admitted
    /// now.
    fn wait(&self, now: Nanos) -> Nanos;

    /// Admits a request. Returns how long the limiter holds it before it is served.
    fn admit(&mut self, now: Nanos) -> Nanos;

    /// Charges a request that is refused as if it were admitted.
    fn charge_refused(&mut self, now: Nanos);

    /// An admitted request has been served.
    fn end(&mut self) {}

    /// How many more would be admitted now.
    fn remaining(&self, now: Nanos) -> u64;

    /// How long it will be until all of the limit is there, if no more requests come.
    fn reset(&self, now: Nanos) -> Nanos;
}

impl Limit {
    /// The limit's state before the first request.
    pub(super) fn limiter(self) -> Box<dyn Limiter> {
        let Self { requests, window, .. } = self;
        match self.algorithm {
            Algorithm::FixedWindow => Box::new(window::FixedWindow::aligned(requests, window)),
            Algorithm::WindowFromFirst => Box::new(window::FixedWindow::new(requests, window)),
            Algorithm::SlidingLog => Box::new(log::SlidingLog::new(requests, window)),
            Algorithm::SlidingCounter => Box::new(counter::SlidingCounter::new(requests, window)),
            Algorithm::Tokens { burst } => Box::new(tokens::Tokens::new(self.interval(), burst)),
            Algorithm::Gcra { burst } => Box::new(gcra::Gcra::new(self.interval(), burst)),
            Algorithm::Nginx { burst, delays } => {
                Box::new(nginx::Nginx::new(requests, window, burst, delays))
            }
            Algorithm::Concurrency => Box::new(concurrency::Concurrency::new(requests)),
        }
    }

    /// The time in which one unit comes back.
    pub(super) fn interval(self) -> Nanos {
        self.window / self.requests
    }

    /// How many requests are admitted at once, and the time in which so many come back: the limit
    /// as a server reports it.
    pub(super) fn reported(self) -> (u64, Nanos) {
        match self.algorithm {
            Algorithm::Tokens { burst } | Algorithm::Gcra { burst } => {
                (burst, self.interval() * burst)
            }
            Algorithm::Nginx { burst, .. } => (burst + 1, self.interval() * (burst + 1)),
            _ => (self.requests, self.window),
        }
    }
}
