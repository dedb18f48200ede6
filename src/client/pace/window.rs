//! How many requests may be without an answer, while it is not known how many the server admits.
//! Times are nanoseconds since the pacer's origin.

/// The initial window of [RFC 6928](https://www.rfc-editor.org/rfc/rfc6928), in requests instead of
/// segments.
const LEAST_AT_FIRST: u64 = 10;

/// The part of the burst that may be sent before the first answer.
const AT_FIRST: u64 = 10;

const SECOND: u64 = 1_000_000_000;

/// After this time without an answer, twice as many requests may be sent. A server may take long to
/// answer, and is not made to answer one request after another.
const PATIENCE: u64 = SECOND;

/// A window that is full is not filled again within this time in slow start, even if its requests
/// are answered much sooner. So a client that is next to the server leaves something to those that
/// are not, or that have to connect first.
const ROUND: u64 = SECOND / 10;

/// The same while a probe is on its way. It is so long because the next probe is sent when this one
/// is answered, and not before; but one that is never answered does not stop the endpoint.
const PATIENCE_WITH_A_PROBE: u64 = 30 * SECOND;

/// A part of a request, by which the window can grow.
const PART: u64 = 1 << 16;

/// A congestion window, as TCP has it ([RFC 5681](https://www.rfc-editor.org/rfc/rfc5681)): it
/// begins small and grows with each admitted request, so that a server that is stricter than the
/// policy refuses a few requests, and not a whole burst. After a refusal it is one request, the
/// probe, until that one is admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// In parts of a request; `u64::MAX` if there is no bound.
    size: u64,
    /// The window is unbounded from this size on.
    most: u64,
    /// Up to this size it grows by half a request for each admitted one, and after that by one in
    /// the time in which all of its requests are answered.
    threshold: u64,
    /// Since when no request was answered that was sent later. `None` until the next request is
    /// dispatched, if there was much room at the last answer.
    since: Option<u64>,
    /// When the window, which was full, may be filled again.
    full_until: u64,
    is_probing: bool,
    /// When a request was last refused.
    refused_at: u64,
    /// How many requests are without an answer that were sent before that. While a probe is on its
    /// way, they do not count: their answers say nothing about the time after the refusal, and may
    /// take long.
    older: u64,
}

fn at_first(most: u64) -> u64 {
    let size = (most / AT_FIRST).max(LEAST_AT_FIRST * PART);
    if size < most { size } else { u64::MAX }
}

impl Window {
    /// No bound.
    pub(super) const UNBOUNDED: Self = Self {
        size: u64::MAX,
        most: 0,
        threshold: 0,
        since: None,
        full_until: 0,
        is_probing: false,
        refused_at: 0,
        older: 0,
    };

    /// The window of an endpoint to which nothing was sent yet. The policy allows bursts of so many
    /// requests.
    pub(super) fn new(burst: u64) -> Self {
        let most = burst.saturating_mul(PART);
        Self { size: at_first(most), most, threshold: u64::MAX, ..Self::UNBOUNDED }
    }

    /// The server has no units until then, and all its clients come back at that time: each begins
    /// small again, so that the first one does not take all (RFC 5681, section 4.1).
    pub(super) fn restart(&mut self, until: u64) {
        if self.most > 0 && !self.is_probing {
            self.size = self.size.min(at_first(self.most));
            self.threshold = u64::MAX;
            self.since = Some(until);
        }
    }

    /// The window of an endpoint whose limit had the window `old` before.
    pub(super) fn inherit(self, old: Self) -> Self {
        if self.most == 0 || old.most == 0 {
            return self;
        }
        // As many as the server has admitted at a time are known to be admitted.
        let known = if old.is_bounded() { old.size } else { old.most };
        let size = if old.is_probing { old.size } else { known.max(self.size.min(self.most)) };
        let size = if size < self.most || old.is_probing { size } else { u64::MAX };
        Self { size, most: self.most, ..old }
    }

    /// Whether the limit is the own one of an endpoint.
    pub(super) fn is_own(&self) -> bool {
        self.most > 0
    }

    /// The same window, as if nothing had been sent yet.
    pub(super) fn anew(self, now: u64) -> Self {
        if self.most == 0 { self } else { Self { since: Some(now), ..Self::new(self.most / PART) } }
    }

    #[inline]
    pub(super) fn is_bounded(&self) -> bool {
        self.size != u64::MAX
    }

    /// When one more request may be sent, if so many are without an answer, and none is answered
    /// until then.
    #[inline]
    pub(super) fn opens(&self, unanswered: u64) -> u64 {
        if self.size == u64::MAX { 0 } else { self.opens_bounded(unanswered) }
    }

