//! One limit: what the policy says about it, and what the server reports.

use std::time::Duration;

use super::bucket::{Bucket, nanos};
use super::learned::{Learned, backoff};
use super::settings::Settings;
use super::share::{Share, Spent};
use super::window::Window;
use crate::client::hints::{ReportedQuota, Standing};
use crate::client::log::{Event, Events, Measured};
use crate::values::{Entry, LimitName, Quota};

const SECOND: u64 = 1_000_000_000;

/// How long a quota that the server has reported is used, unless the server reports it again; and
/// what refusals have taught, after the last one.
pub(super) const BELIEF: u64 = 3600 * SECOND;

/// How late a timer may be without slowing down an even pace.
const EVEN_SLACK: Duration = Duration::from_millis(10);

/// The buckets of a limit. A request takes its cost from each of them.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: LimitName,
    pub(super) quota: Quota,
    jitter: Duration,
    /// The longest pause that the server can ask for.
    longest_pause: u64,
    /// What this client may send by its policy, whatever the server reports.
    own: Bucket,
    /// The server's bucket as far as it is known. Other clients may take units from it too.
    server: Bucket,
    /// The quota that the server last reported, and when.
    told: Option<(ReportedQuota, u64)>,
    /// How often the server has reported another quota than before.
    changes: u64,
    pub(super) paused_until: u64,
    /// When the limit has units again that was last reported to have none.
    reported_until: u64,
    /// Which part of its windows this client takes.
    share: Share,
    /// Bounds the requests without an answer, if this is the endpoint's own limit.
    window: Window,
    /// What refusals have taught, if there were any lately.
    learned: Option<Box<Learned>>,
    /// The latest time at which the server's bucket is full, by all reports since the last moment
    /// without requests in flight.
    full_by: u64,
    /// How many requests are dispatched and not sent yet.
    pending: u64,
    /// How many requests have been sent and have no response yet.
    in_flight: u64,
}

/// When one more request would be due, by the policy, by the server's bucket and by the pause; and
/// the number of the quota by which the second of these was calculated.
pub(super) type DueTimes = [u64; 4];

impl Pair {
    pub(super) fn new(entry: &Entry, settings: &Settings) -> Self {
        let (quota, jitter) = (entry.quota(), settings.jitter);
        let bucket = Bucket::new(quota, entry.cost(), jitter);
        Self {
            name: entry.name(),
            quota,
            jitter,
            longest_pause: nanos(settings.max_pause),
            own: bucket,
            server: bucket,
            told: None,
            changes: 0,
            paused_until: 0,
            reported_until: 0,
            share: Share::default(),
            window: Window::UNBOUNDED,
            learned: None,
            full_by: 0,
            pending: 0,
            in_flight: 0,
        }
    }

    /// The same limit, with requests spread evenly.
    pub(super) fn even(self) -> Self {
        Self { own: self.own.even(EVEN_SLACK), ..self }
    }

    /// The same limit, if it is the own one of an endpoint.
    pub(super) fn own(self) -> Self {
        let burst = self.quota.burst() / u32::try_from(self.own.cost()).unwrap_or(u32::MAX);
        Self { window: Window::new(burst.into()), ..self }
    }

    /// The limit had another quota or cost before. All that was spent, learned and reported stays.
    pub(super) fn inherit(&mut self, old: Self, now: u64) {
        self.own.inherit(&old.own, now);
        self.told = old.told;
        if let Some(((burst, window), _)) = self.told {
            self.server.adopt(burst, window, self.quota, self.jitter, self.longest_pause);
        }
        self.server.inherit(&old.server, now);
        if old.paused_until > now {
            self.server.empty_until(old.paused_until, 0);
        }
        (self.paused_until, self.reported_until) = (old.paused_until, old.reported_until);
        self.full_by = old.full_by;
        // It says what the server admits to an endpoint, and not to those that share a limit.
        self.learned = old.learned.filter(|_| self.window.is_own());
        if self.window.is_own() {
            let is_same = self.own.step() == old.own.step();
            self.share = if is_same { old.share } else { old.share.with_other_costs() };
        }
        self.changes = old.changes + 1;
        self.window = self.window.inherit(old.window);
    }

