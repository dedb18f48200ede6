//! The part of a client in a window that other clients share. Times are nanoseconds since the
//! pacer's origin.
//!
//! A limit that reports when its window begins anew, and how large it is, teaches no rate: nothing
//! was wrong with it. But if other clients have spent a part of the window, the first one that
//! comes would take all of the next one. So each takes the next windows evenly.

use super::bucket::Bucket;

const SECOND: u64 = 1_000_000_000;

/// Of a window that is shared, the client takes this part at once ...
const PARTS_AT_ONCE: u64 = 32;

/// ... and the whole of it, if no other client takes any, in four fifths of its length. So each of
/// two clients has half before the window ends, and one that is alone by then loses no more than
/// that part of its last window.
const TAKEN_IN: (u64, u64) = (4, 5);

/// A window of few requests for its length is not taken evenly: each would wait for long.
const LONGEST_INTERVAL: u64 = 10 * SECOND;

/// A client that has spent so many of ten units of a window was alone.
const ALONE: u64 = 9;

/// What is known about the windows of a limit.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// How many requests were sent and not refused since the window began.
    sent: u64,
    /// When the window ends; 0 if that is not known.
    ends: u64,
    /// Whether it was reported to be spent.
    is_spent: bool,
    /// How long a window is, as far as it is known.
    length: u64,
    /// Whether other clients have spent units of the last window that was spent.
    is_shared: bool,
    /// When requests can be sent if a window is shared, and how long that is believed.
    pace: Option<(Bucket, u64)>,
}

/// A report that the units of a window are spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// How long it is until the next window begins.
    pub(super) left: u64,
    /// How many units a window has, and how many a request costs.
    pub(super) units: u64,
    pub(super) cost: u64,
    /// How long a window is, if that is reported too.
    pub(super) length: Option<u64>,
}

impl Share {
    pub(super) fn bucket(&self) -> Option<&Bucket> {
        self.pace.as_ref().map(|(bucket, _)| bucket)
    }

    #[inline]
    pub(super) fn bucket_mut(&mut self) -> Option<&mut Bucket> {
        self.pace.as_mut().map(|(bucket, _)| bucket)
    }

    /// A request is sent.
    #[inline]
    pub(super) fn send(&mut self, now: u64) {
        if self.ends != 0 && now >= self.ends {
            self.begin(now);
        }
        self.sent += 1;
    }

    /// A window has begun. If its length is known, so is when it ends.
    #[cold]
    fn begin(&mut self, now: u64) {
        let since = now - self.ends;
        self.ends = match self.length {
            0 => 0,
            length => now.saturating_add(length - since % length),
        };
        (self.sent, self.is_spent) = (0, false);
    }

    /// A request was refused, and did not spend anything.
    pub(super) fn refused(&mut self) {
        self.sent = self.sent.saturating_sub(1);
    }

    /// The response to a request that was sent at `sent_at` reports that a window is spent.
    pub(super) fn spent(&mut self, sent_at: u64, now: u64, spent: Spent) {
        let Spent { left, units, cost, length } = spent;
        let ends = now.saturating_add(left);
        // What is left is rounded up, so the same window may seem to end a second later.
        let is_next = sent_at >= self.ends || ends > self.ends.saturating_add(2 * SECOND);
        if !self.is_spent || is_next {
            // One request more would not have been admitted.
            let spent = self.sent.saturating_add(1).saturating_mul(cost);
            self.is_shared = spent < units.saturating_mul(ALONE) / 10;
            if !self.is_shared {
                self.pace = None;
            }
        }
        (self.ends, self.is_spent) = (ends, true);
        self.length = length.unwrap_or(self.length.max(left));
    }