    #[inline]
    fn opens_bounded(&self, unanswered: u64) -> u64 {
        let unanswered = unanswered.saturating_sub(self.older).saturating_mul(PART);
        if unanswered < self.size {
            return self.full_until;
        }
        // The window doubles with each time of patience.
        let doublings = (unanswered / self.size).ilog2() + 1;
        let patience = if self.is_probing { PATIENCE_WITH_A_PROBE } else { PATIENCE };
        // A window that is full has been since a request was dispatched.
        let since = self.since.unwrap_or(0);
        since.saturating_add(patience.saturating_mul(doublings.into()))
    }

    /// A request is sent, and so many others have no answer. If none of these counts, the time
    /// begins from which it is counted how long no answer has come.
    #[inline]
    pub(super) fn send(&mut self, now: u64, in_flight: u64) {
        if in_flight <= self.older {
            self.since = Some(now);
        }
    }

    /// A request that was sent at that time has its answer, or will have none.
    #[inline]
    pub(super) fn land(&mut self, sent_at: u64) {
        if self.older > 0 && sent_at <= self.refused_at {
            self.older -= 1;
        }
    }

    /// A request was refused while so many others have no answer: the next one is a probe.
    pub(super) fn leave_behind(&mut self, now: u64, in_flight: u64) {
        if self.is_probing {
            (self.refused_at, self.older) = (now, in_flight);
        }
    }

    /// A request is dispatched, and so many are without an answer now.
    #[inline]
    pub(super) fn dispatch(&mut self, now: u64, unanswered: u64) {
        self.since.get_or_insert(now);
        let is_slow_start = self.threshold == u64::MAX && !self.is_probing;
        let unanswered = unanswered.saturating_sub(self.older);
        if is_slow_start && unanswered.saturating_mul(PART) >= self.size {
            self.full_until = now.saturating_add(ROUND);
        }
    }

    /// A request was admitted that was sent at that time, after the last refusal, and so many are
    /// without an answer. The clock is read only if they may fill the window soon.
    ///
    /// The time without an answer goes on after an answer to a request that was sent before it
    /// began. Otherwise a server that takes a minute to answer would be sent few requests in each
    /// minute, since many answers arrive in that time.
    #[inline]
    pub(super) fn admitted(&mut self, sent_at: u64, unanswered: u64, now: impl FnOnce() -> u64) {
        if !self.is_bounded() {
            return;
        }
        let has_room = unanswered.saturating_mul(2 * PART) < self.size && !self.is_probing;
        if has_room {
            self.since = None;
        } else if self.since.is_none_or(|since| sent_at >= since) {
            self.since = Some(now());
        }
        let grown = if self.is_probing {
            (self.is_probing, self.older) = (false, 0);
            if self.threshold == u64::MAX { at_first(self.most) } else { self.threshold }
        } else if self.size < self.threshold {
            self.size + PART / 2
        } else {
            self.size + (PART * PART / self.size).max(1)
        };
        self.size = if grown < self.most { grown } else { u64::MAX };
    }

    /// A request was refused, and the next one is a probe. After it, the window is as large as it
    /// was if the `rate` is known, by which requests are sent then; otherwise it is half as large.
    pub(super) fn refused(&mut self, now: u64, unanswered: u64, knows_rate: bool) {
        if !self.is_probing {
            let after = if knows_rate { unanswered + 1 } else { unanswered.div_ceil(2) };
            self.threshold = after.max(2) * PART;
        }
        self.probe(now);
    }

    /// A request was refused by a limit whose window begins anew at a known time, and the next one
    /// is a probe. After it, the window begins small, as those of other clients do.
    pub(super) fn refused_until_known(&mut self, now: u64) {
        self.threshold = u64::MAX;
        self.probe(now);
    }

    fn probe(&mut self, now: u64) {
        // The limit is no endpoint's own any more: nothing would open the window again.
        if self.most == 0 {
            return;
        }
        self.size = PART;
        self.since = Some(now);
        self.is_probing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_without_an_answer_begins_with_the_answer_or_with_the_next_request() {
        // 100 requests at first.
        let mut window = Window::new(1000);
        window.send(0, 0);
        assert_eq!(window.opens(100), PATIENCE);

        // Half of the window waits for answers, so the answer counts.
        window.admitted(SECOND, 50, || 3 * SECOND);
        window.dispatch(4 * SECOND, 51);
        assert_eq!(window.opens(101), 3 * SECOND + PATIENCE);

        // There is much room, so the clock need not be read.
        window.admitted(0, 50, || unreachable!("the clock is not read"));
        window.dispatch(6 * SECOND, 51);
        window.dispatch(7 * SECOND, 52);
        assert_eq!(window.opens(101), 6 * SECOND + PATIENCE);
    }
}