    /// So many requests are without a response now, and so many are dispatched and not sent yet.
    pub(super) fn recount(&mut self, in_flight: u64, pending: u64, now: u64) {
        (self.in_flight, self.pending) = (in_flight, pending);
        self.own.replan(pending, now);
        self.server.replan(pending, now);
        self.paces_mut().for_each(|pace| pace.replan(pending, now));
    }

    /// Until when it makes a difference that the limit is known, if no more is sent.
    pub(super) fn matters_until(&self) -> u64 {
        let is_full_at = self.own.full_at().max(self.server.full_at());
        // A probe is to be sent until then, if one is.
        let probe = self.window.opens(1);
        let forgets = self.forgets_quota_at().max(self.forgets_rate_at());
        let forgets = forgets.max(self.share.forgets_at());
        is_full_at.max(self.paused_until).max(probe).max(forgets.unwrap_or(0))
    }

    /// How many requests are without a response, and how many are dispatched and not sent yet.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.in_flight, self.pending)
    }

    /// When a request may be dispatched after `ahead` others, by what is certain: the policy, the
    /// server's reports and a pause. What was learned may turn out to be wrong until then.
    #[inline]
    pub(super) fn due(&self, ahead: u64) -> u64 {
        self.own.due(ahead).max(self.server.due(ahead)).max(self.paused_until)
    }

    /// When the next request is to be dispatched, by all that is known.
    #[inline]
    pub(super) fn dispatch_at(&self) -> u64 {
        self.due(0).max(self.window.opens(self.unanswered())).max(self.learned_due(0))
    }

    /// The same for a request after `ahead` others, as far as it can be foreseen.
    pub(super) fn expected(&self, ahead: u64) -> u64 {
        self.due(ahead).max(self.learned_due(ahead))
    }

    #[inline]
    fn learned_due(&self, ahead: u64) -> u64 {
        self.paces().map(|pace| pace.due(ahead)).max().unwrap_or(0)
    }

    #[inline]
    fn pace(&self) -> Option<&Bucket> {
        self.learned.as_ref()?.pace()
    }

    /// The time between two requests, now and as measured, if a rate was learned.
    pub(super) fn learned_intervals(&self, now: u64) -> Option<(u64, u64)> {
        let is_old = self.forgets_rate_at().is_some_and(|at| at <= now);
        self.learned.as_ref()?.intervals().filter(|_| !is_old)
    }

    /// What delays requests besides the policy and what is reported to be left.
    #[inline]
    fn paces(&self) -> impl Iterator<Item = &Bucket> {
        self.pace().into_iter().chain(self.share.bucket())
    }

    #[inline]
    fn paces_mut(&mut self) -> impl Iterator<Item = &mut Bucket> {
        let learned = self.learned.as_mut().and_then(|learned| learned.pace_mut());
        learned.into_iter().chain(self.share.bucket_mut())
    }

    #[inline]
    fn unanswered(&self) -> u64 {
        self.pending + self.in_flight
    }

    /// When a dispatched request may be sent, after `ahead` others.
    #[inline]
    pub(super) fn opens(&self, ahead: u64) -> u64 {
        let paced = self.paces().map(|pace| pace.opens(ahead)).max().unwrap_or(0);
        self.own.opens(ahead).max(self.server.opens(ahead)).max(paced)
    }

    pub(super) fn due_times(&self, ahead: u64) -> DueTimes {
        let (own, server) = (self.own.due(ahead), self.server.due(ahead));
        [own, server, self.paused_until, self.changes]
    }

    pub(super) fn remaining(&self, now: u64) -> u32 {
        let is_known = self.learned_intervals(now).is_some();
        let is_shared = self.share.forgets_at().is_some_and(|at| now < at);
        let learned = self.pace().filter(|_| is_known);
        let shared = self.share.bucket().filter(|_| is_shared);
        let buckets = [Some(&self.own), Some(&self.server), learned, shared];
        buckets.into_iter().flatten().map(|it| it.remaining(now)).min().unwrap_or(0)
    }

    /// The time in which a unit comes back, by what the server reports.
    pub(super) fn interval(&self) -> u64 {
        self.server.interval()
    }

    /// A request is dispatched.
    #[inline]
    pub(super) fn dispatch(&mut self, now: u64) {
        self.pending += 1;
        self.window.dispatch(now, self.unanswered());
        self.own.dispatch(now);
        self.server.dispatch(now);
        self.paces_mut().for_each(|pace| pace.dispatch(now));
    }

    /// A dispatched request is sent.
    #[inline]
    pub(super) fn send(&mut self, now: u64) {
        self.pending -= 1;
        self.window.send(now, self.in_flight);
        self.in_flight += 1;
        self.share.send(now);
        self.own.send(now);
        self.server.send(now);
        self.paces_mut().for_each(|pace| pace.send(now));
    }

    /// A request is dispatched and sent at once.
    #[inline]
    pub(super) fn pass(&mut self, now: u64) {
        self.dispatch(now);
        self.send(now);
    }

    /// A dispatched request is not sent now.
    pub(super) fn give_back(&mut self) {
        self.pending -= 1;
        let pending = self.pending;
        self.own.give_back(pending);
        self.server.give_back(pending);
        self.paces_mut().for_each(|pace| pace.give_back(pending));
    }

    /// A dispatched request can't be sent in time: gives its units back, and delays the next
    /// dispatch until that one could be sent.
    pub(super) fn lapse(&mut self) {
        self.give_back();
        let pending = self.pending;
        self.own.catch_up(pending);
        self.server.catch_up(pending);
        self.paces_mut().for_each(|pace| pace.catch_up(pending));
    }

    /// A request that was sent at that time has its response, or will have none.
    #[inline]
    pub(super) fn land(&mut self, sent_at: u64) {
        self.in_flight -= 1;
        self.window.land(sent_at);
    }

    /// `full_by` holds only for the requests that were in flight when it was reported.
    #[inline]
    pub(super) fn forget_if_idle(&mut self) {
        if self.in_flight == 0 {
            self.full_by = 0;
        }
    }

    /// Drops what is too old: a quota that the server has not reported again, and what refusals
    /// have taught.
    #[inline]
    pub(super) fn pass_time(&mut self, now: u64, events: &mut Events) {
        if self.forgets_quota_at().is_some_and(|at| at <= now) {
            self.forget_quota(now, events);
        }
        if self.forgets_rate_at().is_some_and(|at| at <= now) {
            self.forget_rate(now, events, false);
        }
        self.share.pass_time(now);
    }

    /// Whether an answer may change when the next request is dispatched, besides what it reports.
    #[inline]
    pub(super) fn is_learning(&self) -> bool {
        self.window.is_bounded() || self.learned.is_some()
    }

    /// A request was admitted. `is_current` if it was sent after the last refusal was known. The
    /// clock is read only if the time makes a difference.
    #[inline]
    pub(super) fn admitted(&mut self, sent_at: u64, now: impl FnOnce() -> u64, is_current: bool) {
        let unanswered = self.unanswered();
        let Some(learned) = &mut self.learned else {
            if is_current {
                self.window.admitted(sent_at, unanswered, now);
            }
            return;
        };
        let now = now();
        if is_current {
            self.window.admitted(sent_at, unanswered, || now);
        }
        learned.admitted(sent_at, now, self.own.step());
    }

    /// A request was refused, the last one of `in_a_row`. The server names a time to wait or not,
    /// and reports about this limit or not. Returns how long to wait.
    #[cold]
    pub(super) fn refused(
        &mut self,
        sent_at: u64,
        now: u64,
        in_a_row: u32,
        named: Option<u64>,
        standing: Option<&Standing>,
    ) -> u64 {
        // A window that was reported to begin anew does so a little later, since times are rounded.
        let since = sent_at.wrapping_sub(self.reported_until);
        let is_early = self.reported_until > 0 && since < SECOND;
        let spent = standing.and_then(|standing| self.spent(standing));
        let window = self.reported_window(standing);
        self.share.refused();
        // When it begins is all that there is to know: nothing was wrong with the rate.
        if is_early || window.is_some() {
            if let Some(spent) = spent {
                self.share.spent(sent_at, now, spent);
                self.share.refused_by_window(now, self.pending, spent);
            }
            self.window.refused_until_known(now);
            self.window.leave_behind(now, self.in_flight);
            return named.unwrap_or(SECOND).max(backoff(in_a_row, SECOND));
        }
        let (unanswered, least) = (self.unanswered(), self.own.step());
        self.window.refused(now, unanswered, self.pace().is_some());
        self.window.leave_behind(now, self.in_flight);
        let longest = self.longest_pause;
        let learned = self.learned.get_or_insert_with(|| Box::new(Learned::new(longest)));
        learned.refused(sent_at, now, in_a_row, named, least, self.pending)
    }

    /// One more request was refused that was sent before the last refusal was known. Returns how
    /// long to wait.
    #[cold]
    pub(super) fn refused_too(
        &mut self,
        now: u64,
        named: Option<u64>,
        standing: Option<&Standing>,
    ) -> u64 {
        self.share.refused();
        if let Some(spent) = standing.and_then(|standing| self.spent(standing)) {
            self.share.refused_by_window(now, self.pending, spent);
        }
        match &mut self.learned {
            Some(learned) => learned.refused_too(now, named),
            None => named.unwrap_or(SECOND),
        }
    }

    /// How much is left of the limit's window, if it has one.
    fn reported_window(&self, standing: Option<&Standing>) -> Option<u64> {
        let exhausted = standing?.exhausted.map(nanos);
        exhausted.filter(|exhausted| self.is_window(*exhausted))
    }

    /// What is reported about the limit's window, if it has one whose units are spent.
    fn spent(&self, standing: &Standing) -> Option<Spent> {
        let left = self.reported_window(Some(standing))?;
        let (units, length) = standing.quota.or(self.told.map(|(quota, _)| quota))?;
        let length = length.map(nanos).filter(|length| *length >= left);
        Some(Spent { left, units: units.into(), cost: self.own.cost(), length })
    }

    /// No pause holds any more. It is not known what the server admits now, so the window begins
    /// anew.
    pub(super) fn resume(&mut self, now: u64) {
        if self.paused_until > now {
            self.paused_until = now;
            self.server.follow(&self.own);
        }
        if let Some(learned) = &mut self.learned {
            learned.resume(now);
        }
        self.reported_until = 0;
        self.window = self.window.anew(now);
    }

    /// The same, and all is forgotten that responses have taught.
    pub(super) fn unlearn(&mut self, now: u64, events: &mut Events) {
        self.resume(now);
        self.forget_rate(now, events, true);
        self.share = Share::default();
        self.full_by = 0;
        self.changes += 1;
        self.forget_quota(now, events);
    }

    #[cold]
    fn forget_quota(&mut self, now: u64, events: &mut Events) {
        let was_stricter = self.is_stricter();
        self.told = None;
        self.server.forget(&self.own, self.quota, self.jitter);
        if was_stricter {
            events.add(now, Event::QuotaDropped { limit: self.name });
        }
    }

    #[cold]
    fn forget_rate(&mut self, now: u64, events: &mut Events, is_by_hand: bool) {
        if self.learned.take().is_some_and(|learned| learned.intervals().is_some()) {
            events.add(now, Event::RateForgotten { limit: self.name, is_by_hand });
        }
    }

    /// Whether the quota that the server has reported is stricter than that of the policy.
    fn is_stricter(&self) -> bool {
        self.server.is_stricter_than(&self.own)
    }

    /// The rate that was last measured, if requests are sent by it.
    pub(super) fn measured(&self) -> Option<Measured> {
        self.learned.as_ref()?.last_measured()
    }

    /// When something is dropped that is too old then.
    pub(super) fn forgets_at(&self) -> Option<u64> {
        let all = [self.forgets_quota_at(), self.forgets_rate_at(), self.share.forgets_at()];
        all.into_iter().flatten().min()
    }

    /// When the quota is dropped that the server has reported.
    #[inline]
    fn forgets_quota_at(&self) -> Option<u64> {
        self.told.map(|(_, at)| at.saturating_add(BELIEF))
    }

    /// When that is dropped which refusals have taught.
    #[inline]
    fn forgets_rate_at(&self) -> Option<u64> {
        self.learned.as_ref().map(|learned| learned.forgets_at())
    }

    /// A response reports about this limit.
    pub(super) fn take_report(
        &mut self,
        standing: &Standing,
        sent_at: u64,
        now: u64,
        events: &mut Events,
    ) {
        // What was said before a pause does not end it.
        let lower = sent_at >= self.paused_until;
        let mut is_news = false;
        if let Some(quota) = standing.quota {
            let is_known = self.told.is_some_and(|(told, _)| told == quota);
            self.told = Some((quota, now));
            if !is_known {
                let (burst, window) = quota;
                let was_stricter = self.is_stricter();
                is_news =
                    self.server.adopt(burst, window, self.quota, self.jitter, self.longest_pause);
                let limit = self.name;
                match (is_news, was_stricter, self.is_stricter()) {
                    (true, _, true) => {
                        events.add(now, Event::QuotaAdopted { limit, burst, window });
                    }
                    (true, true, false) => events.add(now, Event::QuotaDropped { limit }),
                    _ => {}
                }
            }
        }
        // The server decided at some time between these two.
        let earliest = self.server.full_later_than(sent_at, standing.remaining);
        let latest = self.server.full_by(now, standing.remaining);
        if is_news {
            // Earlier reports were about a bucket with another quota.
            self.changes += 1;
            self.full_by = latest;
            self.server.believe(latest, self.in_flight, self.pending);
        } else {
            self.full_by = self.full_by.max(latest);
            self.server.correct(earliest, self.full_by, self.in_flight, self.pending, lower);
        }
        // Whatever it reports, a request is sent in the end: only its response can correct the
        // report.
        let latest = now.saturating_add(self.longest_pause).max(self.own.due(0));
        self.server.due_by(latest);
        if let Some(exhausted) = standing.exhausted {
            if let Some(spent) = self.spent(standing) {
                self.share.spent(sent_at, now, spent);
            }
            self.wait_for(exhausted, now);
        }
    }

    /// A limit is exhausted for that time: this one, or one that is not known.
    pub(super) fn wait_for(&mut self, exhausted: Duration, now: u64) {
        let exhausted = nanos(exhausted);
        if self.is_window(exhausted) {
            self.reported_until = now.saturating_add(exhausted.min(self.longest_pause));
            self.pause_until(self.reported_until);
            self.window.restart(self.reported_until);
        }
    }

    /// Whether a limit that is exhausted for that time is a window. A bucket that refills unit by
    /// unit reports when the next unit is back, which is no reason to pause; a window that starts
    /// anew reports when it does.
    fn is_window(&self, exhausted: u64) -> bool {
        exhausted > self.interval().div_ceil(SECOND).saturating_mul(SECOND)
    }

    /// No request is sent before that time, dispatched ones included. After it, requests are sent
    /// one interval apart until a response reports that more units are left.
    pub(super) fn pause_until(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
        self.server.empty_until(self.paused_until, self.pending);
    }
}
