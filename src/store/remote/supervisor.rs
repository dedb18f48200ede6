//! The supervisor: when to connect to a server, and what is reported about it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::backoff::Backoff;
use super::failure::Reason;
use crate::store::StoreEvent;
use crate::store::strikes::Strikes;

/// A connection that has lasted this long, in nanoseconds, counts as one that has served.
const STEADY: u64 = 1_000_000_000;

/// The time between the answer to a beat and the next beat, in nanoseconds.
const BEAT: u64 = 1_000_000_000;

/// The shortest time between the beginnings of two attempts to connect, in nanoseconds.
const APART: u64 = 50_000_000;

/// The state of the connection to one server.
#[derive(Debug)]
pub(super) struct Supervisor {
    state: State,
    backoff: Backoff,
    strikes: Strikes,
    /// When the last attempt to connect began.
    attempt: Option<u64>,
    told: Told,
    /// Events that are not delivered yet.
    pub(super) events: VecDeque<StoreEvent>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Not connected. The next attempt begins then.
    Waiting {
        until: u64,
    },
    Connecting,
    Connected {
        server: Arc<str>,
        since: u64,
        /// Whether a call was answered.
        has_served: bool,
        beat: Beat,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Beat {
    Due(u64),
    /// Sent; it has to be answered by then.
    InFlight(u64),
}

/// What was last reported about the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The number of reported losses whose ends are not reported yet: more than one if the server
    /// has taken over from several servers that were lost.
    pub(super) losses: u32,
    /// The kind of the last reason.
    kind: Option<&'static str>,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It broke, or its server can't be used any more.
    Broken,
    /// Too many calls have failed. A new connection shows whether the server can be used, but needs
    /// a backoff.
    TooManyFailures,
}

impl Supervisor {
    /// The state before the first attempt to connect.
    pub(super) fn new() -> Self {
        Self {
            state: State::Waiting { until: 0 },
            backoff: Backoff::default(),
            strikes: Strikes::default(),
            attempt: None,
            told: Told::default(),
            events: VecDeque::new(),
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// The server that is connected.
    pub(super) const fn server(&self) -> Option<&Arc<str>> {
        match &self.state {
            State::Connected { server, .. } => Some(server),
            _ => None,
        }
    }

    pub(super) const fn told(&self) -> &Told {
        &self.told
    }

    /// Takes over the losses that were reported about other servers. If this one can be used, they
    /// have ended.
    pub(super) fn inherit(&mut self, losses: u32) {
        self.told.losses += losses;
        if let State::Connected { server, .. } = &self.state {
            let server = Arc::clone(server);
            self.report_return(&server);
        }
    }

    /// Whether an attempt to connect is due. If so, it counts as begun.
    pub(super) fn begins(&mut self, now: u64) -> bool {
        let due = matches!(self.state, State::Waiting { until } if until <= now);
        if due {
            self.state = State::Connecting;
            self.attempt = Some(now);
        }
        due
    }

    /// Whether a beat is due. If so, it counts as sent, and has to be answered within `patience`.
    pub(super) fn beats(&mut self, now: u64, patience: u64) -> bool {
        let State::Connected { beat, .. } = &mut self.state else { return false };
        let due = matches!(beat, Beat::Due(at) if *at <= now);
        if due {
            *beat = Beat::InFlight(now + patience);
        }
        due
    }

    /// Whether the beat in flight should have been answered by now.
    pub(super) fn is_silent(&self, now: u64) -> bool {
        matches!(&self.state, State::Connected { beat: Beat::InFlight(by), .. } if *by <= now)
    }

    pub(super) fn connected(&mut self, now: u64, server: Arc<str>) {
        self.report_return(&server);
        self.strikes = Strikes::default();
        let beat = Beat::Due(now + BEAT);
        self.state = State::Connected { server, since: now, has_served: false, beat };
    }

    /// Connecting has failed.
    pub(super) fn refused(&mut self, now: u64, random: u32, name: &Arc<str>, reason: &Reason) {
        self.report_loss(name, reason);
        self.state = State::Waiting { until: now + self.backoff.next(random) };
    }

    /// A call was answered.
    pub(super) fn served(&mut self, now: u64) {
        self.strikes.succeeded(now);
        if let State::Connected { has_served, .. } = &mut self.state {
            *has_served = true;
        }
    }

    /// The beat was answered.
    pub(super) fn beaten(&mut self, now: u64) {
        if let State::Connected { beat, .. } = &mut self.state {
            *beat = Beat::Due(now + BEAT);
        }
    }

    /// A call has failed. Returns whether too many have.
    pub(super) fn failed(&mut self, now: u64) -> bool {
        self.is_up() && self.strikes.failed(now)
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self, now: u64, random: u32, ending: Ending, reason: &Reason) {
        let State::Connected { server, since, has_served, .. } = &self.state else { return };
        let (server, lasted) = (Arc::clone(server), now.saturating_sub(*since));
        // The backoff of a former outage says nothing about a server that has served since. But a
        // server that fails calls soon after each connection needs a backoff.
        let broken = ending == Ending::Broken;
        let long = lasted >= STEADY.min(self.backoff.last());
        let well = lasted >= STEADY || (*has_served && (broken || long));
        self.report_loss(&server, reason);
        if well {
            self.backoff.forget();
        }
        let wait = if well && (broken || lasted >= STEADY) {
            let attempt = self.attempt.unwrap_or(0);
            (attempt + APART).saturating_sub(now)
        } else {
            self.backoff.next(random)
        };
        self.state = State::Waiting { until: now + wait };
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<u64> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting => None,
            State::Connected { beat: Beat::Due(at) | Beat::InFlight(at), .. } => Some(*at),
        }
    }

    fn report_loss(&mut self, server: &Arc<str>, reason: &Reason) {
        let before = self.told.kind.replace(reason.kind);
        if self.told.losses == 0 {
            self.told.losses = 1;
            self.events.push_back(reason.lost(server));
        } else if before.is_some_and(|before| before != reason.kind) {
            self.events.push_back(reason.still_lost(server));
        }
    }

    /// Reports one return for each loss that was reported.
    fn report_return(&mut self, server: &Arc<str>) {
        for _ in 0..self.told.losses {
            self.events.push_back(StoreEvent::Regained { server: Some(Arc::clone(server)) });
        }
        self.told = Told::default();
    }
}