    /// A request was refused because a window is spent, while so many others are dispatched and
    /// not sent yet. If the windows are shared, the next ones are taken evenly, until two have
    /// passed without a refusal.
    pub(super) fn refused_by_window(&mut self, now: u64, pending: u64, spent: Spent) {
        let (part, of) = TAKEN_IN;
        let requests = (spent.units / spent.cost).max(1);
        let interval = (self.length.saturating_mul(part) / requests.saturating_mul(of)).max(1);
        if !self.is_shared || interval > LONGEST_INTERVAL {
            return;
        }
        let until = self.ends.saturating_add(self.length.saturating_mul(2));
        let (bucket, believed) =
            self.pace.get_or_insert_with(|| (Bucket::of_requests(interval), until));
        *believed = until;
        bucket.pace(now, interval, (requests / PARTS_AT_ONCE).max(1));
        bucket.replan(pending, now);
    }

    /// When the windows are not taken evenly any more.
    #[inline]
    pub(super) fn forgets_at(&self) -> Option<u64> {
        self.pace.as_ref().map(|(_, until)| *until)
    }

    /// Drops what is too old.
    #[inline]
    pub(super) fn pass_time(&mut self, now: u64) {
        if self.forgets_at().is_some_and(|at| at <= now) {
            self.pace = None;
        }
    }

    /// The same windows of a limit that had another cost, or another quota, before.
    pub(super) fn with_other_costs(self) -> Self {
        Self { pace: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of 100 requests in a minute, of which `left` seconds are left.
    fn window(left: u64) -> Spent {
        Spent { left: left * SECOND, units: 100, cost: 1, length: Some(60 * SECOND) }
    }

    fn sent(share: &mut Share, now: u64, requests: u64) {
        (0..requests).for_each(|_| share.send(now));
    }

    #[test]
    fn a_client_that_is_alone_is_not_slowed_down() {
        let mut share = Share::default();
        for minute in 0..5 {
            let now = minute * 60 * SECOND;
            sent(&mut share, now, 101);
            share.refused();
            share.spent(now, now, window(60));
            share.refused_by_window(now, 0, window(60));
            assert!(share.bucket().is_none(), "in minute {minute}");
            // A probe that comes too early, by the same window.
            share.spent(now + 30 * SECOND, now + 30 * SECOND, window(30));
            share.refused_by_window(now + 30 * SECOND, 0, window(30));
            assert!(share.bucket().is_none(), "in minute {minute}");
        }
    }

    #[test]
    fn windows_that_others_share_are_taken_evenly_until_two_have_passed() {
        let mut share = Share::default();
        sent(&mut share, 0, 41);
        share.refused();
        share.spent(0, 0, window(60));
        share.refused_by_window(0, 0, window(60));
        let bucket = share.bucket().expect("the window is shared");
        assert_eq!(bucket.interval(), 480_000_000);
        // Three at once, and the fourth half a second later.
        assert_eq!(bucket.due(2), 0);
        assert!(bucket.due(3) > 400_000_000);
        share.pass_time(179 * SECOND);
        assert!(share.bucket().is_some());
        share.pass_time(180 * SECOND);
        assert!(share.bucket().is_none());
    }

    #[test]
    fn what_was_sent_in_windows_that_were_not_spent_does_not_count() {
        let mut share = Share::default();
        sent(&mut share, 0, 101);
        share.spent(0, 0, window(60));
        // Two windows with room to spare, and one that others have spent.
        for minute in 1..4 {
            sent(&mut share, minute * 60 * SECOND, 45);
        }
        let now = 190 * SECOND;
        share.spent(now, now, window(50));
        share.refused_by_window(now, 0, window(50));
        assert!(share.bucket().is_some());
    }

    #[test]
    fn a_window_of_few_requests_is_not_taken_evenly() {
        let mut share = Share::default();
        let day = Spent { left: 3600 * SECOND, units: 100, cost: 1, length: Some(86_400 * SECOND) };
        sent(&mut share, 0, 10);
        share.spent(0, 0, day);
        share.refused_by_window(0, 0, day);
        assert!(share.bucket().is_none(), "each request would wait for a quarter of an hour");
    }
}
