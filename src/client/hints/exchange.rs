//! A request and its response.

use std::cell::Cell;
use std::time::Duration;

use http::header::{AGE, DATE};
use http::{HeaderMap, HeaderName};

use super::clock::{self, ServerClock};
use super::later::{self, Later, Unit};

/// The header fields of a response that has just been received, and what turns the times in them
/// into waits.
#[derive(Debug)]
pub(in crate::client) struct Exchange<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The clock of the server that sent the response, and when the request was sent.
    clock: Option<(&'a ServerClock, u64)>,
    /// The server's time, once it has been asked for.
    now: Cell<Option<Duration>>,
}

impl<'a> Exchange<'a> {
    /// A response to a request that was sent at `sent_at`, counted from the origin of the clock.
    pub(in crate::client) fn new(
        headers: &'a HeaderMap,
        clock: &'a ServerClock,
        sent_at: u64,
    ) -> Self {
        Self { headers, clock: Some((clock, sent_at)), now: Cell::new(None) }
    }

    /// A response from a server of which nothing else is known.
    pub(in crate::client) fn alone(headers: &'a HeaderMap) -> Self {
        Self { headers, clock: None, now: Cell::new(None) }
    }

    /// How long ago the response was made, if it comes from a cache (RFC 9111, section 5.1). The
    /// first value counts, and an invalid one is ignored. Some caches send 0 with responses that
    /// they have just got from the server.
    #[inline]
    pub(super) fn age(&self) -> Duration {
        match self.headers.get(AGE) {
            Some(age) if age != "0" => match later::values(age.as_bytes()).next() {
                Some(age) => match later::read(age, Unit::Seconds) {
                    Some(Later::In(age)) => age,
                    _ => Duration::ZERO,
                },
                None => Duration::ZERO,
            },
            _ => Duration::ZERO,
        }
    }

    /// The longest time that a field asks to wait, of all its values that are understood.
    pub(super) fn longest(&self, name: &HeaderName, unit: Unit) -> Option<Duration> {
        let lines = self.headers.get_all(name).iter();
        let values = lines.flat_map(|line| later::values(line.as_bytes()));
        values.filter_map(|value| self.wait(later::read(value, unit)?)).max()
    }

    /// How long to wait from now on. `None` if that time was over when the response came out of a
    /// cache.
    pub(super) fn wait(&self, later: Later) -> Option<Duration> {
        match later {
            Later::At(time) => Some(time.saturating_sub(self.server_time()).min(later::LONGEST)),
            Later::In(wait) => {
                let age = self.age();
                if age.is_zero() {
                    Some(wait)
                } else {
                    wait.checked_sub(age).filter(|it| !it.is_zero())
                }
            }
        }
    }

    fn server_time(&self) -> Duration {
        if let Some(now) = self.now.get() {
            return now;
        }
        // The date of a response from a cache is as old as the response.
        let date = if self.age().is_zero() { self.date() } else { None };
        let now = match self.clock {
            Some((clock, sent_at)) => clock.now(date, sent_at),
            None => clock::now_by(date),
        };
        self.now.set(Some(now));
        now
    }

    /// The `Date` field, if there is exactly one.
    fn date(&self) -> Option<Duration> {
        let mut dates = self.headers.get_all(DATE).iter();
        let date = dates.next().filter(|_| dates.next().is_none())?;
        match later::read(date.as_bytes(), Unit::Seconds)? {
            Later::At(date) => Some(date),
            Later::In(_) => None,
        }
    }
}
