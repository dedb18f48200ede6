//! A limit of requests in flight: a pool of permits. Times are nanoseconds since the pacer's
//! origin.

use super::error::Lack;
use super::pair::BELIEF;
use crate::client::hints::Concurrent;
use crate::values::{Entry, LimitName};

/// How many permits there are, and how many are taken. A request takes a permit for each unit of
/// its cost when it is dispatched, and gives them back when it has ended.
#[derive(Debug)]
pub(super) struct Pool {
    /// The limit of the policy. Without one, the server has reported the limit.
    policy: Option<(LimitName, u32)>,
    cost: u64,
    /// The limit that the server last reported, and when.
    told: Option<(u32, u64)>,
    lowered: Option<Lowered>,
    /// The permits of requests that are dispatched and not sent yet.
    pending: u64,
    /// The permits of requests that are sent, and of what outlives them.
    taken: u64,
}

/// After a refusal, since other clients have requests in flight too.
#[derive(Clone, Copy, Debug)]
struct Lowered {
    /// How many permits this client had when it was refused, or more that it had when a request was
    /// admitted that was sent since the time `until`.
    most: u64,
    /// From this time on, one more request may be in flight.
    until: u64,
}

impl Pool {
    pub(super) fn new(entry: &Entry) -> Self {
        let policy = Some((entry.name(), entry.quota().limit()));
        let cost = entry.cost().into();
        Self { policy, cost, told: None, lowered: None, pending: 0, taken: 0 }
    }

    /// A limit that only the server knows. `taken` requests are in flight, and `pending`
    /// dispatched.
    pub(super) fn reported(taken: u64, pending: u64) -> Self {
        Self { policy: None, cost: 1, told: None, lowered: None, pending, taken }
    }

    /// The limit had another size or cost before. What was reported stays.
    pub(super) fn inherit(&mut self, old: &Self) {
        (self.told, self.lowered) = (old.told, old.lowered);
    }

    /// Counts requests that have a permit already: so many that are sent or outlive their response,
    /// and so many that are dispatched and not sent yet.
    pub(super) fn count(&mut self, taken: u64, pending: u64) {
        self.taken += taken * self.cost;
        self.pending += pending * self.cost;
    }

    /// The same limit without any requests.
    pub(super) fn anew(self) -> Self {
        Self { pending: 0, taken: 0, ..self }
    }

    pub(super) fn name(&self) -> Option<LimitName> {
        self.policy.map(|(name, _)| name)
    }

    /// A request waits for a permit.
    pub(super) fn lack(&self, now: u64) -> Lack {
        Lack { limit: self.name(), in_flight: Some((self.most(now) / self.cost).max(1)) }
    }

    /// How many permits there are, or `u64::MAX` without a limit.
    pub(super) fn most(&self, now: u64) -> u64 {
        let lowered = self.lowered.map_or(u64::MAX, |lowered| {
            lowered.most.saturating_add(if now < lowered.until { 0 } else { self.cost })
        });
        self.limit().min(lowered)
    }

    /// The same without refusals. One request may always be in flight.
    fn limit(&self) -> u64 {
        let policy = self.policy.map_or(u64::MAX, |(_, most)| most.into());
        let told = self.told.map_or(u64::MAX, |(most, _)| most.into());
        policy.min(told).max(self.cost)
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many more requests may be dispatched.
    pub(super) fn remaining(&self, now: u64) -> u64 {
        self.most(now).saturating_sub(self.taken + self.pending) / self.cost
    }

    /// Whether a request may be dispatched while so many others claim permits.
    pub(super) fn has_room(&self, now: u64, claims: u64) -> bool {
        self.remaining(now) > claims
    }

    /// Whether a dispatched request may be sent: there may be fewer permits than at its dispatch.
    pub(super) fn may_send(&self, now: u64) -> bool {
        self.taken + self.cost <= self.most(now)
    }

    /// A request is dispatched.
    pub(super) fn dispatch(&mut self) {
        self.pending += self.cost;
    }

    /// A dispatched request is not sent now.
    pub(super) fn give_back(&mut self) {
        self.pending -= self.cost;
    }

    /// A dispatched request is sent.
    pub(super) fn send(&mut self) {
        self.give_back();
        self.occupy();
    }

    /// Takes permits, whether there are any or not.
    pub(super) fn occupy(&mut self) {
        self.taken += self.cost;
    }

    pub(super) fn release(&mut self) {
        self.taken -= self.cost;
    }

    /// A response reports about this limit. Returns whether there may be more or fewer permits now.
    pub(super) fn take_report(&mut self, told: Concurrent, now: u64) -> bool {
        let Some(most) = told.most else { return false };
        let before = self.limit();
        self.told = Some((most, now));
        self.limit() != before
    }

    /// A request was admitted. If it was sent when one more could be, as many can be from now on as
    /// are in flight, and as many more as the server reports. Returns whether these are more than
    /// before.
    pub(super) fn admitted(&mut self, sent_at: u64, remaining: Option<u32>) -> bool {
        let limit = self.limit();
        let Some(lowered) = self.lowered.as_mut().filter(|lowered| sent_at >= lowered.until) else {
            return false;
        };
        let most = self.taken.saturating_add(remaining.unwrap_or(0).into());
        let is_more = most > lowered.most;
        lowered.most = lowered.most.max(most);
        if lowered.most >= limit {
            self.lowered = None;
        }
        is_more
    }

    /// The server has refused a request because of this limit, and `release` was called for it:
    /// until that time, no more requests may be in flight than are now.
    pub(super) fn lower(&mut self, until: u64) {
        let until = until.max(self.lowered_until());
        self.lowered = Some(Lowered { most: self.taken.min(self.limit()), until });
    }

    /// Until when no more requests may be in flight than at the last refusal; 0 if there was none.
    pub(super) fn lowered_until(&self) -> u64 {
        self.lowered.map_or(0, |lowered| lowered.until)
    }

    /// Until when no request at all may be sent: no request was in flight at the last refusal, so
    /// none that ends can make room.
    pub(super) fn paused_until(&self) -> u64 {
        self.lowered.filter(|lowered| lowered.most == 0).map_or(0, |lowered| lowered.until)
    }

    /// No pause holds any more: one more request may be in flight now.
    pub(super) fn resume(&mut self, now: u64) {
        if let Some(lowered) = &mut self.lowered {
            lowered.until = lowered.until.min(now);
        }
    }

    /// All is forgotten that responses have taught.
    pub(super) fn unlearn(&mut self) {
        (self.told, self.lowered) = (None, None);
    }

    /// Drops what the server has said too long ago.
    pub(super) fn pass_time(&mut self, now: u64) {
        self.told = self.told.filter(|(_, at)| now < at.saturating_add(BELIEF));
        self.lowered = self.lowered.filter(|lowered| now < lowered.until.saturating_add(BELIEF));
    }

    /// When there will be more permits, if none is given back until then.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        let forgets = self.told.map(|(_, at)| at.saturating_add(BELIEF));
        let lowered =
            self.lowered.map(
                |Lowered { until, .. }| {
                    if now < until { until } else { until.saturating_add(BELIEF) }
                },
            );
        [forgets, lowered].into_iter().flatten().min()
    }
}
